"""A shim is killed in the course of a reload: what tests/faults does a few times, sixty times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.reloads import printing_command_goes_on, waiting_command_goes_on
from tests.kit.service import Service
from tests.kit.services import services_in

TRIES = 30


@pytest.mark.parametrize("goes_on", [waiting_command_goes_on, printing_command_goes_on])
def test_the_command_goes_on(tmp_path: Path, goes_on: Callable[[Service, float], None]) -> None:
    """Thirty times a shim is killed 0 to 1 s after a SIGHUP, and its command goes on with its lines whole."""
    with services_in(tmp_path) as serve:
        service = serve()
        for number in range(TRIES):
            goes_on(service, number / (TRIES - 1))
