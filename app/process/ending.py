"""The end of a tree: one signal to every member, a time of grace, then SIGKILL in rounds until nobody is left."""

import os
import signal
import time
from collections.abc import Callable

from app.process.tree import Identity, Member, send

# What survives SIGKILL this long sits in the kernel (state D) or belongs to another user: waiting longer helps nobody.
KILL_PATIENCE = 2.0
# While SIGKILL is under way `/proc` is read again at least this often, for what was forked between two reads.
ROUND_INTERVAL = 0.05


class Ending:
    """Walk one tree from the first signal to the last survivor, in steps that never block for long.

    `members` lists the live tree. Times are `time.monotonic()` instants.
    """

    def __init__(self, members: Callable[[], list[Member]], group: int) -> None:
        self._members = members
        self._group = group
        self._killed: set[Identity] = set()
        self.deadline = 0.0
        self.killing = False
        self.escalated = False

    def terminate(self, number: signal.Signals, deadline: float) -> None:
        """Send a polite signal to every member once; what lives at the deadline is killed by `advance`.

        The leader's group gets it by one kill(2), which no fork can slip past: fork fails and is restarted when a
        signal is pending (copy_process(), kernel/fork.c). There is one pass only: what a member starts afterwards is
        its own clean-up. SIGCONT follows, since a stopped process acts on SIGTERM only when it goes on (signal(7)).
        """
        self.deadline = deadline
        members = self._members()
        in_group = [member for member in members if member.pgid == self._group]
        if in_group:
            _signal_group(self._group, number, signal.SIGCONT)
        for member in members:
            if member.pgid != self._group:
                send(member.identity, number, signal.SIGCONT)

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
        return min(self.deadline, time.monotonic() + ROUND_INTERVAL) if self.killing else self.deadline

    def _kill_round(self) -> None:
        """Kill until a look at `/proc` shows nobody new: a process with SIGKILL pending can't fork any more."""
        while time.monotonic() < self.deadline:
            fresh = [member.identity for member in self._members() if member.identity not in self._killed]
            if not fresh:
                return
            for identity in fresh:
                send(identity, signal.SIGKILL)
            self._killed.update(fresh)


def _signal_group(group: int, *numbers: signal.Signals) -> None:
    for number in numbers:
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            return
