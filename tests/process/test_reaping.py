"""A shim that has gone leaves no zombie in the process that started it, however long its end takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.runs.record import read_record, record_path
from app.service import manage
from app.supervisor import boot
from app.supervisor.process import ProcessManager
from tests.kit.actors import shim_of
from tests.kit.processes import descendants
from tests.kit.waiting import wait_until


def test_an_end_that_takes_long_is_waited_for_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shim that is stopped between its last packet and its end is reaped when it ends, and holds no caller up."""
    monkeypatch.setattr(boot, "REAP_TIMEOUT", 0.05)
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    began = time.monotonic()
    boot.reap(child.pid)
    assert time.monotonic() - began < 1
    os.kill(child.pid, signal.SIGKILL)
    wait_until(lambda: child.pid not in descendants())
    child.wait()


def test_the_shim_of_a_run_that_had_ended_is_reaped(tmp_path: Path) -> None:
    """A second manager that finds a run ended reaps its shim where the first did not read of the end any more."""
    first = manage(tmp_path)
    status = first.start("exec sleep 60")
    shim = shim_of(status)
    first.close()  # reads nothing of the run from now on
    os.kill(status["process_pid"], signal.SIGKILL)
    wait_until(lambda: (record := read_record(record_path(status["log_file"]))) and record.state.ended)
    second = manage(tmp_path)
    second.take_over()
    second.close()
    wait_until(lambda: shim not in descendants())


def test_no_call_has_to_wait_for_a_shim_s_end(pm: ProcessManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the time that a call has for it is over at once, as on a busy machine, the shim is reaped all the same."""
    monkeypatch.setattr(boot, "REAP_TIMEOUT", -1.0)
    shim = shim_of(pm.start("exec sleep 60"))
    pm.kill()
    wait_until(lambda: shim not in descendants())
