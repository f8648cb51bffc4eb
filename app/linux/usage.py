"""Runs in the worker: the processor time and memory of a process, as `/proc` shows them."""

import os
from typing import NamedTuple

from app.linux.proc import Identity, read_beginning

TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """Hold the processor time that a process has used itself, and that of the children it has reaped, in clock ticks.

    The latter includes what these had reaped (proc_pid_stat(5)).
    """

    identity: Identity
    own: int
    reaped: int


def read_usage(pid: int) -> Usage | None:
    """Return what a process, which may be a zombie, has used; None when there is none."""
    fields = read_beginning(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    if not fields:
        return None
    user, system, reaped_user, reaped_system = map(int, fields[11:15])
    return Usage(Identity(pid, int(fields[19])), user + system, reaped_user + reaped_system)


def private_bytes(pid: int) -> int:
    """Return the memory of a process without what it may share with others: pages of files and shared memory.

    Pages that are still common with a fork's parent count for both: to tell them apart (smaps_rollup) takes the kernel
    10 ms for 300 MB, while it must hold the process's map.
    """
    fields = read_beginning(f"/proc/{pid}/statm").split()
    # The kernel adds its counters up without a lock, so that the difference may be off by some pages.
    return max(0, int(fields[1]) - int(fields[2])) * _PAGE if fields else 0
