"""What the index knows of the runs of a directory, beside a plain search of the directory for each question."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.exceptions import InternalError
from app.log.snapshot import Snapshot
from app.runs.record import RecordFile, RunRecord, State, read_record, record_path
from app.runs.retention import remove_files
from app.supervisor import index as module
from app.supervisor.index import RunIndex
from tests.kit.records import ended_at, record_of_past
from tests.kit.waiting import wait_until

NAMES = ("default", "web", "web-2")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[RunIndex]:
    """Return an index of the test's directory, not built yet."""
    made = RunIndex(tmp_path)
    yield made
    made.close()


def listed(index: RunIndex, name: str | None = None) -> list[str]:
    """Return the ids of the runs in a list."""
    return [entry.run_id for entry in index.walk(name, None)]


def searched(log_dir: Path, name: str | None = None) -> list[RunRecord]:
    """Return what the directory has of a name or of all, the newest first: the slow way."""
    records = [record for path in log_dir.glob("*.json") if (record := read_record(str(path))) is not None]
    of_name = [record for record in records if name in (None, record.name)]
    return sorted(of_name, key=lambda record: (record.created_at, record.run_id), reverse=True)


def end(record: RunRecord, second: int) -> None:
    """Have a run's record tell its end."""
    record.state = ended_at(second)
    RecordFile(record_path(record.log_file)).write(record)


STEPS = st.lists(
    st.tuples(st.sampled_from(["start", "add", "end", "drop", "delete", "scan"]), st.integers(0, 19)), max_size=25
)


@settings(max_examples=60)
@given(steps=STEPS, built_after=st.integers(0, 25), chunk=st.integers(1, 4))
def test_it_knows_what_a_search_finds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], built_after: int, chunk: int
) -> None:
    """Whatever is started, ends and goes, built before or after that: lists, names, ends and sizes are the search's."""
    log_dir = tmp_path_factory.mktemp("runs")
    index = RunIndex(log_dir)
    runs: dict[int, RunRecord] = {}
    with patch.object(module, "_CHUNK", chunk):
        for number, (step, second) in enumerate(steps):
            if number == built_after:
                index.wait_until_built()
            take(step, second, log_dir, index, runs)
        index.wait_until_built()
        index._scan()
        for entry in index.live():
            if (record := read_record(index.path_of(entry))) is not None and record.state.ended:
                index.settle(entry, record)
        for name in (None, *NAMES):
            assert listed(index, name) == [record.run_id for record in searched(log_dir, name)]
        found = searched(log_dir)
        newest = {name: of_name[0].run_id for name in NAMES if (of_name := searched(log_dir, name))}
        assert {name: entry.run_id for name, entry in index.names().items()} == newest
        ends = sorted((record.state.stopped_at, record.run_id) for record in found if record.state.ended)
        assert [(entry.stopped_at, entry.run_id) for entry in index.ended()] == ends
        assert {entry.run_id for entry in index.live()} == {run.run_id for run in found if not run.state.ended}
        assert index.log_bytes() == sum(path.stat().st_size for path in log_dir.glob("*.log"))
        assert [entry.run_id for entry in index.beyond(1)] == [
            run.run_id for name in index.names() for run in searched(log_dir, name)[:0:-1]
        ]
    index.close()


def take(step: str, second: int, log_dir: Path, index: RunIndex, runs: dict[int, RunRecord]) -> None:
    """Take one step with the run of this second, if it has not gone yet; a run is never started twice."""
    if step == "start" and second not in runs:
        runs[second] = record_of_past(log_dir, second, name=NAMES[second % 3], state=State(), lines=second)
        index.add(runs[second])
    elif step == "add" and second not in runs:  # by another worker
        runs[second] = record_of_past(log_dir, second, name=NAMES[second % 3], state=State(), lines=second)
    elif step == "scan":
        index.wait_until_built()
        index._scan()
    elif second in runs and Path(runs[second].log_file).exists():
        run_id = runs[second].run_id
        if step == "end":
            end(runs[second], 100 - second)
        elif step == "drop":
            remove_files(log_dir, run_id)
            index.discard(run_id)
        elif step == "delete":  # by somebody else
            remove_files(log_dir, run_id)


