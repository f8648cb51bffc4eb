"""Who belongs to a run whose shim died."""

from collections.abc import Collection, Iterable

from app.linux.proc import Identity, Member, descendants, read_member, session_members, snapshot


def find_members(
    process: Identity, known: Iterable[Identity], parents: Collection[int], not_ours: Collection[int]
) -> list[Member]:
    """Return the live members of a tree whose shim died: the process's session, the known, the orphans, and all below.

    The orphans came to `parents`, the subreapers above the dead shim. Of their children, those in a session of
    `not_ours` are the service's own: nobody can join a session from outside (setsid(2)), so no member of the tree is in
    one of them.
    """
    found = {member.identity: member for member in _in_session(process)}
    for member in snapshot().values():
        if member.ppid in parents and member.session not in not_ours and member.alive:
            found[member.identity] = member
    for identity in known:
        known_one = read_member(identity.pid)
        if known_one is not None and known_one.identity == identity and known_one.alive:
            found[identity] = known_one
    below = descendants({identity.pid for identity in found})
    return [*found.values(), *below]


def _in_session(process: Identity) -> list[Member]:
    """Return the process's session, unless its number now belongs to a stranger.

    The number is free for others only when process and session are gone; a leader with another start time shows that.
    """
    leader = read_member(process.pid)
    if leader is None or leader.identity != process:
        return []
    return session_members(process.pid)
