"""Which run is the last one for a directory's next manager, and what is told of past ones."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import BadRequestError, NotFoundError
from app.linux.proc import read_member
from app.runs.record import RecordFile, State, read_record, record_path
from app.runs.spec import Spec
from app.service import manage
from app.supervisor.manager import ProcessManager
from app.supervisor.policy import Policy
from app.supervisor.remains import ABANDONED
from tests.kit.actors import record_of, shim_of, understudy_of
from tests.kit.leftovers import reap
from tests.kit.output import content, printed
from tests.kit.processes import send
from tests.kit.waiting import ended, wait_until

ANOTHER_BOOT = "00000000-0000-4000-8000-000000000000"


@contextmanager
def manager_of(log_dir: Path) -> Iterator[ProcessManager]:
    """Answer for a directory as its next service does; what lives there in the end is ended."""
    manager = manage(log_dir)
    manager.take_over()
    yield manager
    manager.shut_down(0.0)
    manager.close()


def run_to_its_end(manager: ProcessManager, command: str) -> dict[str, Any]:
    """Run a command and return its status object once nothing of it is left."""
    manager.start(command)
    return wait_until(lambda: (now := manager.get_status())["stopped_at"] and not now["output_open"] and now)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a log directory in which two commands have run, ending with 5 and 6."""
    folder = tmp_path_factory.mktemp("finished")
    with manager_of(folder) as manager:
        run_to_its_end(manager, "echo five; exit 5")
        run_to_its_end(manager, "echo six; exit 6")
    return folder


