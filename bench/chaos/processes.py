"""Runs in the chaos runner: processes as /proc has them, and signals to exactly one.

The service's own readers of /proc are not used here, so that a fault of theirs can't hide itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import NamedTuple

DEAD = "ZXx"


class Identity(NamedTuple):
    """A process until the next boot: no later one has the same pid and start time (proc_pid_stat(5), field 22)."""

    pid: int
    start: int


class Process(NamedTuple):
    """One process of a listing."""

    identity: Identity
    parent: int
    session: int
    state: str
    threads: int
    name: str

    @property
    def alive(self) -> bool:
        """Tell whether it still runs; one whose first thread alone has ended reads as a zombie, too."""
        return self.state not in DEAD or self.threads > 1

    def __str__(self) -> str:
        return f"{self.identity.pid} ({self.name}, {self.state}, child of {self.parent})"


Table = dict[int, Process]


def read(pid: int) -> Process | None:
    """Read one process; None when there is none."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").partition("(")[2].rpartition(")")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = rest.split()
    return Process(Identity(pid, int(fields[19])), int(fields[1]), int(fields[3]), fields[0], int(fields[17]), name)


def table() -> Table:
    """Read every process."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {pid: process for pid in pids if (process := read(pid)) is not None}


def below(root: int, everything: Table) -> list[Process]:
    """Return what a process has started, and what that has started, zombies included."""
    children: dict[int, list[Process]] = {}
    for process in everything.values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    pending = [root]
    while pending:
        more = children.get(pending.pop(), [])
        found += more
        pending += [process.identity.pid for process in more]
    return found


def alive(identity: Identity) -> bool:
    """Tell whether exactly this process still runs."""
    process = read(identity.pid)
    return process is not None and process.identity == identity and process.alive


def command_line(pid: int) -> bytes:
    """Return a process's arguments; nothing when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def descriptors(pid: int) -> list[str]:
    """Return what the open descriptors of a process lead to; raises `OSError` when it has ended."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(str(entry.readlink()))
    return found


def send(identity: Identity, *numbers: signal.Signals) -> bool:
    """Signal exactly this process; False when it has ended."""
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        # From here on the descriptor stands for one process, whatever becomes of the pid (pidfd_open(2)).
        if not alive(identity):
            return False
        for number in numbers:
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True
