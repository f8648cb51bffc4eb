"""Which members of a tree are daemons, as tables of trees: no process is started here."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

import pytest

from app.linux.proc import Identity, Member, read_member
from app.protocol import Kill, Request, decode_from_supervisor, encode
from app.runs.record import OVERTAKING, Intent, decode_record, encode_record
from app.stopping import facts
from app.stopping.daemons import Exempt, daemons_among
from app.supervisor.leftovers import divide
from tests.kit.records import make_record

SHIM = 1
PROCESS = 10
OWN = 20  # a session other than the process's


def tree(parents: Mapping[int, int], own: Collection[int]) -> list[Member]:
    """Return members with these parents, of which those in `own` have left the process's session."""
    return [
        Member(pid, parent, OWN if pid in own else PROCESS, OWN if pid in own else PROCESS, "S", 1, pid)
        for pid, parent in parents.items()
    ]


@pytest.mark.parametrize(
    ("parents", "own", "holders", "daemons"),
    [
        ({20: SHIM}, {20}, (), {20}),
        ({20: SHIM}, {20}, {20}, set()),
        ({20: SHIM}, (), (), set()),
        # What is below a daemon is one, too, unless it holds the output; and so on.
        ({20: SHIM, 21: 20, 22: 21}, {20, 21, 22}, (), {20, 21, 22}),
        ({20: SHIM, 21: 20, 22: 21}, {20, 21, 22}, {21}, {20}),
        # What has another member for a parent is that one's.
        ({10: SHIM, 20: 10}, {20}, (), set()),
        ({11: SHIM, 20: 11, 21: 20}, {20, 21}, (), set()),
        # Beside a process that runs.
        ({10: SHIM, 11: 10, 20: SHIM}, {20}, (), {20}),
        # A look that is no tree: a pid was reused between two reads.
        ({20: 21, 21: 20}, {20, 21}, (), set()),
    ],
)
def test_who_is_a_daemon(
    parents: Mapping[int, int], own: Collection[int], holders: Collection[int], daemons: set[int]
) -> None:
    """Who has left session and output, and has no parent among the others, in whatever order they are read."""
    members = tree(parents, own)
    for some in (members, members[::-1]):
        assert {one.pid for one in daemons_among(some, PROCESS, lambda one: one.pid in holders)} == daemons


def test_no_descriptor_is_read_of_the_session() -> None:
    """Members of the process's session are asked nothing, and no more those below another member."""
    asked: list[int] = []

    def holds_output(member: Member) -> bool:
        asked.append(member.pid)
        return False

    members = tree({11: SHIM, 12: 11, 20: 12, 21: SHIM}, {20, 21})
    assert daemons_among(members, PROCESS, holds_output) == members[3:]
    assert asked == [21]


def test_without_a_known_output_all_are_leftovers() -> None:
    """A record of an older version does not say which pipe the output was."""
    members = tree({20: SHIM, 22: SHIM}, {20, 22})
    assert divide(make_record(process=Identity(PROCESS, 1)), members).leftovers == [20, 22]


class Looks:
    """Let each look find other holders of the output."""

    def __init__(self, *holders: Collection[int]) -> None:
        self._holders = list(holders)
        self._now: Collection[int] = ()

    def __call__(self, _output: int | None) -> Looks:
        """Begin a look."""
        self._now = self._holders.pop(0)
        return self

    def holds_output(self, member: Member) -> bool:
        """Look it up."""
        return member.pid in self._now


@pytest.fixture
def exempt() -> Exempt:
    """Return the exemption of a tree's daemons."""
    return Exempt(Identity(PROCESS, 1), 7)


def test_the_first_look_decides(monkeypatch: pytest.MonkeyPatch, exempt: Exempt) -> None:
    """A daemon stays one when a later look finds less, and so does another member that has closed its output since."""
    monkeypatch.setattr("app.stopping.daemons.ProcFacts", Looks({21}, {20}))
    members = tree({20: SHIM, 21: SHIM}, {20, 21})
    for _ in range(2):
        assert [one.pid for one in exempt.others(members)] == [21]
    assert exempt.spared == {Identity(20, 20)}


def test_a_child_does_not_become_a_daemon_by_its_parent_s_end(monkeypatch: pytest.MonkeyPatch, exempt: Exempt) -> None:
    """What a live script has detached is to be ended, also when the script has been; and what that starts then."""
    monkeypatch.setattr("app.stopping.daemons.ProcFacts", Looks((), (), ()))
    assert len(exempt.others(tree({10: SHIM, 20: 10}, {20}))) == 2
    assert [one.pid for one in exempt.others(tree({20: SHIM, 21: 20}, {20, 21}))] == [20, 21]
    assert not exempt.spared


def test_a_takeover_goes_by_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed shim had recorded as to be ended, or as a daemon, is that; the rest is looked at."""
    monkeypatch.setattr("app.stopping.daemons.ProcFacts", Looks({20}))
    again = Exempt(Identity(PROCESS, 1), 7, spared=[Identity(20, 20)], others=[Identity(21, 21)])
    assert [one.pid for one in again.others(tree({20: SHIM, 21: SHIM, 22: SHIM}, {20, 21, 22}))] == [21]


def test_a_reused_pid_is_looked_at_anew(monkeypatch: pytest.MonkeyPatch, exempt: Exempt) -> None:
    """A process is known by pid and start: another with the same pid is none of the daemons."""
    monkeypatch.setattr("app.stopping.daemons.ProcFacts", Looks((), {20}))
    (daemon,) = tree({20: SHIM}, {20})
    assert exempt.others([daemon]) == []
    later = daemon._replace(start_ticks=21)
    assert exempt.others([later]) == [later]


def test_what_proc_does_not_show_is_not_spared(exempt: Exempt) -> None:
    """A child of the shim that can't be read is killed; one that has left session and output is not."""
    this = read_member(os.getpid())
    assert this is not None
    assert exempt.spares(this.pid)
    assert not Exempt(Identity(this.session, 1), 7).spares(this.pid)
    assert not exempt.spares(facts.MAX_DESCRIPTORS * 10**6)


def test_a_stop_that_spares_daemons_says_so() -> None:
    """A request names daemons only where it spares them, so that it is read by, and is one of, older versions."""
    assert b"daemons" not in encode(Request(1, Kill("SIGTERM", 1.0, "kill")))
    request = Request(1, Kill("SIGTERM", 1.0, "restart", daemons="restart" in OVERTAKING))
    assert decode_from_supervisor(encode(request)) == request
    assert decode_from_supervisor(encode(Request(1, Kill("SIGTERM", 1.0, "restart")))).op.daemons  # type: ignore[union-attr]  # no other operation


@pytest.mark.parametrize("spared", [None, [], [Identity(20, 5)]])
def test_an_intent_keeps_whom_it_spares(spared: list[Identity] | None) -> None:
    """None, which ends daemons, and an empty list, which spares those to come, are not the same on disk either."""
    intent = Intent("SIGTERM", 5, "restart", spared=spared)
    assert decode_record(encode_record(make_record(intent=intent))).intent == intent