@pytest.fixture
def logs(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of that directory for this test, as a backup would be."""
    return shutil.copytree(finished, tmp_path / "logs", symlinks=True)


def files_of_newest(logs: Path) -> list[Path]:
    """Return the files of the newer run."""
    newest = max(logs.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return list(logs.glob(f"{newest.stem}.*"))


def break_records(files: list[Path]) -> None:
    """Make a run's record and its spare unreadable."""
    for path in files:
        if path.suffix in {".json", ".spare"}:
            path.write_bytes(b"{")


def remove(files: list[Path]) -> None:
    """Remove a run's files."""
    for path in files:
        path.unlink()


def test_the_last_run_is_the_one_that_the_link_names(logs: Path) -> None:
    """The next manager answers for the run that was the last, with its code, and reads its log."""
    with manager_of(logs) as manager:
        assert manager.get_status()["exit_code"] == 6
        assert content(manager) == "six"


def test_without_the_link_the_newest_kept_run_is_the_last(logs: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the link was removed the newest run is answered for, the log says so, and the link is made again."""
    (logs / "current").unlink()
    with manager_of(logs) as manager:
        assert manager.get_status()["exit_code"] == 6
    assert "No link names the current run" in caplog.text
    assert (logs / "current").exists()


@pytest.mark.parametrize("harm", [remove, break_records])
def test_a_link_that_leads_nowhere_gives_way_to_the_newest_kept_run(
    logs: Path, harm: Callable[[list[Path]], None]
) -> None:
    """Where the last run's record was removed, or can't be read, the one before is the last that is known."""
    harm(files_of_newest(logs))
    with manager_of(logs) as manager:
        status = manager.get_status()
        assert (status["exit_code"], content(manager)) == (5, "five")
        assert manager.restart()["command"] == status["command"]


def test_a_start_that_came_to_nothing_is_no_last_run(logs: Path) -> None:
    """A record that tells of no process, as a service leaves that died in the midst of a start, is passed over."""
    newest = files_of_newest(logs)
    (path,) = [str(path) for path in newest if path.suffix == ".json"]
    record = read_record(path)
    assert record is not None
    record.process, record.state = None, State()
    RecordFile(path).write(record)
    (logs / "current").unlink()
    with manager_of(logs) as manager:
        assert manager.get_status()["exit_code"] == 5


def test_a_directory_that_was_moved_keeps_its_runs(logs: Path) -> None:
    """Restored or moved elsewhere, with the link or without, the last run is read where it lies now."""
    elsewhere = logs.with_name("elsewhere")
    shutil.move(logs, elsewhere)
    with manager_of(elsewhere) as manager:
        status = manager.get_status()
        assert (status["exit_code"], Path(status["log_file"]).parent) == (6, elsewhere)
        assert content(manager) == "six"
        for run_id in (path.stem for path in elsewhere.glob("*.json")):
            assert Path(manager.get_status(run_id)["log_file"]).parent == elsewhere
    assert not logs.exists()


def test_a_running_run_of_another_machine_is_told_as_ended(logs: Path) -> None:
    """A backup of a live run, restored elsewhere, says that its end was not seen; nothing is written to its old place.

    What was known of the process's own end stays as it was.
    """
    for path in logs.glob("*.json"):
        record = read_record(str(path))
        assert record is not None
        record.boot_id = ANOTHER_BOOT
        known = record.state.exit_code == 5
        record.state = State(stopped_at=record.state.stopped_at, exit_code=5) if known else State()
        RecordFile(str(path)).write(record)
    elsewhere = logs.with_name("elsewhere")
    shutil.move(logs, elsewhere)
    first, second = sorted(path.stem for path in elsewhere.glob("*.json"))
    with manager_of(elsewhere) as manager:
        status = manager.get_status()
        assert (status["run_id"], status["status"], status["exit_code"]) == (second, "exited", None)
        assert status["reason"] == "The machine was restarted before its end was seen, so its exit code is not known."
        past = manager.get_status(first)
        assert (past["exit_code"], past["reason"], past["output_open"]) == (5, None, False)
        assert manager.get_status(first) == past
    assert not logs.exists()


def test_the_time_of_an_unseen_end_does_not_change(logs: Path) -> None:
    """What was found out about a past run is written down: a later look says the same."""
    path = max(set(logs.glob("*.json")) - set(files_of_newest(logs)))
    record = read_record(str(path))
    assert record is not None
    record.boot_id, record.state = ANOTHER_BOOT, State()
    RecordFile(str(path)).write(record)
    with manager_of(logs) as manager:
        told = manager.get_status(path.stem)
        assert told["stopped_at"] is not None
        time.sleep(0.001)  # a clock's step: were the time made up at each look, it would differ now
        assert manager.get_status(path.stem) == told


def test_any_kept_run_s_outcome_is_told(logs: Path) -> None:
    """Each run is told of by its id: the current one as without, a past one as it was while it was current."""
    with manager_of(logs) as manager:
        current = manager.get_status()
        assert manager.get_status(current["run_id"]) == current
        (past,) = {path.stem for path in logs.glob("*.json")} - {current["run_id"]}
        status = manager.get_status(past)
        assert list(status) == list(current)
        assert (status["run_id"], status["status"], status["exit_code"]) == (past, "exited", 5)
        manager.start("true", if_running="replace")
        assert manager.get_status(current["run_id"]) == current


def test_a_run_without_a_record_has_no_outcome(logs: Path) -> None:
    """Of a run of which only the log is left its output is read, and /status says that it is all there is."""
    files = files_of_newest(logs)
    run_id = files[0].name.split(".")[0]
    with manager_of(logs) as manager:
        manager.start("true")
        ended(manager.get_status)
        break_records(files)
        with pytest.raises(NotFoundError, match=rf"can't be read any more.*GET /logs\?run_id={run_id}"):
            manager.get_status(run_id)
        assert manager.log_of(run_id)[0] == str(logs / f"{run_id}.log")


@contextmanager
def past_run(logs: Path, command: str) -> Iterator[tuple[ProcessManager, dict[str, Any]]]:
    """Run a command that is not the current run any more and lives on; what of it lives in the end is ended."""
    with manager_of(logs) as first:
        first.start(command)
        printed(first, "ready")
        shim = shim_of(first.get_status())  # by then its record is whole
        status = first.get_status()
        (logs / "current").unlink()
        second = manage(logs)
        second.start("true")
        ended(second.get_status)
        yield second, status
        second.close()
    with suppress(ChildProcessError):
        os.waitpid(shim, 0)  # the first manager may have let go of the run before its shim ended


def test_a_past_run_that_lives_is_told_as_running(tmp_path: Path) -> None:
    """A past run whose shim lives is told as it is: running, and ended with its code once it has ended."""
    with past_run(tmp_path / "logs", "echo ready; trap 'exit 4' USR1; while :; do sleep 0.02; done") as (manager, past):
        assert manager.get_status(past["run_id"]) == past
        os.kill(past["process_pid"], signal.SIGUSR1)
        status = wait_until(lambda: (now := manager.get_status(past["run_id"]))["stopped_at"] and now)
        assert (status["status"], status["exit_code"], status["leftover_pids"]) == ("exited", 4, [])


def test_a_past_run_s_leftovers_are_named(tmp_path: Path) -> None:
    """A past run of which something lives on names it as long as it does, and no longer."""
    with past_run(tmp_path / "logs", "sleep 1000 & echo $!; echo ready; exit 4") as (manager, past):
        leftover = int(Path(past["log_file"]).read_text().split('"line":"')[1].split('"')[0])
        status = wait_until(lambda: (now := manager.get_status(past["run_id"]))["stopped_at"] and now)
        assert (status["status"], status["exit_code"], status["leftover_pids"]) == ("exited", 4, [leftover])
        assert manager.get_status()["leftover_pids"] == []
        os.kill(leftover, signal.SIGKILL)
        status = wait_until(lambda: not (now := manager.get_status(past["run_id"]))["leftover_pids"] and now)
        assert (status["status"], status["exit_code"]) == ("exited", 4)


def test_a_past_run_without_keepers_is_left_alone_and_told(tmp_path: Path) -> None:
    """A past run whose keepers were killed is running as long as its process is, and has ended, code unknown, after."""
    with manager_of(tmp_path / "logs") as first:
        status = first.start("echo ready; exec sleep 1000")
        printed(first, "ready")
        keepers = understudy_of(status), shim_of(status)
        first.close()
        send(signal.SIGKILL, *keepers)
        (tmp_path / "logs" / "current").unlink()
        second = manage(tmp_path / "logs")
        second.start("true")
        ended(second.get_status)
        told = second.get_status(status["run_id"])
        assert (told["status"], told["process_pid"], told["reason"]) == ("running", status["process_pid"], ABANDONED)
        assert record_of(status).state.stopped_at is None
        send(signal.SIGKILL, status["process_pid"])
        reap([*keepers, status["process_pid"]])
        told = second.get_status(status["run_id"])
        assert (told["status"], told["exit_code"]) == ("exited", None)
        assert told["reason"].startswith("The processes that kept it are gone")
        assert second.get_status(status["run_id"]) == told
        second.close()


def test_retention_never_takes_the_last_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose name is older than all that are kept, the clock having been set back, is kept while it is the last.

    So is the last run of an earlier service, whatever is started in vain after it.
    """
    logs = tmp_path / "logs"
    manager = manage(logs, Policy(log_keep=1))
    newer = manager.start("exit 5")["run_id"]
    ended(manager.get_status)
    monkeypatch.setattr(time, "gmtime", lambda *_: time.struct_time((2001, 1, 1, 0, 0, 0, 0, 1, 0)))
    monkeypatch.setattr(time, "time_ns", lambda: 978_307_200 * 10**9)
    last = manager.start("exit 6", if_running="replace")["run_id"]
    ended(manager.get_status)
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "log-retention"])
    assert {path.stem for path in logs.glob("*.json")} == {newer, last}
    manager.close()
    with manager_of(logs) as manager:
        with pytest.raises(BadRequestError):
            manager.start(Spec("true", cwd="/nowhere"))
        assert (manager.get_status()["run_id"], manager.get_status()["exit_code"]) == (last, 6)


