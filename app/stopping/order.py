"""Runs in the shim, the master and the worker: decide which members get SIGTERM next, by this look and earlier ones."""

from collections import deque
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import NamedTuple, Protocol

from app.linux.proc import Identity, Member
from app.stopping.waiting import Waiting

# The identity of a pipe.
Pipe = Hashable


class Facts(Protocol):
    """Give facts about a member that `/proc/PID/stat` lacks; asked only for members that a decision depends on."""

    def is_shell(self, member: Member) -> bool:
        """Tell whether it is a shell, which forwards no signal to its children."""

    def is_starting(self, member: Member) -> bool:
        """Tell whether this child of a shell is to execute a program, and its shell's handler would take the signal."""

    def reads(self, member: Member) -> Pipe | None:
        """Return the pipe that is its standard input; None where that is no pipe."""

    def writes(self, member: Member, pipes: Collection[Pipe]) -> Collection[Pipe]:
        """Return those of `pipes` that it could write to."""

    def holds_output(self, member: Member) -> bool:
        """Tell whether it may be able to write to the run's output."""


class Past(NamedTuple):
    """Hold the results of earlier looks in the same stop sequence.

    `signalled` were sent SIGTERM. `refused` we may not signal. `held` waited for a writer to their input, and
    `released` of these have had time to read its end. `spared` were started by signalled members since, as clean-up.
    `parents` are the members' parents at the last look. `starting` were about to execute a program.
    """

    signalled: Collection[Identity] = ()
    refused: Collection[Identity] = ()
    held: Collection[Identity] = ()
    released: Collection[Identity] = ()
    spared: Collection[Identity] = ()
    parents: Mapping[Identity, Identity] = {}
    starting: Collection[Identity] = ()


class Decision(NamedTuple):
    """Hold the result of one look.

    `due` are to be signalled now, in this order. `held` wait for a writer of their standard input, and `drained` have
    lost the last one. `spared` are not signalled. `awaited` are those whose end may make other members due. `starting`
    are due as soon as they have executed a program.
    """

    due: list[Member]
    held: set[Identity]
    drained: set[Identity]
    spared: set[Identity]
    awaited: set[Identity]
    parents: dict[Identity, Identity]
    starting: set[Identity]


def parents_first(members: Iterable[Member], process: Identity, facts: Facts) -> list[Member]:
    """Sort a tree: the process first, no member before its parent, and each shell as early as that allows.

    A shell that waits for a child acts on the child's end, which the end of any other process may cause: `cat` ends
    when the writer to its input does.
    """
    ordered = sorted(members, key=lambda one: (one.identity != process, one.start_ticks, one.pid))
    pids = {member.pid for member in ordered}
    children: dict[int, list[Member]] = {}
    for member in ordered:
        children.setdefault(member.ppid if member.ppid in pids else 0, []).append(member)
    shells: deque[Member] = deque()
    others: deque[Member] = deque()
    result: list[Member] = []
    ready = children.get(0, [])
    while ready or shells or others:
        for member in ready:
            goes_on = member.identity == process or (member.pid in children and facts.is_shell(member))
            (shells if goes_on else others).append(member)
        result.append((shells or others).popleft())
        ready = children.get(result[-1].pid, [])
    return result


def decide(members: Iterable[Member], process: Identity, past: Past, facts: Facts, *, late: bool = False) -> Decision:
    """Return which members to signal now.

    No member comes before its parent, and the process first of all. A shell forwards no signal, so its children come
    right after it; those of any other program only once that has ended. A member without a parent in the tree counts as
    a child of the process. A reader of a pipe waits for its writers. Daemons, which left the process's session and its
    output, serve the other members until these have ended. When it is `late`, every member left is due.
    """
    return _Look(parents_first(members, process, facts), process, past, facts).decide(late=late)


