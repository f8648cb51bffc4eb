"""Runs in the master and the worker: become the parent of the orphans of runs without keepers, and reap them."""

import contextlib
import os

from app.linux.libc import PR_SET_CHILD_SUBREAPER, prctl
from app.linux.proc import children, children_of, read_member, snapshot

_subreapers: list[int] = []


def become_subreaper() -> None:
    """Make orphans below this process its children, from now on (PR_SET_CHILD_SUBREAPER, prctl(2)).

    Where shim and understudy of a run are killed, its tree is then reparented to the worker that started it or, when
    that has ended, to the master, instead of to pid 1, where it can't be told from another program's. For the service's
    own processes only: a process forked afterwards keeps the list of the subreapers above it.
    """
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    _subreapers.append(os.getpid())


def subreapers() -> list[int]:
    """Return the pids of the service's subreapers: this process, those above it, and a worker that overlaps with it.

    The last may have started the run. Workers are the master's children in its session, where no orphan can be.
    """
    if not _subreapers:
        return []
    master = _subreapers[0]
    session = os.getsid(0)
    beside = [member.pid for member in snapshot().values() if (member.ppid, member.session) == (master, session)]
    return [*_subreapers, *beside]


def reap_orphans() -> None:
    """Reap the orphans of a worker that have ended, such as understudies of a zygote that was killed; never waits.

    They are in other sessions than what the worker itself has started, whose end another thread may wait for. The
    master's are left to gunicorn, which must see the end of each worker itself.
    """
    if os.getpid() not in _subreapers[1:]:
        return
    session = os.getsid(0)
    for pid in _own_children():
        member = read_member(pid)
        if member is not None and not member.alive and member.session != session:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _own_children() -> list[int]:
    with contextlib.suppress(OSError):  # the kernel has no such list
        return children_of(os.getpid())
    with contextlib.suppress(OSError):  # no descriptor is free: the next call tries again
        return [child.pid for child in children()]
    return []
