"""How many runs are kept."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.reading.reader import LogManager
from app.runs.retention import prune

DAY = "2026-11-22_06-08-"
FILES = (".log", ".1.log", ".log.new", ".log.old", ".json", ".json.spare")


def nothing(_run_id: str) -> bool:
    """Have no run in use."""
    return False


def names(directory: Path) -> set[str]:
    """Return what is in a directory."""
    return {path.name for path in directory.iterdir()}


def test_the_oldest_runs_go_with_all_their_files(tmp_path: Path) -> None:
    """Beyond the newest runs every file of a run is removed."""
    for second in ("01", "02", "03"):
        for end in FILES:
            (tmp_path / f"{DAY}{second}{end}").touch()
    prune(tmp_path, 2, nothing)
    assert names(tmp_path) == {f"{DAY}{second}{end}" for second in ("02", "03") for end in FILES}


def test_runs_of_one_second_age_by_their_number(tmp_path: Path) -> None:
    """Of the runs of one second the tenth is younger than the second."""
    for end in ("", "_2", "_3", "_10"):
        (tmp_path / f"{DAY}01{end}.log").touch()
    prune(tmp_path, 2, nothing)
    assert names(tmp_path) == {f"{DAY}01_3.log", f"{DAY}01_10.log"}


def test_a_protected_run_stays(tmp_path: Path) -> None:
    """A run in use is never removed, however old its name."""
    for second in ("01", "02", "03"):
        (tmp_path / f"{DAY}{second}.log").touch()
    prune(tmp_path, 0, {f"{DAY}01"}.__contains__)
    assert names(tmp_path) == {f"{DAY}01.log"}


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
def test_what_is_not_ours_is_left_alone(tmp_path: Path, name: str) -> None:
    """A file whose name no run gave is not touched."""
    (tmp_path / name).touch()
    prune(tmp_path, 0, nothing)
    assert names(tmp_path) == {name}


def test_what_can_not_be_removed_does_not_stop_the_rest(tmp_path: Path) -> None:
    """A directory with a log's name is left, and the other files go."""
    (tmp_path / f"{DAY}01.log").mkdir()
    (tmp_path / f"{DAY}02.log").touch()
    prune(tmp_path, 0, nothing)
    assert names(tmp_path) == {f"{DAY}01.log"}


def test_a_missing_directory_has_nothing_to_remove(tmp_path: Path) -> None:
    """A directory that is gone is no fault."""
    prune(tmp_path / "gone", 1, nothing)
    assert names(tmp_path) == set()


@given(st.sets(st.integers(0, 59)), st.integers(0, 60))
def test_as_many_as_asked_for_are_kept(tmp_path_factory: pytest.TempPathFactory, seconds: set[int], keep: int) -> None:
    """The newest `keep` runs are what remains."""
    manager = LogManager(tmp_path_factory.mktemp("logs"))
    for second in seconds:
        (manager.log_dir / f"{DAY}{second:02}.log").touch()
    manager.prune(keep, nothing)
    kept = sorted(seconds)[max(0, len(seconds) - keep) :]
    assert names(manager.log_dir) == {f"{DAY}{second:02}.log" for second in kept}