@settings(max_examples=60)
@given(
    count=st.integers(0, 12),
    limit=st.integers(1, 5),
    same=st.booleans(),
    meanwhile=st.lists(st.tuples(st.sampled_from(["start", "drop"]), st.integers(0, 11)), max_size=6),
)
def test_pages_show_each_run_once(
    tmp_path_factory: pytest.TempPathFactory, count: int, limit: int, same: bool, meanwhile: list[tuple[str, int]]
) -> None:
    """Walked page by page, each run that is there all the time is seen once, whatever starts or goes meanwhile.

    So it is where all were started in the same microsecond.
    """
    log_dir = tmp_path_factory.mktemp("runs")
    at: dict[str, Any] = {"created_at": "2001-01-01T00:00:00.000000Z"} if same else {}
    runs = [record_of_past(log_dir, second, **at) for second in range(count)]
    index = RunIndex(log_dir)
    seen: list[str] = []
    gone: set[str] = set()
    before = None
    while page := [entry for entry, _ in zip(index.walk(None, before), range(limit), strict=False)]:
        seen += [entry.run_id for entry in page]
        before = page[-1]
        for step, second in meanwhile[:1]:
            if step == "start":
                index.add(record_of_past(log_dir, 100 + len(meanwhile)))
            elif second < count and runs[second].run_id != before.run_id:
                gone.add(runs[second].run_id)
                remove_files(log_dir, runs[second].run_id)
        meanwhile = meanwhile[1:]
    index.close()
    assert len(seen) == len(set(seen))
    assert {run.run_id for run in runs} - gone <= set(seen)
    assert [run_id for run_id in seen if run_id not in gone] == [
        run.run_id for run in reversed(runs) if run.run_id not in gone
    ]


def test_runs_that_were_moved_are_known(tmp_path: Path) -> None:
    """A directory that was moved, or restored from a backup, has all its runs."""
    (tmp_path / "old").mkdir()
    runs = [record_of_past(tmp_path / "old", second) for second in range(3)]
    (tmp_path / "old").rename(tmp_path / "new")
    index = RunIndex(tmp_path / "new")
    assert listed(index) == [run.run_id for run in reversed(runs)]
    assert [index.measure(entry)[0] for entry in index.walk(None, None)] == [1, 1, 1]
    index.close()


def test_a_run_without_a_record_is_in_no_list(tmp_path: Path, index: RunIndex) -> None:
    """A log alone is kept, and not listed; its name is none of the names."""
    lost, whole = record_of_past(tmp_path, 1), record_of_past(tmp_path, 2)
    for path in tmp_path.glob(f"{lost.run_id}.json*"):
        path.unlink()
    assert listed(index) == [whole.run_id]
    assert index.find(lost.run_id) is None
    assert set(index.names()) == {"default"}
    assert [entry.run_id for entry in index.ended()] == [lost.run_id, whole.run_id]


def test_a_record_that_goes_while_the_index_lives(tmp_path: Path, index: RunIndex) -> None:
    """A run whose files somebody removes is in no list any more, and one that has lost its record alone neither."""
    runs = [record_of_past(tmp_path, second) for second in range(4)]
    assert len(listed(index)) == 4
    remove_files(tmp_path, runs[0].run_id)
    for path in tmp_path.glob(f"{runs[1].run_id}.json*"):
        path.unlink()
    Path(record_path(runs[2].log_file)).unlink()  # its spare tells the same
    assert listed(index) == [runs[3].run_id, runs[2].run_id]
    assert [entry.run_id for entry in index.ended()] == [run.run_id for run in runs[1:]]


def test_a_log_that_changes_is_read_anew(tmp_path: Path, index: RunIndex) -> None:
    """The lines of an ended run are counted once, and again where its log was changed; without a log none are told."""
    run = record_of_past(tmp_path, 1, lines=7)
    (entry,) = index.walk(None, None)
    assert index.measure(entry) == (7, Path(run.log_file).stat().st_size)
    with patch.object(Snapshot, "open", side_effect=AssertionError("read again")):
        assert index.measure(entry)[0] == 7
    record_of_past(tmp_path, 1, lines=9)
    assert index.measure(entry) == (9, index.log_bytes())
    Path(run.log_file).unlink()
    assert index.measure(entry) == (None, 0)
    assert index.log_bytes() == 0


