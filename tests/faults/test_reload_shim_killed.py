"""A shim is killed in the course of a reload: neither worker need be there for its command to go on."""

from __future__ import annotations

import pytest

from tests.kit.reloads import printing_command_goes_on, waiting_command_goes_on
from tests.kit.service import Service


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.6])
def test_a_waiting_command_goes_on(service: Service, delay: float) -> None:
    """A command that waits goes on, and all that it prints before and after is there."""
    waiting_command_goes_on(service, delay)


@pytest.mark.parametrize("delay", [0.05, 0.3, 1.0])
def test_a_printing_command_goes_on(service: Service, delay: float) -> None:
    """A command that prints goes on, and what it prints has one short gap at the most."""
    printing_command_goes_on(service, delay)
