"""What the service's own processes do for orphans: attract them, and reap them."""

import contextlib
import ctypes
import os

_PR_SET_CHILD_SUBREAPER = 36
_subreapers: list[int] = []


def become_subreaper() -> None:
    """Make orphans below this process its children, from now on (PR_SET_CHILD_SUBREAPER, prctl(2)).

    A shim that is killed then leaves its tree to the worker that started it, or, when that worker is gone, to the
    master, instead of to pid 1 where nobody could tell it from a stranger's. For processes that are the service's
    alone: what is forked afterwards keeps the list of those above it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _subreapers.append(os.getpid())


def subreapers() -> list[int]:
    """Return the pids of the service's subreapers, this process and those above it."""
    return list(_subreapers)


def reap_orphans() -> None:
    """Reap every child that has ended, if this process is one that attracts orphans; never waits."""
    if os.getpid() not in _subreapers:
        return
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
