"""A shim that dies between the spawn and its answer."""

import errno
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from app.exceptions import InternalError, NotFoundError
from app.linux import sockets
from app.protocol import Started, decode_from_shim
from app.supervisor import launch
from app.supervisor.manager import ProcessManager
from tests.kit.leftovers import ZYGOTE, reap
from tests.kit.output import printed
from tests.kit.places import ROOT
from tests.kit.processes import alive, descendants, name_of, send
from tests.kit.records import make_record


def killed_before_the_answer(connection: socket.socket, _record: object, *, both: bool = False) -> None:
    """Kill the shim of a start once its command runs, and the understudy before it if need be; discard its answer."""
    started = decode_from_shim(connection.recv(65536))
    assert isinstance(started, Started)
    assert started.shim is not None
    assert started.understudy is not None
    send(signal.SIGKILL, *([started.understudy.pid] if both else []), started.shim.pid)


def test_a_shim_killed_before_its_answer(pm: ProcessManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A start whose shim was killed after the spawn and before its answer succeeds, through the understudy."""
    monkeypatch.setattr(launch, "_first_message", killed_before_the_answer)
    go = tmp_path / "go"  # what a shim has read when it is killed is lost
    status = pm.start(f"until [ -e {go} ]; do sleep 0.02; done; echo ready; exec sleep 100")
    go.touch()
    printed(pm, "ready")
    assert alive(status["process_pid"])
    assert pm.kill()["exit_code"] == -15


def test_a_start_that_failed_leaves_no_command(pm: ProcessManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the understudy was killed as well, the start fails and what it started is ended."""
    monkeypatch.setattr(launch, "_first_message", partial(killed_before_the_answer, both=True))
    before = descendants()
    with pytest.raises(InternalError):
        pm.start("sleep 1000 & exec sleep 1000")
    with pytest.raises(NotFoundError):
        pm.get_status()
    left = {pid for pid in descendants().keys() - before.keys() if name_of(pid) != ZYGOTE}
    assert set(reap(left)) == {-9}


def test_a_start_that_can_not_be_recorded_executes_nothing(tmp_path: Path) -> None:
    """Where a start fails while its shim waits for the record, nothing is executed, and shim and understudy end."""

    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = descendants()
    record = make_record(command=f"touch {tmp_path}/executed")
    with sockets.listen(f"llm-shell-test-{os.getpid()}") as listener, pytest.raises(OSError, match="No space"):
        launch.launch(record, {}, listener, fail)
    reap([pid for pid, name in descendants().items() if pid not in before and not name.startswith(ZYGOTE)])
    assert not list(tmp_path.iterdir())


IN_A_NARROW_LOCALE = r"""
import sys
from app.exceptions import BadRequestError
from app.runs.spec import Spec
from app.service import manage
manager = manage(sys.argv[1])
first = manager.start("echo one; exit 3")
try:
    manager.start(Spec("pwd", cwd="/tmp/\u6f22"), if_running="replace")
except BadRequestError as error:
    print(error.detail.isascii() or "cwd" in error.errors)
manager.start(Spec("printf %s '\u6f22\u00e9'$MORE; exit 4", env={"MORE": "\u5b57"}), if_running="replace")
manager._get("default").current().wait_until_over(10)
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
