"""Runs in every process of ours: find the members of a tree whose shim died."""

from collections.abc import Collection, Iterable

from app.linux.proc import Identity, Member, descendants, read_member, snapshot


def find_members(
    process: Identity, known: Iterable[Identity], parents: Collection[int], not_ours: Collection[int]
) -> list[Member]:
    """Return the live members of a tree whose shim died: the process's session, `known`, the orphans, and all below.

    Orphans are reparented to `parents`, the subreapers above the dead shim. Of their children, those in a session of
    `not_ours` are the service's own: no process can join a session from outside (setsid(2)), so no member of the tree
    is in one of them.
    """
    found = {member.identity: member for member in _in_session(process)}
    for member in snapshot().values():
        if member.ppid in parents and member.session not in not_ours and member.alive:
            found[member.identity] = member
    for identity in known:
        now = read_member(identity.pid)
        if now is not None and now.identity == identity and now.alive:
            found[identity] = now
    below = descendants({identity.pid for identity in found})
    return [*found.values(), *below]


def _in_session(process: Identity) -> list[Member]:
    """Return the process's session, unless its number now belongs to another process.

    The number is reused only when process and session are gone; a leader with another start time shows that.
    """
    leader = read_member(process.pid)
    if leader is None or leader.identity != process:
        return []
    return [member for member in snapshot().values() if member.session == process.pid and member.alive]
