"""What the service's own processes do for orphans: attract them, and reap them."""

import contextlib
import os

from app.linux.libc import PR_SET_CHILD_SUBREAPER, prctl
from app.linux.proc import snapshot

_subreapers: list[int] = []


def become_subreaper() -> None:
    """Make orphans below this process its children, from now on (PR_SET_CHILD_SUBREAPER, prctl(2)).

    A shim that is killed then leaves its tree to the worker that started it, or, when that worker is gone, to the
    master, instead of to pid 1 where nobody could tell it from a stranger's. For processes that are the service's
    alone: what is forked afterwards keeps the list of those above it.
    """
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    _subreapers.append(os.getpid())


def subreapers() -> list[int]:
    """Return the pids of the service's subreapers: this process, those above it, and a worker that overlaps with it.

    That one may be the dead shim's parent. Workers are the master's children in its session, where no orphan can be.
    """
    if not _subreapers:
        return []
    master = _subreapers[0]
    session = os.getsid(0)
    beside = [member.pid for member in snapshot().values() if (member.ppid, member.session) == (master, session)]
    return [*_subreapers, *beside]


def reap_orphans(spare: int | None = None) -> None:
    """Reap the children of a worker that have ended; never waits.

    Stops at `spare`: its exit code is still to be read by somebody else. The master's are left to gunicorn, which must
    see the end of each worker itself.
    """
    if os.getpid() not in _subreapers[1:]:
        return
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != spare:
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)
