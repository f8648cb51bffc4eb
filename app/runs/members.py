"""Runs in the master and the worker: find the members of a tree, and the processes that keep it."""

import os
import time
from collections.abc import Collection, Iterable

from app.linux.proc import Identity, Member, descendants, holds_pipe, initial_environment, read_member, snapshot
from app.runs.names import RUN_ID_VARIABLE
from app.runs.record import RunRecord

# Looks at a process without an environment, 2 ms apart: most have executed their program by then.
EXEC_LOOKS = 5


def find_members(record: RunRecord, subreapers: Collection[int] = ()) -> list[Member]:
    """Return the live processes that provably belong to a tree without keepers, and all below them.

    Those are the process's session, the members that the last shim recorded and, of the orphans that came to
    `subreapers`, the service's own, those that hold the run's pipe or were started with its id. Elsewhere, where
    orphans are when the service has been killed as well, only both are a proof: a program may pass its output on to one
    that ran before (tmux does), and a run of another service may have the same id.
    """
    found = {member.identity: member for member in (*_in_session(record.process), *_known(record.members))}
    for orphan in orphans(subreapers):
        if holds_pipe(orphan.pid, record.pipe) or run_entry(record.run_id) in _environment(orphan.pid):
            found[orphan.identity] = orphan
    for member in snapshot().values():
        if run_entry(record.run_id) in initial_environment(member.pid) and holds_pipe(member.pid, record.pipe):
            found[member.identity] = member
    for member in descendants({identity.pid for identity in found}):
        found[member.identity] = member
    return list(found.values())


def live_keepers(record: RunRecord) -> set[int]:
    """Return the pids of a run's shim and understudy, as far as they live."""
    return {member.pid for member in _known(filter(None, (record.shim, record.understudy)))}


def ids_of_live_runs() -> set[str]:
    """Return the ids of the runs that live processes were started in, whosever they are."""
    entries = [entry for pid in snapshot() for entry in initial_environment(pid)]
    prefix = run_entry("")
    return {os.fsdecode(entry.removeprefix(prefix)) for entry in entries if entry.startswith(prefix)}


def orphans(subreapers: Collection[int]) -> list[Member]:
    """Return the live children of the service's subreapers that left their sessions: no process of its own does."""
    members = snapshot()
    sessions = {members[pid].session for pid in subreapers if pid in members}
    return [one for one in members.values() if one.ppid in subreapers and one.session not in sessions and one.alive]


def _known(identities: Iterable[Identity]) -> list[Member]:
    found = [(identity, read_member(identity.pid)) for identity in identities]
    return [member for identity, member in found if member and member.identity == identity and member.alive]


def _in_session(process: Identity | None) -> list[Member]:
    """Return the process's session, unless its number now belongs to another process.

    The number is reused only when process and session are gone; a leader with another start time shows that.
    """
    leader = read_member(process.pid) if process is not None else None
    if leader is None or leader.identity != process:
        return []
    return [member for member in snapshot().values() if member.session == leader.pid and member.alive]


def run_entry(run_id: str) -> bytes:
    """Return the entry of the environment by which what a run has started can be known."""
    return f"{RUN_ID_VARIABLE}={run_id}".encode()


def _environment(pid: int) -> list[bytes]:
    """Return a process's initial environment, which is empty for a moment while it executes a program (execve(2))."""
    for _ in range(EXEC_LOOKS):
        if any(found := initial_environment(pid)):
            return found
        time.sleep(0.002)  # no event announces the end of another process's execve(2)
    return []
