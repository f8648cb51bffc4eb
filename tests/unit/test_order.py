"""Whom SIGTERM goes to, as tables of trees: no process is started here."""

import time
from collections.abc import Collection, Mapping
from typing import NamedTuple

import pytest

from app.linux.proc import Identity, Member
from app.stopping.order import Decision, Past, Pipe, decide, parents_first

SHIM = 1
PROCESS = 10
NOTHING = Past()


class Table(NamedTuple):
    """Write a tree down: each pid's parent, who is a shell, who reads which pipe, and who can write which.

    `sessions` are those other than the process's, `silent` are those that hold no output, `starting` are forks of a
    shell that are to execute a program.
    """

    parents: Mapping[int, int]
    shells: Collection[int] = ()
    readers: Mapping[int, Pipe] = {}
    writers: Mapping[Pipe, Collection[int]] = {}
    sessions: Mapping[int, int] = {}
    silent: Collection[int] = ()
    starting: Collection[int] = ()

    def is_starting(self, member: Member) -> bool:
        """Look it up."""
        return member.pid in self.starting

    def is_shell(self, member: Member) -> bool:
        """Look it up."""
        return member.pid in self.shells

    def reads(self, member: Member) -> Pipe | None:
        """Look it up."""
        return self.readers.get(member.pid)

    def writes(self, member: Member, pipes: Collection[Pipe]) -> Collection[Pipe]:
        """Look it up."""
        return [pipe for pipe in pipes if member.pid in self.writers.get(pipe, ())]

    def holds_output(self, member: Member) -> bool:
        """Look it up."""
        return member.pid not in self.silent

    def members(self) -> list[Member]:
        """Return the tree, its pids in falling order, since nothing may depend on that."""
        return [
            Member(pid, parent, PROCESS, self.sessions.get(pid, PROCESS), "S", 1, 100 + pid)
            for pid, parent in sorted(self.parents.items(), reverse=True)
        ]


def those(*pids: int) -> set[Identity]:
    """Return the identities that these pids have in a table."""
    return {Identity(pid, 100 + pid) for pid in pids}


def look(table: Table, past: Past = NOTHING, *, late: bool = False) -> Decision:
    """Make one decision about a table."""
    return decide(table.members(), Identity(PROCESS, 100 + PROCESS), past, table, late=late)


def due(table: Table, past: Past = NOTHING, *, late: bool = False) -> list[int]:
    """Return whose turn it is."""
    return [member.pid for member in look(table, past, late=late).due]


def pids(identities: Collection[Identity]) -> set[int]:
    """Return the pids of identities."""
    return {identity.pid for identity in identities}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        pytest.param(Table({10: 1}), [10], id="the process alone"),
        pytest.param(Table({10: 1, 9: 10, 8: 9}, shells=[10]), [10, 9], id="a shell forwards nothing, timeout does"),
        pytest.param(Table({10: 1, 9: 10, 8: 9}, shells=[10, 9]), [10, 9, 8], id="a shell below a shell"),
        pytest.param(Table({10: 1, 9: 10, 8: 9}), [10], id="a pool is trusted with its workers"),
        pytest.param(Table({10: 1, 9: 10, 8: 9}, shells=[9]), [10], id="a shell below a pool is the pool's"),
        pytest.param(Table({10: 1, 9: 1}, shells=[10]), [10, 9], id="an escapee counts as the shell's own child"),
        pytest.param(Table({10: 1, 9: 1}), [10], id="an escapee of a pool counts as the pool's own child"),
        pytest.param(Table({9: 1, 8: 9}, shells=[9]), [9, 8], id="leftovers of a process that has ended"),
        pytest.param(Table({9: 1, 8: 9}), [9], id="a leftover is trusted with its own as well"),
        pytest.param(
            Table({10: 1, 9: 10, 8: 10, 7: 9, 6: 7}, shells=[10, 9]), [10, 9, 8, 7], id="no child comes first"
        ),
    ],
)
def test_the_first_look(table: Table, expected: list[int]) -> None:
    """The process comes first, then whom nobody is trusted with, parents before children."""
    assert due(table) == expected


PIPELINE = Table({10: 1, 8: 10, 9: 10}, shells=[10], readers={9: 77}, writers={77: [8]})
SUBSTITUTION = Table({10: 1, 9: 10, 8: 10}, shells=[10], readers={9: 77}, writers={77: [8, 10]})


