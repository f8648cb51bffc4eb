"""Runs in the shim, the master and the worker: tell daemons from the other members of a tree, and exempt them."""

from collections.abc import Callable, Iterable

from app.linux.proc import Identity, Member, read_member
from app.stopping.facts import ProcFacts


def daemons_among(members: Iterable[Member], session: int, holds_output: Callable[[Member], bool]) -> list[Member]:
    """Return the members that have left the command's session and its output.

    Without those that have a parent among the other members: it may end them itself, as a script does its browser.
    """
    by_pid = {member.pid: member for member in members}
    children: dict[int, list[Member]] = {}
    for member in by_pid.values():
        children.setdefault(member.ppid if member.ppid in by_pid else 0, []).append(member)
    found: list[Member] = []
    queue = children.get(0, [])
    for member in queue:  # which grows meanwhile
        if member.session != session and not holds_output(member):
            found.append(member)
            queue += children.get(member.pid, [])
    return found


class Exempt:
    """Leave a tree's daemons alone in one stop. `output` is the run's pipe, by inode; None where it is not known.

    The first look at a member decides. Later ones could find less, since their cost is limited, or more: a member that
    has left session and output would pass for a daemon once the stop has ended its parent. `spared` are the daemons
    found so far, and `others` the other members.
    """

    def __init__(
        self, process: Identity, output: int | None, spared: Iterable[Identity] = (), others: Iterable[Identity] = ()
    ) -> None:
        self._session = process.pid  # the process leads it
        self._output = output
        self._others = set(others)
        self.spared = set(spared)
        # The groups of those seen at the last look.
        self.groups: set[int] = set()

    def others(self, members: Iterable[Member]) -> list[Member]:
        """Return the members that are no daemons."""
        members = list(members)
        facts = ProcFacts(self._output)
        daemons = daemons_among(members, self._session, lambda member: self._stays(member, facts))
        self.spared.update(member.identity for member in daemons)
        self.groups = {member.pgid for member in daemons}
        pids = {member.pid for member in daemons}
        found = [member for member in members if member.pid not in pids]
        self._others.update(member.identity for member in found)
        return found

    def spares(self, pid: int) -> bool:
        """Tell whether a process without a parent in the tree is a daemon; one that `/proc` does not show is none."""
        member = read_member(pid)
        if member is None:
            return False
        return member.session != self._session and not self._stays(member, ProcFacts(self._output))

    def _stays(self, member: Member, facts: ProcFacts) -> bool:
        """Tell whether a member is known not to be a daemon, or holds the output."""
        if member.identity in self.spared:
            return False
        return member.identity in self._others or facts.holds_output(member)
