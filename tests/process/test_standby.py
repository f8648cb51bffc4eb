"""The shim that stands by, where it goes on in the very moment in which it is given up."""

import os
import signal
import time
from pathlib import Path

import pytest

from app.supervisor import boot, standby
from app.supervisor.process import ProcessManager
from tests.kit.leftovers import stand_by
from tests.kit.processes import name_of, send
from tests.kit.waiting import ended, wait_until


@pytest.mark.parametrize("milliseconds", [0, 1, 2, 20])
def test_one_that_goes_on_too_late_begins_nothing(
    pm: ProcessManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, milliseconds: int
) -> None:
    """A stopped shim that is continued when its time is over gets no run: the command is started once, by another."""

    def put_down_late(shim: int) -> None:
        os.kill(shim, signal.SIGCONT)
        time.sleep(milliseconds / 1000)  # what it has of life yet, in which it could do harm
        boot.end_unused(shim)

    monkeypatch.setattr(standby, "end_unused", put_down_late)
    pm.keep_standby()
    (ready,) = wait_until(lambda: stand_by([os.getpid()]))
    wait_until(lambda: name_of(ready) == "llm-shell-shim")
    send(signal.SIGSTOP, ready)
    pm.start(f"echo begun >> {tmp_path / 'mark'}")
    assert ended(pm.get_status)["exit_code"] == 0
    assert (tmp_path / "mark").read_text() == "begun\n"