@pytest.mark.parametrize(
    ("table", "expected", "held"),
    [
        pytest.param(PIPELINE, [10, 8], {9}, id="server | tee log"),
        pytest.param(SUBSTITUTION, [10, 8], {9}, id="exec > >(tee log)"),
        pytest.param(
            Table({10: 1, 7: 10, 8: 10, 9: 10}, [10], {8: 70, 9: 71}, {70: [7], 71: [8]}),
            [10, 7],
            {8, 9},
            id="a | b | c",
        ),
        pytest.param(
            Table({10: 1, 8: 10, 6: 8, 9: 10}, [10], {9: 77}, {77: [6]}),
            [10, 8],
            {9},
            id="honcho | cat: its apps write",
        ),
        pytest.param(
            Table({10: 1, 8: 10, 9: 10}, [10], {9: 77}, {77: [9]}), [10, 8, 9], set(), id="its own end keeps nobody"
        ),
        pytest.param(Table({10: 1, 9: 10}, [10], {9: 77}, {}), [10, 9], set(), id="the writer had ended before"),
        pytest.param(
            Table({10: 1, 8: 10, 9: 10}, [10], {8: 70, 9: 71}, {70: [9], 71: [8]}),
            [10, 8, 9],
            set(),
            id="two that read each other's pipe",
        ),
        pytest.param(
            Table({10: 1, 7: 10, 8: 10, 9: 10}, [10], {8: 70, 9: 71}, {70: [9, 7], 71: [8]}),
            [10, 7],
            {8, 9},
            id="the same, fed by a third",
        ),
        pytest.param(
            Table({10: 1, 9: 10, 8: 9}, [10], {9: 77}, {77: [8]}), [10, 9], set(), id="a reader of what is below it"
        ),
        pytest.param(
            Table({10: 1, 9: 10}, [], {9: 77}, {77: [10]}), [10], {9}, id="exec server > >(tee log): it is tee's parent"
        ),
        pytest.param(Table({10: 1, 8: 10, 9: 8}, [10], {9: 77}, {77: [8]}), [10, 8], {9}, id="the same below a shell"),
        pytest.param(
            Table({10: 1, 9: 10, 8: 9}, [10, 9], {9: 77}, {77: [8]}), [10, 9, 8], set(), id="a shell of the same kind"
        ),
        pytest.param(Table({10: 1, 8: 10}, [10], {10: 77}, {77: [8]}), [10, 8], set(), id="the process never waits"),
        pytest.param(
            Table({10: 1, 8: 10, 9: 10, 7: 9}, [10, 9], {9: 77, 7: 77}, {77: [8]}),
            [10, 9, 8],
            {7},
            id="server | (cat; next): the shell must not see the end",
        ),
        pytest.param(
            Table({10: 1, 8: 10, 9: 10, 7: 9}, [10, 9], {9: 77}, {77: [8]}),
            [10, 8],
            {9},
            id="server | while read: what a waiting shell started waits, too",
        ),
    ],
)
def test_readers_of_pipes(table: Table, expected: list[int], held: set[int]) -> None:
    """A reader waits for its writers, but nobody for himself, for those below him or round a circle."""
    decision = look(table)
    assert [member.pid for member in decision.due] == expected
    assert pids(decision.held) == held


def test_a_reader_has_time_to_find_the_end_of_its_input() -> None:
    """The last writer's end does not make its reader due at once, but when it has had its time."""
    after = Table({9: 1}, readers={9: 77})
    past = Past(signalled=those(10, 8), held=those(9))
    assert pids(look(after, past).drained) == {9}
    assert due(after, past) == []
    assert due(after, past._replace(released=those(9))) == [9]


def test_a_parent_that_was_the_writer_leaves_its_reader_time() -> None:
    """One event, the end of the parent that wrote to it, does not make a reader due before it has had its time."""
    after = Table({9: 1}, readers={9: 77})
    past = Past(signalled=those(10), held=those(9), parents={Identity(9, 109): Identity(10, 110)})
    assert pids(look(after, past).drained) == {9}
    assert due(after, past) == []
    assert due(after, past._replace(released=those(9))) == [9]


def test_clean_up_that_reads_a_pipe_is_left_alone() -> None:
    """A pipeline of a trap is clean-up at every look: its reader is not held back for a turn of its own."""
    table = Table({10: 1, 7: 10, 6: 10}, shells=[10], readers={6: 77}, writers={77: [7]})
    decision = look(table, Past(signalled=those(10)))
    assert (decision.due, pids(decision.held), pids(decision.spared)) == ([], set(), {6, 7})


