"""`python -m app`: what it says to wrong arguments. (That it serves is shown where real servers run.)"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kit.places import ROOT


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "http"], "'http' is not a port from 0 to 65535"),
        (["--port", "65536"], "'65536' is not a port from 0 to 65535"),
        (["--port", "-1"], "'-1' is not a port from 0 to 65535"),
        (["--port"], "expected one argument"),
        (["--workers", "2"], "unrecognized arguments: --workers 2"),
    ],
)
def test_wrong_arguments(arguments: list[str], said: str) -> None:
    """A wrong argument ends in one line that says what is wrong, and status 2."""
    done = subprocess.run(
        [sys.executable, "-m", "app", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("python -m app: error: ")
    assert said in last
    assert "Traceback" not in done.stderr
