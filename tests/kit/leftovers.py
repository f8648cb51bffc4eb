"""What is left below this process when something should be over, and the zygotes there, which may stay."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

from tests.kit.processes import alive, command_line, descendants, parent
from tests.kit.waiting import wait_until

ZYGOTE = "llm-zygote"
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


def zygotes_of(workers: Collection[int]) -> set[int]:
    """Return the zygotes of these processes: one live child of each.

    A second zygote, or one that waits to be reaped, is left over like anything else.
    """
    zygotes = {}
    for pid, name in descendants().items():
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
            worker = parent(pid)
            if worker in workers and name.startswith(f"{ZYGOTE} ") and alive(pid):
                zygotes[worker] = pid
    return set(zygotes.values())


def strangers(before: Collection[int]) -> dict[int, str]:
    """Return this process's descendants that are neither of `before` nor the zygote of one of those, or its own."""
    expected = {*before, *zygotes_of({*before, os.getpid()})}
    return {pid: name for pid, name in descendants().items() if pid not in expected}


def assert_none_left(before: Collection[int], timeout: float = 5.0) -> None:
    """Fail unless, within `timeout` seconds, this process has no descendant but those of `before`."""
    deadline = time.monotonic() + timeout
    while (left := strangers(before)) and time.monotonic() < deadline:
        _reap_zygotes(left)
        time.sleep(0.01)
    assert not left, f"left behind: {left}"


def _reap_zygotes(found: Mapping[int, str]) -> None:
    """Reap the zygotes of processes that have ended, which come to this one and end with those."""
    for pid, name in found.items():
        if name == f"{ZYGOTE} (Z)":
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


@contextmanager
def subreaper() -> Iterator[None]:
    """Make this process a subreaper (prctl(2)) for the time, if something around this has not made it one.

    Whoever calls setsid or double-forks stays its descendant, so no session can leave its sight.
    """
    prctl = ctypes.CDLL(None).prctl
    before = ctypes.c_int()
    assert prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0) == 0
    assert prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Fail when what was started inside is alive at the end, however it detached itself."""
    before = set(descendants())
    with subreaper():
        try:
            yield
        finally:
            left = _left_after(before, 5.0)
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _left_after(before, 5.0)
    assert not left, f"left behind: {left}"


def _left_after(before: set[int], timeout: float) -> dict[int, str]:
    """Reap the orphans that came here; return who else is left, at the latest after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        left = {pid: f"{name} {command_line(pid)!r}" for pid, name in strangers(before).items()}
        for pid in left:
            with suppress(ChildProcessError):  # not ours yet
                os.waitpid(pid, os.WNOHANG)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)


def reap(pids: Collection[int]) -> list[int]:
    """Wait until these have ended, and reap those that are orphans of this process now; return their exit codes.

    Under gunicorn the worker does this.
    """
    codes = []
    for pid in pids:
        wait_until(partial(_is_over, pid))
        with suppress(ChildProcessError):
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return codes


def _is_over(pid: int) -> bool:
    return not alive(pid)
