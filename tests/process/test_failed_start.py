"""A start that fails leaves no file, no thread and no lock, whatever can not be undone; starts share a retention."""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
from pathlib import Path

import pytest

from app.exceptions import InternalError
from app.runs.record import RecordFile
from app.runs.spec import Spec
from app.service import manage
from app.supervisor import zygote
from app.supervisor.manager import ProcessManager
from app.supervisor.policy import Policy
from app.supervisor.retention import Retention
from app.supervisor.run import Run
from app.supervisor.starting import Starter
from tests.kit.actors import record_of
from tests.kit.leftovers import ZYGOTE
from tests.kit.processes import children, descendants, descriptors_of, name_of, parent, send
from tests.kit.waiting import ended, wait_until

pytestmark = pytest.mark.usefixtures("orphans_reaped")


def threads_of_runs() -> list[str]:
    """Return the names of the threads that runs have."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name in {"run-watcher", "log-retention"}]


def test_failed_starts_leave_no_thread(pm: ProcessManager, tmp_path: Path) -> None:
    """Starts in a directory that goes while they are made leave the run before as it was, and nothing else."""
    before = pm.start("exit 3")["run_id"]
    ended(pm.get_status)
    folder = tmp_path / "folder"
    folder.mkdir()
    checked = pm._get("default")._starter.check(Spec("true", cwd=str(folder)))
    folder.rmdir()
    for _ in range(20):
        with pytest.raises(Exception, match="folder"):
            pm._get("default")._starter.start(checked, None, "")
    wait_until(lambda: not threads_of_runs())
    assert pm.get_status()["run_id"] == before
    assert len(list(pm.logs.log_dir.glob("*.log"))) == 1


def test_what_can_not_be_undone_hides_no_reason(
    pm: ProcessManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller is told why the start has failed, not what the undo of it met; the next start works."""
    folder = tmp_path / "folder"
    folder.mkdir()
    checked = pm._get("default")._starter.check(Spec("true", cwd=str(folder)))
    folder.rmdir()

    def refuse(_self: RecordFile) -> None:
        raise PermissionError(13, "not this one")

    with monkeypatch.context() as refusing:
        refusing.setattr(RecordFile, "remove", refuse)
        with pytest.raises(Exception, match="folder"):
            pm._get("default")._starter.start(checked, None, "")
    wait_until(lambda: not threads_of_runs())
    pm.start("exit 3")
    assert ended(pm.get_status)["exit_code"] == 3


def test_a_pointer_that_can_not_be_set_keeps_no_files(pm: ProcessManager) -> None:
    """Where a directory has the place of a name's link, each start fails and leaves nothing, its link included."""
    (pm.logs.log_dir / "current-web").mkdir()
    for _ in range(2):
        with pytest.raises(InternalError, match="Is a directory"):
            pm.start("true", name="web")
    assert {path.name for path in pm.logs.log_dir.iterdir()} == {".lock", "current-web"}


def test_one_retention_waits_while_one_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many starts are made meanwhile, one further thread is enough: it sees the runs of all."""
    goes_on = threading.Event()
    prune = Retention.prune

    def slow(self: Retention) -> None:
        goes_on.wait(30)
        prune(self)

    monkeypatch.setattr(Retention, "prune", slow)
    manager = manage(tmp_path / "logs", Policy(log_keep=2))
    for _ in range(8):
        manager.start("true")
        ended(manager.get_status)
        assert threads_of_runs().count("log-retention") <= 2
    goes_on.set()
    wait_until(lambda: not threads_of_runs())
    assert len(list((tmp_path / "logs").glob("*.log"))) <= 3
    manager.shut_down(0.0)
    manager.close()


def understudies() -> list[int]:
    """Return the understudies below this process; a shim that has just been forked has the same name for a moment."""
    return sorted(pid for pid, name in descendants().items() if name.startswith("llm-understudy "))


def test_a_start_is_prepared_once(pm: ProcessManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a shim is killed before it may execute the command, the next one does, and its record stays."""
    pm.start("true")
    ended(pm.get_status)
    wait_until(lambda: not understudies())
    prepared, prepare = [], Starter._prepare

    def prepare_and_kill(self: Starter, run: Run) -> None:
        understudy = wait_until(lambda: [pid for pid in understudies() if name_of(parent(pid)) == ZYGOTE])[0]
        (shim,) = wait_until(lambda: children(understudy))
        send(signal.SIGKILL, shim)
        prepared.append(shim)
        prepare(self, run)

    monkeypatch.setattr(Starter, "_prepare", prepare_and_kill)
    pm.start("exit 3")
    status = ended(pm.get_status)
    assert (status["exit_code"], len(prepared)) == (3, 1)
    wait_until(lambda: record_of(status).state.ended)
    assert record_of(status).state.exit_code == 3


def test_a_start_that_can_not_be_prepared_leaves_no_stopped_process(
    pm: ProcessManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An understudy that was stopped meanwhile would keep what the start holds."""
    pm.start("true")
    ended(pm.get_status)
    wait_until(lambda: not understudies())

    def stop_and_fail(_self: Starter, _run: Run) -> None:
        send(signal.SIGSTOP, *wait_until(understudies))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Starter, "_prepare", stop_and_fail)
    with pytest.raises(InternalError, match=os.strerror(errno.ENOSPC)):
        pm.start("true", if_running="replace")
    wait_until(lambda: not understudies())


def test_a_zygote_has_no_descriptor_above_a_lowered_limit(pm: ProcessManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was opened before the limit was lowered, and left inheritable, reaches neither zygote nor command."""
    high, (soft, hard) = 500, resource.getrlimit(resource.RLIMIT_NOFILE)
    read_end, write_end = os.pipe()
    os.dup2(read_end, high, inheritable=True)
    try:
        monkeypatch.setattr(zygote, "own", own := zygote.Zygote())
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        own.prepare()
        pm.start("exec sleep 1000")
        assert sorted(descriptors_of(own._pid)) == [0, 1, 2, 3]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in (high, read_end, write_end):
            os.close(fd)
    pm.kill("SIGKILL")
    wait_until(lambda: not understudies())
    own._end()


def test_what_was_removed_is_not_written_again(pm: ProcessManager) -> None:
    """The end of a run without keepers, whose record was removed, makes none."""
    status = pm.start("exec sleep 1000 > /dev/null 2>&1")
    wait_until(lambda: record_of(status).understudy)
    record = record_of(status)
    assert record.understudy is not None
    assert record.shim is not None
    send(signal.SIGKILL, record.understudy.pid, record.shim.pid)
    for path in pm.logs.log_dir.glob("*.json*"):
        path.unlink()
    send(signal.SIGKILL, status["process_pid"])
    assert ended(pm.get_status)["exit_code"] is None
    assert list(pm.logs.log_dir.glob("*.json*")) == []
