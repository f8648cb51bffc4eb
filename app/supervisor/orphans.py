"""Runs in the master and the worker: become the parent of a killed shim's orphans, and reap them."""

import contextlib
import os

from app.linux.libc import PR_SET_CHILD_SUBREAPER, prctl
from app.linux.proc import snapshot

_subreapers: list[int] = []


def become_subreaper() -> None:
    """Make orphans below this process its children, from now on (PR_SET_CHILD_SUBREAPER, prctl(2)).

    The tree of a killed shim is then reparented to the worker that started it, or, when that has ended, to the master,
    instead of to pid 1, where it can't be told from another program's. For the service's own processes only: a process
    forked afterwards keeps the list of the subreapers above it.
    """
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    _subreapers.append(os.getpid())


def subreapers() -> list[int]:
    """Return the pids of the service's subreapers: this process, those above it, and a worker that overlaps with it.

    The last may be the dead shim's parent. Workers are the master's children in its session, where no orphan can be.
    """
    if not _subreapers:
        return []
    master = _subreapers[0]
    session = os.getsid(0)
    beside = [member.pid for member in snapshot().values() if (member.ppid, member.session) == (master, session)]
    return [*_subreapers, *beside]


def reap_orphans(spare: int | None = None) -> None:
    """Reap the children of a worker that have ended; never waits.

    Stops at `spare`, whose exit code the shim has yet to read. The master's are left to gunicorn, which must see the
    end of each worker itself.
    """
    if os.getpid() not in _subreapers[1:]:
        return
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != spare:
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)