FORMER = {Identity(8, 108): Identity(9, 109), Identity(9, 109): Identity(10, 110)}


def test_no_member_is_signalled_twice() -> None:
    """Who has had it is not due again, late or not."""
    table = Table({10: 1, 9: 10, 8: 9}, shells=[10])
    assert due(table, Past(signalled=those(10, 9))) == []
    assert due(table, Past(signalled=those(10, 9)), late=True) == [8]


@pytest.mark.parametrize(
    ("table", "signalled", "expected"),
    [
        pytest.param(Table({8: 1}), [10, 9], [8], id="its parent and the process have ended"),
        pytest.param(Table({10: 1, 8: 1}, shells=[10]), [10, 9], [8], id="its parent has ended, a shell lives"),
        pytest.param(Table({10: 1, 8: 1}), [10], [8], id="its parent has ended, a pool lives"),
        pytest.param(Table({10: 1, 9: 10, 8: 9}, shells=[10]), [10, 9], [], id="nobody has ended"),
    ],
)
def test_what_outlives_its_parent_is_signalled(table: Table, signalled: list[int], expected: list[int]) -> None:
    """The child of a program that was trusted with it is signalled when that has ended."""
    assert due(table, Past(signalled=those(*signalled), parents=FORMER)) == expected


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(Table({10: 1, 7: 10}, shells=[10]), id="a command of the process's trap"),
        pytest.param(Table({10: 1, 9: 10, 7: 9}, shells=[10, 9]), id="of the trap of a shell below"),
        pytest.param(Table({10: 1, 7: 10, 6: 7}, shells=[10, 7]), id="what that starts"),
        pytest.param(Table({10: 1, 7: 1}, shells=[10]), id="sent into the background"),
    ],
)
def test_clean_up_is_left_alone(table: Table) -> None:
    """What a shell starts after its signal is signalled in the last second only."""
    past = Past(signalled=those(10, 9))
    decision = look(table, past)
    assert decision.due == []
    assert 7 in pids(decision.spared)
    assert 7 in due(table, past, late=True)


def test_what_clean_up_leaves_behind_is_clean_up() -> None:
    """The orphan of a command of a trap is left alone as long as the process lives, and signalled when it has ended."""
    past = Past(signalled=those(10), spared=those(7), parents={Identity(6, 106): Identity(7, 107)})
    assert due(Table({10: 1, 6: 1}, shells=[10]), past) == []
    assert due(Table({6: 1}), past) == [6]


def test_held_back_is_no_clean_up() -> None:
    """A reader that waited when its shell was signalled has its turn later."""
    table = Table({10: 1, 9: 10}, shells=[10], readers={9: 77})
    assert due(table, Past(signalled=those(10), held=those(9), released=those(9))) == [9]


def test_nobody_waits_for_whom_we_may_not_signal() -> None:
    """Children and readers of one that can't be signalled are due at once, those that came later included."""
    refused = Past(signalled=those(10), refused=those(9), held=those(9))
    assert due(Table({10: 1, 9: 10, 8: 9}, shells=[10]), refused) == [9, 8]
    assert due(Table({10: 1, 9: 10, 8: 10}, [10], {8: 77}, {77: [9]}), refused._replace(signalled=())) == [10, 8, 9]


@pytest.mark.parametrize("signalled", [(), (10,)])
def test_late_every_member_is_due(signalled: tuple[int, ...]) -> None:
    """In the last second nobody is trusted and nobody waits; the order stays."""
    table = Table({10: 1, 9: 10, 8: 9, 7: 10}, readers={7: 77}, writers={77: [8]})
    assert due(table, Past(signalled=those(*signalled)), late=True) == [
        pid for pid in [10, 7, 9, 8] if pid not in signalled
    ]


def test_whose_end_is_awaited() -> None:
    """Those are named whose end may make others due: trusted parents and writers."""
    assert pids(look(Table({10: 1, 9: 10, 8: 9}, shells=[10])).awaited) == {9}
    assert pids(look(PIPELINE).awaited) == {8}