def test_the_newest_of_a_name_had_a_process(tmp_path: Path, index: RunIndex) -> None:
    """A start that came to nothing is no name's last run."""
    run = record_of_past(tmp_path, 1, name="web")
    record_of_past(tmp_path, 2, name="web", process=None, state=State())
    assert index.newest_of("web") == record_path(run.log_file)
    assert index.newest_of("api") is None


def test_a_run_of_another_directory_is_none_of_its(tmp_path: Path, index: RunIndex) -> None:
    """A run whose log was named by the caller, elsewhere or otherwise, is not kept by retention, and so not listed."""
    (tmp_path / "x").mkdir()
    index.add(record_of_past(tmp_path / "x", 1))
    record = record_of_past(tmp_path / "x", 2)
    record.run_id, record.log_file = "test", str(tmp_path / "test.log")
    index.add(record)
    assert listed(index) == []


def test_what_another_worker_started_is_found_later(tmp_path: Path, index: RunIndex) -> None:
    """A run that an overlapping worker starts after the directory was listed is known once it was listed again."""
    with patch.object(module, "RESCAN_AFTER", 0.05):
        index.wait_until_built()
        run = record_of_past(tmp_path, 1)
        wait_until(lambda: listed(index) == [run.run_id])


def test_calls_wait_for_the_index_within_bounds(tmp_path: Path, index: RunIndex) -> None:
    """A call that comes while the records are being read waits for that, and is told when it takes too long."""
    record_of_past(tmp_path, 1)
    goes_on = threading.Event()
    scan = RunIndex._scan

    def slow(self: RunIndex) -> None:
        goes_on.wait(30)
        scan(self)

    with patch.object(RunIndex, "_scan", slow), patch.object(module, "BUILD_TIMEOUT", 0.05):
        index.prepare()
        with pytest.raises(InternalError, match="call again"):
            listed(index)
        goes_on.set()
    assert len(listed(index)) == 1


@pytest.mark.parametrize("fault", [PermissionError(13, "Permission denied"), OSError(24, "Too many open files")])
def test_a_failed_build_is_tried_again(tmp_path: Path, index: RunIndex, fault: OSError) -> None:
    """Where the directory can't be listed a call fails with the system's words, and a later one has its answer."""
    record_of_past(tmp_path, 1)
    with patch.object(module, "files_of_runs", side_effect=fault), pytest.raises(OSError, match=fault.strerror):
        listed(index)
    assert len(listed(index)) == 1


def test_without_a_thread_the_first_call_builds_it(
    tmp_path: Path, index: RunIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread can be had the call that needs the index reads the records itself."""
    record_of_past(tmp_path, 1)

    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    index.prepare()
    assert len(listed(index)) == 1


@pytest.mark.parametrize("length", [199, 200, 201, 5000])
def test_a_long_command_is_cut(tmp_path: Path, index: RunIndex, length: int) -> None:
    """A list shows at most 200 characters of a command."""
    record_of_past(tmp_path, 1, command="é" * length)
    (entry,) = index.walk(None, None)
    assert entry.command == ("é" * length if length <= 200 else "é" * 199 + "…")


def test_ask_from_many_threads(tmp_path: Path, index: RunIndex) -> None:
    """Runs that are added, ended, listed and removed by threads at once leave nothing behind in the index."""
    faults: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for second in range(first, first + 15):
                run = record_of_past(tmp_path, second, state=State())
                index.add(run)
                end(run, second)
                entry = index.find(run.run_id)
                assert entry is not None
                index.settle(entry, run)
                index.measure(entry)
                listed(index)
                remove_files(tmp_path, run.run_id)
                index.discard(run.run_id)
        except BaseException as fault:  # noqa: BLE001  whatever it is, the test is to show it
            faults.append(fault)

    run_together([partial(work, first) for first in range(0, 400, 100)])
    assert not faults
    assert (listed(index), index.ended(), index.live(), index.log_bytes()) == ([], [], [], 0)


def run_together(calls: list[Callable[[], None]]) -> None:
    """Run these in threads of their own."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