def test_retention_spares_a_run_that_lives_beside_the_current_one(tmp_path: Path) -> None:
    """The files of a run of which anything lives stay, however many newer ones there are; then they go as any."""
    manager = manage(tmp_path)
    past = manager.start("exec sleep 1000")
    manager.close()
    (tmp_path / "current").unlink()
    beside = manage(tmp_path, Policy(log_keep=1))
    try:
        newer = [run_to_its_end(beside, "true")["run_id"] for _ in range(3)]
        wait_until(lambda: not (tmp_path / f"{newer[1]}.log").exists())
        assert beside.get_status(past["run_id"])["status"] == "running"
    finally:
        send(signal.SIGKILL, past["process_pid"])
        # A retention under way may have removed it by then.
        wait_until(lambda: (kept := read_record(record_path(past["log_file"]))) is None or kept.state.ended)
    run_to_its_end(beside, "true")
    wait_until(lambda: not (tmp_path / f"{past['run_id']}.log").exists())
    beside.close()


@pytest.mark.parametrize("end", [".json", ".json.spare"])
def test_a_run_of_which_one_record_was_lost_keeps_its_outcome(tmp_path: Path, end: str) -> None:
    """The record and its spare tell the same once a run has ended: whichever is lost, nothing is made up."""
    with manager_of(tmp_path) as manager:
        for _ in range(5):
            run = run_to_its_end(manager, "exit 6")
            wait_until(partial(both_tell_the_end, tmp_path / run["run_id"]))
            (tmp_path / f"{run['run_id']}{end}").unlink()
    with manager_of(tmp_path) as manager:
        last = manager.get_status()
        assert manager.get_status(last["run_id"]) == last
        assert (last["status"], last["exit_code"], last["reason"]) == ("exited", 6, None)


def both_tell_the_end(stem: Path) -> bool:
    """Tell whether a run's record and its spare are those of a run that has ended."""
    return all('"ended":true' in stem.with_suffix(end).read_text() for end in (".json", ".json.spare"))


def test_a_record_that_names_another_s_pid_as_its_shim_holds_nobody_up(logs: Path) -> None:
    """Where the number of a dead shim means a live child of the service's now, nobody waits for that one's end."""
    with subprocess.Popen(["sleep", "1000"]) as stranger, ExitStack() as cleanup:  # noqa: S607  found on the path
        cleanup.callback(stranger.kill)
        member = read_member(stranger.pid)
        last = max(logs.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        record = read_record(str(last))
        assert record is not None
        assert member is not None
        record.shim, record.control, record.state = member.identity, "llm-shell-nobody-listens", State()
        record.log_file = str(last.with_suffix(".log"))
        RecordFile(str(last)).write(record)
        began = time.monotonic()
        with manager_of(logs) as manager:
            wait_until(lambda: manager.get_status()["stopped_at"], 5)
            assert time.monotonic() - began < 5
        assert stranger.poll() is None