def test_parents_come_first_and_shells_when_they_can() -> None:
    """Whatever the pids, nobody comes before its parent, nobody is lost, and what may act on another's end is early."""
    table = Table({10: 1, 3: 10, 4: 10, 2: 4, 6: 2, 11: 1, 5: 11}, shells=[10, 4, 2, 6])
    members = table.members()
    order = [member.pid for member in parents_first(members, Identity(10, 110), table)]
    assert order[:3] == [10, 4, 2]
    assert sorted(order) == [2, 3, 4, 5, 6, 10, 11]
    assert all(order.index(member.ppid) < order.index(member.pid) for member in members if member.ppid != SHIM)


DAEMON = Table({10: 1, 9: 10, 8: 1, 7: 8}, shells=[10], sessions={8: 8, 7: 8}, silent=[8, 7])


def test_a_daemon_serves_the_others_to_their_end() -> None:
    """What has left session and output comes when nobody else of the tree is left, and its own are its own."""
    assert due(DAEMON) == [10, 9]
    assert due(DAEMON, Past(signalled=those(10, 9))) == []
    left = DAEMON._replace(parents={8: 1, 7: 8})
    assert due(left, Past(signalled=those(10, 9), parents={})) == [8]
    assert due(DAEMON, Past(signalled=those(10, 9)), late=True) == [8, 7]


def test_the_end_of_those_that_a_daemon_serves_is_awaited() -> None:
    """Their ends make the daemon due, so they are looked out for."""
    assert pids(look(DAEMON, Past(signalled=those(10, 9))).awaited) >= {10, 9}


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(DAEMON._replace(silent=[]), id="it holds the output"),
        pytest.param(DAEMON._replace(sessions={}), id="it is in the process's session"),
    ],
)
def test_who_has_left_only_session_or_output_is_no_daemon(table: Table) -> None:
    """An escapee that prints, and a job in the background that does not, come as the process's own children."""
    assert sorted(due(table)) == [8, 9, 10]


def test_daemons_wait_for_nobody_who_cannot_be_signalled() -> None:
    """The end of whom the service may not signal is not to be expected."""
    left = DAEMON._replace(parents={9: 1, 8: 1, 7: 8})
    assert due(left, Past(signalled=those(10))) == [9]
    assert 8 in due(left, Past(signalled=those(10), refused=those(9)))


SHELL_THAT_FORKS = Table({10: 1, 11: 10, 12: 11}, {10, 11}, starting={12})


def test_a_fork_that_is_to_execute_a_program_is_waited_for() -> None:
    """The signal goes to the program, not to the shell's handler in its fork, and is no clean-up's to be spared."""
    first = look(SHELL_THAT_FORKS)
    assert [member.pid for member in first.due] == [10, 11]
    assert pids(first.starting) == {12}
    past = Past(signalled=those(10, 11), starting=first.starting)
    assert due(SHELL_THAT_FORKS, past) == []
    assert due(SHELL_THAT_FORKS._replace(starting=()), past) == [12]


def test_a_fork_of_another_program_is_signalled_at_once() -> None:
    """Only a shell's fork is about to execute something else: one of a pool stays what it is."""
    table = SHELL_THAT_FORKS._replace(shells={10})
    assert due(table, Past(signalled=those(10), refused=those(11))) == [12]


def test_no_fork_is_waited_for_when_it_is_late() -> None:
    """Near the end of the grace everyone gets the signal."""
    assert due(SHELL_THAT_FORKS, Past(signalled=those(10, 11)), late=True) == [12]


MANY = range(11, 2011)
RINGS: dict[str, tuple[dict[int, int], dict[Pipe, Collection[int]], list[int]]] = {
    "each reads and writes the same pipe": ({10: 1, **dict.fromkeys(MANY, 10)}, {77: MANY}, [10, *MANY]),
    "the same, fed by a stranger": ({10: 1, 9: 10, **dict.fromkeys(MANY, 10)}, {77: [9, *MANY]}, [10, 9]),
    "each is another one's child": ({10: 1, **{pid: pid - 1 for pid in MANY}}, {77: MANY}, [10, *MANY]),
}


@pytest.mark.parametrize("ring", RINGS)
def test_a_look_at_thousands_takes_no_second(ring: str) -> None:
    """The time for a decision grows with members and ends of pipes, not with those who could wait for each other."""
    parents, writers, expected = RINGS[ring]
    table = Table(parents, {10, *MANY}, dict.fromkeys(MANY, 77), writers)
    members = table.members()
    began = time.thread_time()
    decision = decide(members, Identity(PROCESS, 100 + PROCESS), NOTHING, table)
    assert time.thread_time() - began < 1
    assert [member.pid for member in decision.due] == expected
