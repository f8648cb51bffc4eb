"""What several test files need: waiting for a condition, requiring a tool, and looking at the process table."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

import pytest

# It stays in the environment, for pytest-xdist's workers; no service gets it, which would refuse a name unknown to it.
REQUIRE_ALL = os.environ.get("LLM_SHELL_TEST_REQUIRE_ALL", "0") == "1"

Value = TypeVar("Value")


def wait_until(predicate: Callable[[], Value | Literal[False] | None], timeout: float = 10.0) -> Value:
    """Call `predicate` until it returns something true, and return that; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() > deadline:
            pytest.fail(f"still {value!r} after {timeout} s: {getattr(predicate, '__name__', predicate)}")
        time.sleep(0.01)
    return value


def require(available: object, what: str) -> None:
    """Skip the test when `what` it needs is not there; fail instead where everything is required (`.ci/run`)."""
    if available:
        return
    if REQUIRE_ALL:
        pytest.fail(f"this test needs {what}")
    pytest.skip(f"needs {what}")


def descendants(pid: int | None = None) -> dict[int, str]:
    """Return the pids below `pid` (default: this process) with their names, zombies included."""
    children: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
        # proc_pid_stat(5): the name, in parentheses, may hold any character; the state and the parent follow it.
        name, _, rest = text.partition("(")[2].rpartition(")")
        state, parent = rest.split()[:2]
        names[int(entry.name)] = f"{name} ({state})"
        children.setdefault(int(parent), []).append(int(entry.name))
    found: dict[int, str] = {}
    pending = [os.getpid() if pid is None else pid]
    while pending:
        for child in children.get(pending.pop(), []):
            found[child] = names[child]
            pending.append(child)
    return found


def stand_by(workers: Collection[int]) -> set[int]:
    """Return the shims that wait for a run below these processes: their workers keep one each, another in time."""
    found = set()
    for pid in descendants():
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
            parent = int(stat_fields(pid)[1])
            if parent in workers and os.getsid(pid) == os.getsid(parent) and "stands-by" in command_line(pid):
                found.add(pid)
    return found


def command_line(pid: int) -> str:
    """Return a process's arguments with spaces between them; nothing when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def stat_fields(pid: int) -> list[str]:
    """Return what follows the name in /proc/PID/stat (proc_pid_stat(5)): state, parent, group, session and more."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def strangers(before: Collection[int]) -> dict[int, str]:
    """Return this process's descendants that are neither of `before` nor stand by for one of those."""
    expected = {*before, *stand_by(before)}
    return {pid: name for pid, name in descendants().items() if pid not in expected}


def assert_none_left(before: Collection[int], timeout: float = 5.0) -> None:
    """Fail unless, within `timeout` seconds, this process has no descendant but those of `before`."""
    deadline = time.monotonic() + timeout
    while (left := strangers(before)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"left behind: {left}"
