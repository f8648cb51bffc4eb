"""The pointer to the current run is always one of the runs it was set to."""

from pathlib import Path

import pytest

from app.runs.pointer import Pointer


def test_nothing_is_current_at_first(tmp_path: Path) -> None:
    """A fresh directory, or none, has no current run."""
    assert Pointer(tmp_path).read() is None
    assert Pointer(tmp_path / "missing").read() is None


def test_it_names_the_record_it_was_set_to(tmp_path: Path) -> None:
    """The record's path comes back, also one outside the log directory."""
    pointer = Pointer(tmp_path / "logs")
    (tmp_path / "logs").mkdir()
    for place in (tmp_path / "logs" / "a.json", tmp_path / "elsewhere" / "b.json"):
        pointer.set(str(place))
        assert pointer.read() == str(place)
    pointer.set(None)
    assert pointer.read() is None


def test_leftovers_of_a_cut_short_change_do_not_matter(tmp_path: Path) -> None:
    """A change that was cut short half-way does not keep the next from working."""
    (tmp_path / "current.new").symlink_to("old.json")
    pointer = Pointer(tmp_path)
    pointer.set(str(tmp_path / "a.json"))
    assert pointer.read() == str(tmp_path / "a.json")


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    """Setting the pointer where there is no directory raises, and nothing is made."""
    with pytest.raises(FileNotFoundError):
        Pointer(tmp_path / "missing").set("a.json")
    assert list(tmp_path.iterdir()) == []
