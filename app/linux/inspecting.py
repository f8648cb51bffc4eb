"""Runs in the shim, the master and the worker: read what `/proc` shows of a process to its own user alone."""

import contextlib
import ctypes
import os
from collections.abc import Iterator

from app.linux.proc import DEAD_STATES, Member

_libc = ctypes.CDLL(None)


@contextlib.contextmanager
def as_user_of(member: Member) -> Iterator[None]:
    """Read `/proc` with the rights of the member's user, where ours are root's.

    In a container root often lacks CAP_SYS_PTRACE, without which it may not inspect other users' processes; a thread
    whose file system user is theirs may (ptrace_may_access(), kernel/ptrace.c). Of this process only the calling thread
    has that user meanwhile (setfsuid(2)).
    """
    owner = None
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            owner = os.stat(f"/proc/{member.pid}")
    if owner is None or owner.st_uid == 0:
        yield
        return
    _libc.setfsgid(owner.st_gid)
    _libc.setfsuid(owner.st_uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(os.getegid())


def folder_of(member: Member) -> str:
    """Return the directory in `/proc` to read a member from, or one of its threads.

    One whose first thread has ended shows no files and no executable any more (exit_files(), exit_mm(), kernel/exit.c);
    its other threads do.
    """
    folder = f"/proc/{member.pid}"
    if member.state in DEAD_STATES:
        with contextlib.suppress(OSError):
            others = [name for name in os.listdir(f"{folder}/task") if name != str(member.pid)]
            return f"{folder}/task/{others[0]}" if others else folder
    return folder
