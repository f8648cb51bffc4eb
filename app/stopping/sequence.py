"""Runs in the shim, the master and the worker: end a tree: SIGTERM in order, a grace, SIGKILL until none is left."""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from app.linux.pidfd import may_signal, send
from app.linux.proc import Identity, Member, read_member
from app.stopping.daemons import Exempt
from app.stopping.facts import ProcFacts
from app.stopping.order import Decision, Past, decide, parents_first

# A process that outlives SIGKILL this long is blocked in the kernel (state D): waiting longer is of no use.
AFTER_KILL_TIMEOUT = 2.0
# While SIGKILL is under way `/proc` is read again at least this often, for processes forked between two reads.
ROUND_INTERVAL = 0.05
# Seconds before the end of the grace, at most a quarter of it, at which every member gets SIGTERM that has not had it.
# A reader that lost its last writer has the same time to read the end of its input.
LATE = 1.0
# A member's end leads to a new look at the tree only after this multiple of the last look's duration.
REST = 2.0


class Tree(Protocol):
    """List a run's tree and watch it."""

    def members(self) -> list[Member]:
        """Return every live member."""

    def watch(self, awaited: Iterable[Identity]) -> None:
        """Have the end of each of these lead to a call of `StopSequence.note_end`."""

    def kill_children(self, spares: Callable[[int], bool] | None = None) -> None:
        """Send SIGKILL to this process's children, of which some may change pids faster than the tree can be read.

        Those that `spares` is true for are left alone.
        """


class StopSequence:
    """Stop one tree, from the first signal to the last survivor, in steps that never block for long.

    `note` is called before each batch of SIGTERM, with the members and with all that had it or will get it now. With
    `exempt` the tree's daemons are left alone. Times are `time.monotonic()` instants.
    """

    def __init__(
        self,
        tree: Tree,
        process: Identity,
        *,
        output: int | None = None,
        note: Callable[[list[Member], list[Identity]], None] = lambda _members, _signalled: None,
        exempt: Exempt | None = None,
    ) -> None:
        self._tree = tree
        self._process = process
        self._output = output
        self._note = note
        self.exempt = exempt
        self._signalled: set[Identity] = set()
        self._held: set[Identity] = set()
        self._spared: set[Identity] = set()
        self._parents: dict[Identity, Identity] = {}
        self._starting: set[Identity] = set()
        self._drained: dict[Identity, float] = {}
        self._end_noted = False
        self._next_look = 0.0
        self._late_at: float | None = None
        self._lead = LATE
        self._killed: set[Identity] = set()
        self._next_round = 0.0
        self.refused: set[Identity] = set()
        self.deadline = 0.0
        self.killing = False
        self.escalated = False
        # Whether we may signal none of the members left, so that more time would change nothing.
        self.only_refused = False
        # Whether the last look has found daemons, which are left alone, and nobody else.
        self.only_exempt = False

    def terminate(self, deadline: float) -> None:
        """Begin with SIGTERM, in the order of `decide`; `advance` kills the members that live at the deadline."""
        now = time.monotonic()
        self._lead = min(LATE, max(0.0, deadline - now) / 4)
        self.deadline = deadline
        self._late_at = deadline - self._lead
        self._look(late=now >= self._late_at)

    def resume(self, signalled: Iterable[Identity], known: Iterable[Identity], deadline: float) -> None:
        """Go on with a stop that a killed shim began; `known` are older than it, so they are not clean-up."""
        self._signalled.update(signalled)
        self._held.update(set(known) - self._signalled)
        self.terminate(deadline)

    def note_end(self) -> None:
        """Have the next `advance` look at the tree: a member has ended."""
        self._end_noted = True

    def hasten(self, deadline: float) -> None:
        """Bring the end of the grace forward; a later deadline changes nothing."""
        if deadline >= self.deadline:
            return
        self.deadline = deadline
        self._lead = min(self._lead, max(0.0, deadline - time.monotonic()) / 4)
        if self._late_at is not None:
            self._late_at = min(self._late_at, deadline - self._lead)

    def include_daemons(self) -> None:
        """End the daemons, too, from the next `advance` on."""
        self.exempt = None
        self.only_exempt = False
        self._end_noted = True
        self._next_look = self._next_round = 0.0

    def remaining(self) -> list[Member]:
        """Return the live members that are to be ended."""
        members = self._tree.members()
        if self.exempt is None:
            return members
        others = self.exempt.others(members)
        self.only_exempt = bool(members) and not others
        return others

    def kill(self) -> None:
        """Send SIGKILL to every member now."""
        if not self.killing:
            self.killing = True
            self.deadline = time.monotonic() + AFTER_KILL_TIMEOUT
        self._kill_round()

    def advance(self, now: float) -> bool:
        """Send the signals that are due; True when the sequence is over, even if members are alive."""
        if self.killing:
            # Not at each end: with hundreds of them, a look at `/proc` for each would take seconds.
            if now >= self._next_round:
                self._kill_round()
            return self._ended_what_it_can or now >= self.deadline
        if now >= self.deadline:
            self.escalate()
        elif self._late_at is not None and now >= self._late_at:
            self._look(late=True)
        elif now >= self._look_at:
            self._look(late=False)
        return self._ended_what_it_can

    @property
    def _ended_what_it_can(self) -> bool:
        return self.only_refused or self.only_exempt

    def escalate(self) -> None:
        """End the grace of an earlier request now, with SIGKILL."""
        self.escalated = self.escalated or not self.killing
        self.kill()

    @property
    def wake_at(self) -> float:
        """Return the latest instant at which `advance` must be called again."""
        if self.killing:
            return min(self.deadline, self._next_round)
        return min(self.deadline, self._look_at, self._late_at if self._late_at is not None else self.deadline)

    @property
    def _look_at(self) -> float:
        """Return when to look at the tree next: after an end, or when a reader has had its time."""
        released_at = min(self._drained.values(), default=self.deadline) + self._lead
        return self._next_look if self._end_noted else max(self._next_look, released_at)

    def _look(self, *, late: bool) -> None:
        """Signal the members that are due.

        A signal with its default action lets no thread return to its program: it becomes a SIGKILL at once for all of
        them (complete_signal(), kernel/signal.c), and fork fails while it is pending (copy_process(), kernel/fork.c).
        So a shell that was signalled before its child never acts on the child's end. SIGCONT follows, since a stopped
        process acts on SIGTERM only when it continues (signal(7)).
        """
        began = time.monotonic()
        self._end_noted = False
        if late:
            self._late_at = None
        members = self.remaining()
        facts = ProcFacts(self._output)
        self.refused = {identity for identity in self.refused if not may_signal(identity)}
        while True:
            decision = decide(members, self._process, self._past(began), facts, late=late)
            due = [member.identity for member in decision.due if member.identity not in self.refused]
            if due:
                self._note(members, [*self._signalled, *due])
            refused = {identity for identity in due if not _deliver(identity)}
            self._remember(decision, began, set(due) - refused)
            if not refused:
                break
            # A member that can't be signalled is not waited for, so further members may be due now.
            self.refused |= refused
            self._held |= refused
        self.only_refused = bool(members) and all(member.identity in self.refused for member in members)
        self._tree.watch(decision.awaited | self._below_daemons(members))
        now = time.monotonic()
        self._next_look = now + REST * (now - began)
        self._end_noted = bool(decision.starting)  # no event announces that they have executed their programs

    def _below_daemons(self, members: list[Member]) -> set[Identity]:
        """Return the members whose parent stays, so that this process is not its next one; their ends are awaited."""
        daemons = {identity.pid for identity in self.exempt.spared} if self.exempt is not None else ()
        return {member.identity for member in members if member.ppid in daemons}

    def _past(self, now: float) -> Past:
        released = {one for one, since in self._drained.items() if now >= since + self._lead}
        return Past(self._signalled, self.refused, self._held, released, self._spared, self._parents, self._starting)

    def _remember(self, decision: Decision, now: float, signalled: set[Identity]) -> None:
        self._signalled |= signalled
        self._held |= decision.held
        self._spared |= decision.spared
        self._parents = decision.parents
        self._starting |= decision.starting
        self._drained = {one: self._drained.get(one, now) for one in decision.drained}

    def _kill_round(self) -> None:
        """Kill until a look at `/proc` shows no new member: a process with SIGKILL pending can't fork any more."""
        while time.monotonic() < self.deadline:
            self._tree.kill_children(self.exempt.spares if self.exempt is not None else None)
            members = self.remaining()
            fresh = [member for member in members if member.identity not in self._killed]
            # At once: a process that forks and exits all the time has another pid a moment after the look.
            apart = self.exempt.groups if self.exempt is not None else ()
            _kill_all(parents_first(fresh, self._process, ProcFacts()), apart)
            self._find_refused(members)
            if not fresh:
                break
            self._killed.update(member.identity for member in fresh)
        self._next_round = time.monotonic() + ROUND_INTERVAL

    def _find_refused(self, members: list[Member]) -> None:
        """Find which of the members that outlived SIGKILL could not be sent it."""
        after = [member.identity for member in members if member.identity in self._killed]
        self.refused = {identity for identity in after if not may_signal(identity)}
        self.only_refused = bool(members) and len(self.refused) == len(members)


