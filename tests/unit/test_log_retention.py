"""Which runs are removed when there are too many, and what of them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from app.linux.proc import boot_id, has_executed, identity_of
from app.runs.names import RUN_ID_VARIABLE, files_of_runs
from app.runs.pointer import Pointer
from app.runs.record import RunRecord, State, record_path, spare_path
from app.runs.retention import remove_files
from app.supervisor import retention
from app.supervisor.history import History
from app.supervisor.policy import Policy
from app.supervisor.retention import Retention
from tests.kit.records import ended_at, record_of_past
from tests.kit.waiting import wait_until

DAY = "2026-11-22_06-08-"
FILES = (".log", ".1.log", ".log.new", ".log.old", ".json", ".json.spare", ".json.new")
Prune = Callable[..., set[str]]


@pytest.fixture
def prune(tmp_path: Path) -> Prune:
    """Return a function that prunes the directory as a new service does, and returns the ids of the runs left."""

    def prune(keep: int = 0, total_bytes: int = 0) -> set[str]:
        history = History(tmp_path)
        policy = Policy(log_keep=keep, log_total_bytes=total_bytes)
        Retention(tmp_path, history, policy, let_go).prune()
        history.index.close()
        return left()

    def let_go(name: str, run_id: str) -> bool:
        pointer = Pointer(tmp_path, name)
        assert pointer.read() == str(tmp_path / f"{run_id}.json")
        pointer.set(None)
        return True

    def left() -> set[str]:
        return {run_id for _second, _number, run_id in files_of_runs(tmp_path)}

    return prune


def ids(records: list[RunRecord]) -> set[str]:
    """Return the ids of these."""
    return {record.run_id for record in records}


@contextmanager
def sleeping(**variables: str) -> Iterator[int]:
    """Have a process that lives, with these in its environment, and yield its pid."""
    command = ["sleep", "1000"]
    with subprocess.Popen(command, env={**os.environ, **variables}) as process, ExitStack() as cleanup:
        cleanup.callback(process.kill)
        wait_until(lambda: has_executed(process.pid))
        yield process.pid


def make_current(log_dir: Path, record: RunRecord) -> None:
    """Have a name's pointer name this run."""
    Pointer(log_dir, record.name).set(record_path(record.log_file))


def lose_record(record: RunRecord, *, age: float = 3600.0) -> None:
    """Make a run's record unreadable, long after it was started."""
    for path in (record_path(record.log_file), spare_path(record_path(record.log_file))):
        Path(path).write_bytes(b"{")
    os.utime(record.log_file, (time.time() - age,) * 2)


def test_a_run_goes_with_all_its_files(tmp_path: Path) -> None:
    """Every file of a run is removed, and no file of another."""
    for second in ("01", "02"):
        for end in FILES:
            (tmp_path / f"{DAY}{second}{end}").touch()
    assert remove_files(tmp_path, f"{DAY}01")
    assert {path.name for path in tmp_path.iterdir()} == {f"{DAY}02{end}" for end in FILES}


def test_what_can_not_be_removed_does_not_stop_the_rest(tmp_path: Path) -> None:
    """A directory with a log's name is left, which is told, and the other files go."""
    (tmp_path / f"{DAY}01.log").mkdir()
    (tmp_path / f"{DAY}01.json").touch()
    assert not remove_files(tmp_path, f"{DAY}01")
    assert [path.name for path in tmp_path.iterdir()] == [f"{DAY}01.log"]


def test_each_name_keeps_its_newest_runs(tmp_path: Path, prune: Prune) -> None:
    """What one name starts takes nothing from another."""
    web = [record_of_past(tmp_path, second, name="web") for second in (1, 2)]
    api = [record_of_past(tmp_path, second, name="api") for second in range(3, 9)]
    default = record_of_past(tmp_path, 0)
    assert prune(keep=2) == ids([*web, *api[-2:], default])


def test_a_name_s_runs_age_by_their_start(tmp_path: Path, prune: Prune) -> None:
    """Of a name's runs the one that was started first goes first, whenever it has ended."""
    record_of_past(tmp_path, 1, state=ended_at(50))
    later = record_of_past(tmp_path, 2)
    assert prune(keep=1) == {later.run_id}


def test_all_names_together_lose_what_ended_first(tmp_path: Path, prune: Prune) -> None:
    """Beyond the bytes for all logs the run that ended first goes, of whatever name, and only as many as must."""
    first = record_of_past(tmp_path, 5, name="a", lines=100)
    second = record_of_past(tmp_path, 1, name="b", lines=100, state=ended_at(6))
    third = record_of_past(tmp_path, 2, name="a", lines=100, state=ended_at(7))
    total = sum(Path(record.log_file).stat().st_size for record in (second, third))
    assert prune(total_bytes=total + 1) == ids([second, third])
    assert not Path(first.log_file).exists()


def test_older_segments_count(tmp_path: Path, prune: Prune) -> None:
    """The older half of a log that has reached its cap is part of what all logs take."""
    record_of_past(tmp_path, 1)
    (tmp_path / "2001-09-09_01-46-41.1.log").write_bytes(b"x" * 5000)
    newer = record_of_past(tmp_path, 2)
    assert prune(total_bytes=5000) == {newer.run_id}


def test_ended_runs_of_all_names_are_bounded(tmp_path: Path, prune: Prune) -> None:
    """Beyond the number of ended runs for all together those that ended first go."""
    records = [record_of_past(tmp_path, second, name=f"n{second}") for second in range(6)]
    with patch.object(retention, "MOST_ENDED", 4):
        assert prune(keep=3) == ids(records[-4:])


