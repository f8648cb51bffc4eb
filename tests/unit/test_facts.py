"""What a look learns of descriptors, and what it takes for granted of those that it has no time for."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.linux.proc import Member, read_member
from app.stopping import facts
from app.stopping.facts import ProcFacts

UNKNOWN = -1


@pytest.fixture
def pipe() -> Iterator[int]:
    """Return the inode of a pipe of which this process holds both ends."""
    ends = os.pipe()
    yield os.fstat(ends[0]).st_ino
    for end in ends:
        os.close(end)


@pytest.fixture
def this() -> Member:
    """Return this process, which stands for any member."""
    member = read_member(os.getpid())
    assert member is not None
    return member


def test_it_finds_the_pipes(this: Member, pipe: int) -> None:
    """A process writes to a pipe, and holds an output, of which it has an end, and no others."""
    assert ProcFacts().writes(this, {pipe, UNKNOWN}) == {pipe}
    assert ProcFacts(pipe).holds_output(this)
    assert not ProcFacts(UNKNOWN).holds_output(this)


@pytest.mark.parametrize(("limit", "value"), [("MAX_DESCRIPTORS", 2), ("MAX_SECONDS", 0.0)])
def test_a_look_that_is_spent_takes_the_rest_for_harmless(
    this: Member, pipe: int, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    """Who was not looked at keeps no reader waiting, and is no daemon."""
    monkeypatch.setattr(facts, limit, value)
    assert ProcFacts().writes(this, {pipe}) == set()
    assert ProcFacts(UNKNOWN).holds_output(this)


def test_what_is_spent_is_spent_by_all(this: Member, pipe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is one for a look, not one for each member and question."""
    look = ProcFacts(UNKNOWN)
    monkeypatch.setattr(facts, "MAX_DESCRIPTORS", len(list(Path("/proc/self/fd").iterdir())) + 1)
    tight = ProcFacts(UNKNOWN)
    assert (look.holds_output(this), look.writes(this, {pipe})) == (False, {pipe})
    assert (tight.holds_output(this), tight.writes(this, {pipe})) == (False, set())
