"""A shim that dies between the spawn and its answer."""

import os
import signal
import socket
from pathlib import Path

import pytest

from app.exceptions import InternalError, NotFoundError
from app.protocol.messages import Failed
from app.runs.record import read_record
from app.supervisor import launch
from app.supervisor.process import ProcessManager
from tests.kit.processes import descendants
from tests.kit.waiting import wait_until


def test_a_start_that_failed_leaves_no_command(
    pm: ProcessManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a shim was killed after its spawn and before its answer, the start fails and what it started is ended."""

    def killed_too_soon(_link: socket.socket, shim: int) -> Failed:
        (record,) = (tmp_path / "logs").glob("*.json")
        wait_until(lambda: (found := read_record(str(record))) and found.process)
        os.kill(shim, signal.SIGKILL)
        return Failed("spawn", 0)

    monkeypatch.setattr(launch, "_first_message", killed_too_soon)
    before = descendants()
    with pytest.raises(InternalError):
        pm.start("sleep 1000 & exec sleep 1000")
    with pytest.raises(NotFoundError):
        pm.get_status()
    left = descendants().keys() - before.keys()
    wait_until(lambda: all(name.endswith("(Z)") for pid, name in descendants().items() if pid in left))
    for pid in left:
        os.waitpid(pid, 0)  # under gunicorn the worker does this