def test_a_name_s_last_run_goes_after_all_past_ones(tmp_path: Path, prune: Prune) -> None:
    """Last runs are spared as long as past ones can go; then the name goes with its pointer, the newest run never."""
    records = [record_of_past(tmp_path, second, name=f"n{second % 3}") for second in range(6)]
    for record in records[3:]:
        make_current(tmp_path, record)
    with patch.object(retention, "MOST_ENDED", 3):
        assert prune() == ids(records[3:])
    with patch.object(retention, "MOST_ENDED", 2):
        assert prune() == ids(records[4:])
    assert not (tmp_path / "current-n0").is_symlink()
    with patch.object(retention, "MOST_ENDED", 0):
        assert prune() == ids(records[5:])
    assert Pointer(tmp_path, "n2").read() == record_path(records[5].log_file)


def test_a_name_s_last_run_stays_however_old(tmp_path: Path, prune: Prune) -> None:
    """The current run is not removed for newer ones of its name, which a clock set back may leave."""
    current, _, newest = (record_of_past(tmp_path, second) for second in range(3))
    make_current(tmp_path, current)
    assert prune(keep=1) == {current.run_id, newest.run_id}


@pytest.mark.parametrize("stopped", [False, True])
def test_a_live_run_stays(tmp_path: Path, prune: Prune, stopped: bool) -> None:
    """Nothing is removed of a run whose keeper lives, whatever the bounds, be its process alive or gone."""
    with sleeping() as pid:
        told = ended_at(1).stopped_at if stopped else None
        shim = identity_of(pid)
        live = record_of_past(tmp_path, 1, boot_id=boot_id(), shim=shim, state=State(stopped_at=told), lines=1000)
        newer = [record_of_past(tmp_path, second) for second in (2, 3)]
        make_current(tmp_path, newer[1])
        with patch.object(retention, "MOST_ENDED", 1):
            assert prune(keep=1, total_bytes=1000) == {live.run_id, newer[1].run_id}
    assert prune(keep=1) == {newer[1].run_id}


def test_a_run_whose_record_is_lost_goes_by_its_age(tmp_path: Path, prune: Prune) -> None:
    """Runs without a readable record count as those of one name, whose time is that of their file's name."""
    lost = [record_of_past(tmp_path, second) for second in range(4)]
    for record in lost:
        lose_record(record)
    kept = record_of_past(tmp_path, 9)
    assert prune(keep=2) == ids([*lost[2:], kept])


def test_a_live_run_whose_record_is_lost_stays(tmp_path: Path, prune: Prune) -> None:
    """Where the record can't say who belongs to a run, its id in the environment of a process does."""
    lost = [record_of_past(tmp_path, second) for second in range(3)]
    for record in lost:
        lose_record(record)
    with sleeping(**{RUN_ID_VARIABLE: lost[0].run_id}):
        assert prune(keep=1) == ids([lost[0], lost[2]])
    assert prune(keep=1) == ids([lost[2]])


def test_a_log_whose_record_is_yet_to_come_stays(tmp_path: Path, prune: Prune) -> None:
    """A log of the last minute may be that of a start under way, whatever the clock had been when it was named."""
    fresh, other = record_of_past(tmp_path, 1), record_of_past(tmp_path, 2)
    lose_record(fresh, age=1.0)
    lose_record(other)
    assert prune(keep=1) == ids([fresh, other])


def test_a_record_that_is_lost_while_the_service_runs_is_found_missing(tmp_path: Path) -> None:
    """A record that becomes unreadable later changes nothing: the run has ended, and goes when it is its turn."""
    history = History(tmp_path)
    first, second = record_of_past(tmp_path, 1), record_of_past(tmp_path, 2)
    history.index.wait_until_built()
    lose_record(first)
    Retention(tmp_path, history, Policy(log_keep=1), lambda _name, _run_id: False).prune()
    history.index.close()
    assert {run_id for _second, _number, run_id in files_of_runs(tmp_path)} == {second.run_id}


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "test.log",
        f"{DAY}01.log.gz",
        f"{DAY}01.txt",
        f"x{DAY}01.log",
        f"{DAY}01_.log",
        f"{DAY}01.log\n",
        "lock",
    ],
)
def test_what_is_not_ours_is_left_alone(tmp_path: Path, prune: Prune, name: str) -> None:
    """A file whose name no run gave is not touched, however many runs go."""
    (tmp_path / name).touch()
    os.utime(tmp_path / name, (1, 1))
    runs = [record_of_past(tmp_path, second) for second in range(3)]
    assert prune(keep=1) == {runs[-1].run_id}
    assert (tmp_path / name).exists()


def test_a_run_that_can_not_be_removed_is_tried_again(tmp_path: Path) -> None:
    """A file that stays holds nothing else up, and goes with the next start after which it can."""
    stuck, gone, kept = (record_of_past(tmp_path, second) for second in range(3))
    obstacle = tmp_path / f"{stuck.run_id}.log.new"
    obstacle.mkdir()
    history = History(tmp_path)
    keeping_one = Retention(tmp_path, history, Policy(log_keep=1), lambda _name, _run_id: False)
    keeping_one.prune()
    assert not Path(gone.log_file).exists()
    obstacle.rmdir()
    keeping_one.prune()
    history.index.close()
    assert {run_id for _second, _number, run_id in files_of_runs(tmp_path)} == {kept.run_id}


def test_a_missing_directory_has_nothing_to_remove(tmp_path: Path) -> None:
    """A directory that is gone is no fault."""
    history = History(tmp_path / "gone")
    Retention(tmp_path / "gone", history, Policy(log_keep=1), lambda _name, _run_id: False).prune()
    history.index.close()
    assert not (tmp_path / "gone").exists()