class _Look:
    """Make one decision."""

    def __init__(self, members: list[Member], process: Identity, past: Past, facts: Facts) -> None:
        self._members = members
        self._by_pid = {member.pid: member for member in members}
        self._children: dict[int, list[Member]] = {}
        for member in members:
            self._children.setdefault(member.ppid, []).append(member)
        self._process = next((member for member in members if member.identity == process), None)
        self._session = process.pid  # the process leads it
        self._past = past
        self._facts = facts
        self._due: set[Identity] = set()
        self._writers: dict[Pipe, list[Member]] | None = None
        self._waiting: Waiting | None = None
        self._awaited_pipes: set[Pipe] = set()
        self._serves = False  # whether a daemon waits for the members it serves
        self._served: set[Identity] | None = None
        parents = {member.identity: self._parent(member) for member in members}
        self._result = Decision(
            [], set(), set(), set(), set(), {one: parent.identity for one, parent in parents.items() if parent}, set()
        )

    def decide(self, *, late: bool) -> Decision:
        for member in self._members:
            if member.identity in self._past.signalled:
                continue
            if late or (self._has_its_turn(member) and self._has_read_all(member) and not self._is_starting(member)):
                self._due.add(member.identity)
                self._result.due.append(member)
                self._release_children(member)
            elif member.identity not in self._result.spared:
                self._hold_reader(member)
        if self._serves:
            self._result.awaited.update(self._members_served())
        for pipe in self._awaited_pipes:
            self._result.awaited.update(one.identity for one in self._writers_of(pipe))
        return self._result

    def _parent(self, member: Member) -> Member | None:
        return self._by_pid.get(member.ppid)

    def _has_its_turn(self, member: Member) -> bool:
        """Tell whether all members above it have had their turn; where not, note the one whose end is awaited."""
        parent = self._parent(member)
        if parent is not None:
            return self._follows(member, parent)
        if member is self._process:
            return True
        if self._is_daemon(member) and self._members_served():
            self._serves = True
            return False
        if self._process is None:
            return True
        former = self._past.parents.get(member.identity)
        if former is None:
            return self._follows(member, self._process)
        # Its parent has ended since the last look.
        return self._spare(member, self._process) if former in self._past.spared else True

    def _follows(self, member: Member, parent: Member) -> bool:
        """Tell whether a member with a live parent may be signalled now."""
        if not self._has_passed(parent):
            self._result.awaited.add(parent.identity)
            return False
        older = member.identity in self._past.held or member.identity in self._past.starting
        if parent.identity not in self._past.signalled or older:
            return True
        # A process that a shell started after its signal is clean-up.
        return self._spare(member, parent)

    def _is_starting(self, member: Member) -> bool:
        """Tell whether a shell has forked this member to execute a program, which must get the signal itself."""
        parent = self._parent(member)
        if parent is None or not self._facts.is_shell(parent) or not self._facts.is_starting(member):
            return False
        self._result.starting.add(member.identity)
        return True

    def _is_daemon(self, member: Member) -> bool:
        """Tell whether a member without a parent in the tree has left the process's session and the output."""
        return member.session != self._session and not self._facts.holds_output(member)

    def _members_served(self) -> set[Identity]:
        """Return the members that are neither daemons nor below one, without those that we may not signal."""
        if self._served is None:
            apart: set[int] = set()
            for member in self._members:  # parents first
                parent = self._parent(member)
                if parent.pid in apart if parent is not None else self._is_daemon(member):
                    apart.add(member.pid)
            left = (member.identity for member in self._members if member.pid not in apart)
            self._served = {identity for identity in left if identity not in self._past.refused}
        return self._served

    def _spare(self, member: Member, parent: Member) -> bool:
        self._result.spared.add(member.identity)
        self._result.awaited.add(parent.identity)
        return False

    def _has_read_all(self, member: Member) -> bool:
        """Tell whether no member can write to its standard input any more; the process itself never waits."""
        pipe = None if member is self._process else self._facts.reads(member)
        if pipe is None or self._passes_on(member, pipe):
            return True
        if self._waits(member):
            self._result.held.add(member.identity)
            self._awaited_pipes.add(pipe)
        elif member.identity in self._past.held and member.identity not in self._past.released:
            self._result.drained.add(member.identity)
        else:
            return True
        return False

    def _hold_reader(self, member: Member) -> None:
        """Note a reader that has not had its turn: a parent's end may be both its turn and the end of its input."""
        pipe = self._facts.reads(member)
        if pipe is not None and not self._passes_on(member, pipe) and self._waits(member):
            self._result.held.add(member.identity)

    def _passes_on(self, member: Member, pipe: Pipe) -> bool:
        """Tell whether a shell has left its input to a child, which must then read to the end in its place.

        The shell would take the child's end for its success, and go on to its next step.
        """
        children = self._children.get(member.pid, ())
        return any(self._facts.reads(child) == pipe for child in children) and self._facts.is_shell(member)

    def _waits(self, reader: Member) -> bool:
        """Tell whether this reader waits, directly or not, for a process that does not wait for it in turn."""
        if self._waiting is None:
            self._waiting = self._graph()
        return self._waiting.waits(reader.pid)

    def _graph(self) -> Waiting:
        """Return which members wait now, for the writers to their input and for their parents."""
        above: dict[int, int] = {}
        inputs: dict[int, Pipe] = {}
        for member in self._members:
            if member is self._process or member.identity in self._past.signalled:
                continue
            pipe = self._facts.reads(member)
            if pipe is not None:
                inputs[member.pid] = pipe
            parent = self._parent(member)
            if parent is not None and not self._has_passed(parent):
                above[member.pid] = parent.pid
        writers = {pipe: [one.pid for one in self._writers_of(pipe)] for pipe in dict.fromkeys(inputs.values())}
        return Waiting(above, inputs, writers)

    def _release_children(self, parent: Member) -> None:
        """Remove the children's wait for a parent that is due now, unless they must still wait for its end."""
        children = self._children.get(parent.pid)
        if self._waiting is not None and children and self._has_passed(parent):
            for child in children:
                self._waiting.release(child.pid)

    def _has_passed(self, parent: Member) -> bool:
        """Tell whether no member has to wait for this parent any more."""
        if parent.identity in self._past.refused:
            return True
        had_its_turn = parent.identity in self._past.signalled or parent.identity in self._due
        return had_its_turn and self._facts.is_shell(parent)

    def _writers_of(self, pipe: Pipe) -> list[Member]:
        if self._writers is None:
            self._writers = {}
            inputs = [self._facts.reads(member) for member in self._members]
            wanted = {pipe for pipe in inputs if pipe is not None}
            # A member that we may not signal can't be expected to end.
            for member in self._members:
                written = self._facts.writes(member, wanted) if member.identity not in self._past.refused else ()
                for one in written:
                    self._writers.setdefault(one, []).append(member)
        return self._writers.get(pipe, [])
