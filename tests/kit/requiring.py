"""What a test needs of the machine: it is skipped where that is missing, and fails where everything is required."""

from __future__ import annotations

import os

import pytest

# It stays in the environment, for pytest-xdist's workers; no service gets it, which would refuse a name unknown to it.
REQUIRE_ALL = os.environ.get("LLM_SHELL_TEST_REQUIRE_ALL", "0") == "1"


def require(available: object, what: str) -> None:
    """Skip the test when `what` it needs is not there; fail instead where everything is required (`.ci/run`)."""
    if available:
        return
    if REQUIRE_ALL:
        pytest.fail(f"this test needs {what}")
    pytest.skip(f"needs {what}")
