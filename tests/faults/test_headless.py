"""A process whose first thread has ended reads as a zombie, although its other threads run on."""

from __future__ import annotations

import sys

import pytest

from tests.kit.actors import kill_shim
from tests.kit.places import PROGRAMS
from tests.kit.service import Service


@pytest.mark.parametrize("keeper", ["shim", "understudy"])
def test_a_process_without_its_first_thread_lives_and_can_be_killed(service: Service, keeper: str) -> None:
    """Such a process is running, whoever keeps it, and a /kill ends it."""
    service.start(["exec", sys.executable, PROGRAMS / "headless.py"])
    service.wait_for_output("ready")
    if keeper == "understudy":
        kill_shim(service)
    assert service.status()["status"] == "running"
    answer = service.post("/kill").body
    assert (answer["status"], answer["exit_code"], answer["survivors"]) == ("killed", -15, [])