def _deliver(identity: Identity) -> bool:
    """Send SIGTERM; False when that is not allowed. A process that has ended meanwhile needs none."""
    return send(identity, signal.SIGTERM, signal.SIGCONT) or may_signal(identity)


def _kill_all(members: list[Member], apart: Collection[int]) -> None:
    """Send SIGKILL to each member once, in one call for a whole group where that kills no member before its parent.

    A group of `apart` has other members, too, that are left alone.
    Within a call the order is the kernel's, and does not matter: no member of the group can act on another's end before
    all have the signal, since an end is reported under a lock that the call holds (kill_pgrp(), exit_notify()).
    """
    group_of = {member.pid: member.pgid for member in members}
    groups: dict[int, list[int]] = {}
    # Per pid, the groups of its children in other groups; per group, how many members have a live parent in another.
    below: dict[int, list[int]] = {}
    waiting: Counter[int] = Counter()
    for member in members:
        groups.setdefault(member.pgid, []).append(member.pid)
        if group_of.get(member.ppid, member.pgid) != member.pgid:
            below.setdefault(member.ppid, []).append(member.pgid)
            waiting[member.pgid] += 1
    killed: set[int] = set()
    for member in members:
        if member.pid in killed:
            continue
        batch = groups[member.pgid]
        if waiting[member.pgid] or member.pgid in apart or not _kill_group(member):
            send(member.identity, signal.SIGKILL)
            batch = [member.pid]
        waiting.subtract(group for pid in batch if pid not in killed for group in below.get(pid, ()))
        killed.update(batch)


def _kill_group(member: Member) -> bool:
    """Kill a member's group in one kill(2), which no fork can escape; False where the member has left that group.

    A group lies within one session, and every process of a session descends from its leader (setpgid(2), setsid(2)),
    so a member's group holds only members. Its number can't be reused as long as a member is in it, which is checked
    right before.
    """
    now = read_member(member.pid)
    if now is None or now.identity != member.identity or now.pgid != member.pgid:
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(member.pgid, signal.SIGKILL)
    return True
