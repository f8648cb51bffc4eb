"""The end of a tree: one signal to every member, a time of grace, then SIGKILL in rounds until nobody is left."""

import contextlib
import os
import signal
import time
from collections.abc import Callable

from app.process.tree import Identity, Member, read_member, send

# What survives SIGKILL this long sits in the kernel (state D) or belongs to another user: waiting longer helps nobody.
KILL_PATIENCE = 2.0
# While SIGKILL is under way `/proc` is read again at least this often, for what was forked between two reads.
ROUND_INTERVAL = 0.05


class Ending:
    """Walk one tree from the first signal to the last survivor, in steps that never block for long.

    `members` lists the live tree. Times are `time.monotonic()` instants.
    """

    def __init__(self, members: Callable[[], list[Member]]) -> None:
        self._members = members
        self._killed: set[Identity] = set()
        self.deadline = 0.0
        self.killing = False
        self.escalated = False
        self._next_round = 0.0

    def terminate(self, number: signal.Signals, deadline: float) -> None:
        """Send a polite signal to every member once; what lives at the deadline is killed by `advance`.

        Groups get it by one kill(2) each, which no fork can slip past: fork fails and is restarted when a signal is
        pending (copy_process(), kernel/fork.c). There is one pass only: what a member starts afterwards is its own
        clean-up. SIGCONT follows, since a stopped process acts on SIGTERM only when it goes on (signal(7)).
        """
        self.deadline = deadline
        _signal_all(self._members(), number, signal.SIGCONT)

    def hasten(self, deadline: float) -> None:
        """Bring the end of the grace forward; never puts it off."""
        self.deadline = min(self.deadline, deadline)

    def kill(self) -> None:
        """Send SIGKILL to every member now."""
        if not self.killing:
            self.killing = True
            self.deadline = time.monotonic() + KILL_PATIENCE
        self._kill_round()

    def advance(self, now: float) -> bool:
        """Do what is due; True when there is no more to be done, whoever is still alive."""
        if self.killing:
            # Not at each end that comes in meanwhile: a look at `/proc` for each would make hundreds take seconds.
            if now >= self._next_round:
                self._kill_round()
            return now >= self.deadline
        if now >= self.deadline:
            self.escalate()
        return False

    def escalate(self) -> None:
        """Skip what is left of the grace that somebody else was granted."""
        self.escalated = self.escalated or not self.killing
        self.kill()

    @property
    def wake_at(self) -> float:
        """Return the latest instant at which `advance` must be called again."""
        return min(self.deadline, self._next_round) if self.killing else self.deadline

    def _kill_round(self) -> None:
        """Kill until a look at `/proc` shows nobody new: a process with SIGKILL pending can't fork any more."""
        while time.monotonic() < self.deadline:
            fresh = [member for member in self._members() if member.identity not in self._killed]
            if not fresh:
                break
            _signal_all(fresh, signal.SIGKILL)
            self._killed.update(member.identity for member in fresh)
        self._next_round = time.monotonic() + ROUND_INTERVAL


def _signal_all(members: list[Member], *numbers: signal.Signals) -> None:
    """Signal each member once, those that share a group at one stroke.

    A group lies within one session, and every process of a session descends from who made it (setpgid(2), setsid(2)),
    so a member's group holds nobody but members. Its number can't have come to mean another group as long as a member
    is in it, which is looked at right before.
    """
    done: set[int] = set()
    for member in members:
        if member.pgid in done:
            continue
        now = read_member(member.pid)
        if now is None or now.identity != member.identity:
            continue
        if now.pgid != member.pgid:
            send(member.identity, *numbers)
            continue
        done.add(member.pgid)
        for number in numbers:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(member.pgid, number)
