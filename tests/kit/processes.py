"""Processes by pid: what /proc says of them, and signals that are waited for.

The service has readers of /proc of its own (`read_member` and its neighbours in `app`); these are independent of them,
so that a fault there can't hide itself from the tests.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from tests.kit.waiting import wait_until


def stat_fields(pid: int) -> list[str]:
    """Return what follows the name in /proc/PID/stat (proc_pid_stat(5)): state, parent, group, session and more."""
    return _read_stat(pid)[1]


def status_fields(pid: int) -> dict[str, str]:
    """Return the lines of /proc/PID/status (proc_pid_status(5)) by their names."""
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def memory_kib(pid: int, field: str = "VmRSS") -> int:
    """Return how much memory a process holds, or has held at the most (`VmHWM`).

    Raises `ProcessLookupError` when it has ended: a comparison with nothing would prove nothing.
    """
    with suppress(FileNotFoundError):
        if size := status_fields(pid).get(field):
            return int(size.split()[0])
    raise ProcessLookupError(pid)


def command_line(pid: int) -> str:
    """Return a process's arguments with spaces between them; nothing when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def name_of(pid: int) -> str:
    """Return the name that a process gave itself or has from its program (proc_pid_stat(5))."""
    return _read_stat(pid)[0]


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment that a process's program was executed with (proc_pid_environ(5))."""
    entries = [entry.decode(errors="surrogateescape") for entry in environment_entries(pid)]
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def environment_entries(pid: int) -> list[bytes]:
    """Return the strings of a process's environment, which must not be empty.

    A spawn returns when its execve(2) can no longer fail, and the new program's environment is put in place only after
    that: until then the file is empty (`environ_read()`, fs/proc/base.c).
    """
    return wait_until(Path(f"/proc/{pid}/environ").read_bytes).removesuffix(b"\0").split(b"\0")


def descriptors_of(pid: int) -> dict[int, str]:
    """Return the open descriptors of a process and what each leads to; raises `OSError` when it has ended."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed while we looked, as the one that this listing takes
            found[int(entry.name)] = str(entry.readlink())
    return found


def alive(pid: int) -> bool:
    """Tell whether a process still runs; a zombie does not, unless it has threads left that do."""
    try:
        fields = stat_fields(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    state, threads = fields[0], int(fields[17])
    return state not in "ZXx" or threads > 1


def parent(pid: int) -> int:
    """Return the parent's pid."""
    return int(stat_fields(pid)[1])


def children(pid: int) -> list[int]:
    """Return the live children of a process."""
    found: list[int] = []
    for child in _pids():
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
            if parent(child) == pid:
                found.append(child)
    return [child for child in found if alive(child)]


def watch_for_child(pid: int, timeout: float = 2.0) -> Callable[[], int | None]:
    """Return a function that waits for a process to have a child that it does not have now; None in vain."""
    known = set(_pids())

    def wait() -> int | None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:  # without a pause: the child's first steps are what the caller is after
            for found in [found for found in _pids() if found not in known]:
                with suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
                    if parent(found) == pid:
                        return found
                    known.add(found)
        return None

    return wait


def descendants(pid: int | None = None) -> dict[int, str]:
    """Return the pids below `pid` (default: this process) with their names, zombies included."""
    below: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for found in _pids():
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
            name, (state, above, *_) = _read_stat(found)
            names[found] = f"{name} ({state})"
            below.setdefault(int(above), []).append(found)
    result: dict[int, str] = {}
    pending = [os.getpid() if pid is None else pid]
    while pending:
        for child in below.get(pending.pop(), []):
            result[child] = names[child]
            pending.append(child)
    return result


def send(number: signal.Signals, *pids: int) -> None:
    """Signal processes and wait until that shows: SIGKILL, SIGSTOP and SIGCONT take effect on their own time."""
    for pid in pids:
        os.kill(pid, number)
    for pid in pids:
        if number == signal.SIGKILL:
            wait_until(partial(_is_gone, pid))
        elif number == signal.SIGSTOP:
            wait_until(partial(_is_stopped, pid))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Keep a process from doing anything for the time, alive as it is."""
    send(signal.SIGSTOP, pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _read_stat(pid: int) -> tuple[str, list[str]]:
    # The name, in parentheses, may hold any character; what follows it holds no parenthesis.
    name, _, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").partition("(")[2].rpartition(")")
    return name, rest.split()


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208  names are all it takes


def _is_gone(pid: int) -> bool:
    return not alive(pid)


def _is_stopped(pid: int) -> bool:
    return stat_fields(pid)[0] == "T"
