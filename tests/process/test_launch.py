"""A shim that dies between the spawn and its answer."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.exceptions import InternalError, NotFoundError
from app.protocol.messages import Failed
from app.runs.record import read_record
from app.supervisor import launch
from app.supervisor.process import ProcessManager
from tests.kit.places import ROOT
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


IN_A_NARROW_LOCALE = r"""
import sys
from app.exceptions import BadRequestError
from app.runs.spec import Spec
from app.service import manage
manager = manage(sys.argv[1])
first = manager.start("echo one; exit 3")
try:
    manager.start(Spec("pwd", cwd="/tmp/\u6f22"), replace=True)
except BadRequestError as error:
    print(error.detail.isascii() or "cwd" in error.errors)
manager.start(Spec("printf %s '\u6f22\u00e9'$MORE; exit 4", env={"MORE": "\u5b57"}), replace=True)
manager._run.wait_until_ended(10)
status = manager.get_status()
print(status["exit_code"], manager.restart()["run_id"] != status["run_id"])
manager.shut_down(0)
manager.close()
"""


def test_a_locale_without_the_command_s_characters(tmp_path: Path) -> None:
    """A command and its environment are UTF-8 whatever the service's locale; what can't be a path there is refused."""
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NARROW_LOCALE, str(tmp_path / "logs")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["True", "4", "True"], "")
    logs = sorted((tmp_path / "logs").glob("*.log"))
    assert "漢é字" in logs[1].read_text(encoding="utf-8")
