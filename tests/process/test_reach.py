"""What another user may change is known, in whatever way the right came to that user."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.linux.account import look_up
from app.server.reach import changeable_by

USER = "nobody"


def found(path: Path) -> list[Path]:
    """Return what the user may change on the way to this path."""
    return changeable_by(look_up(USER)[0], [path])


def give(path: Path, mode: int) -> Path:
    """Give what is there to the user, with this mode."""
    shutil.chown(path, USER)
    path.chmod(mode)
    return path


def directory(path: Path) -> Path:
    """Make a directory and return it."""
    path.mkdir()
    return path


def file(path: Path) -> Path:
    """Make a file and return it."""
    path.touch(mode=0o644)
    return path


@pytest.mark.parametrize("make", [directory, file])
def test_what_is_another_s_is_out_of_reach(place: Path, make: Callable[[Path], Path]) -> None:
    """Nothing is found on the way to what belongs to root, below the sticky /tmp too."""
    assert found(make(place / "x")) == []


@pytest.mark.parametrize(("make", "mode"), [(directory, 0o555), (file, 0o444)])
def test_an_owner_needs_no_right_to_write(place: Path, make: Callable[[Path], Path], mode: int) -> None:
    """Who owns something may change its mode first."""
    path = give(make(place / "x"), mode)
    assert found(path) == [path]
    assert found(path / "below") == [path]


def test_a_sticky_directory_binds_others_than_its_owner(place: Path) -> None:
    """In a sticky directory of the user's own everything may be replaced."""
    sticky = give(directory(place / "sticky"), 0o1755)
    assert found(directory(sticky / "x")) == [sticky]


def test_what_is_not_there_yet_has_no_shield(place: Path) -> None:
    """In root's own sticky directory anybody may be the first to make something."""
    place.chmod(0o1777)
    assert found(place / "new") == [place]
    assert found(directory(place / "made")) == []


@pytest.mark.parametrize("link_of", ["file", "directory"])
def test_where_a_link_leads_is_looked_at(place: Path, link_of: str) -> None:
    """The directories above a link's target, another link's in the middle of the way too, decide as well."""
    inner = directory(directory(place / "theirs") / "inner")
    file(inner / "python")
    give(place / "theirs", 0o755)
    link, way = (place / "bin", "python") if link_of == "directory" else (place / "python", ".")
    link.symlink_to(inner if link_of == "directory" else inner / "python")
    again = place / "again"
    again.symlink_to(link.name)
    assert found(again / way) == [place / "theirs"]


def test_what_the_user_can_t_reach_is_safe(place: Path) -> None:
    """A thing of the user's below a directory that only root may enter gives no power."""
    closed = directory(place / "closed")
    path = give(directory(closed / "x"), 0o755)
    closed.chmod(0o700)
    assert found(path) == []
