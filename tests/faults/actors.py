"""Who is who in a running service, the counter that its process runs, and requests that wait in the background."""

from __future__ import annotations

import http.client
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from app.linux.proc import read_member, snapshot
from app.runs.record import RunRecord, read_record, record_path
from tests.service.harness import PROGRAMS, Answer, Service
from tests.support import wait_until


def counter(**options: float | bool) -> list[str | Path]:
    """Return the command of a counter with these options, such as `pause_at=100`."""
    words: list[str | Path] = ["exec", sys.executable, PROGRAMS / "counter.py"]
    for name, value in options.items():
        words.append(f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}"))
    return words


def start_counter(service: Service, **options: float | bool) -> int:
    """Start a counter, wait until it counts or has come to its pause, and return its pid."""
    pid = int(service.start(counter(**options))["process_pid"])
    service.wait_for_output(f"\n{options.get('pause_at', 1)}")
    return pid


def assert_whole(content: str, last: int | None = None) -> None:
    """Fail unless a counter's output is "ready" and every number from 1 to `last` (default: to any), once and in order.

    Unless a last one is given, the counter was killed, maybe in the middle of a number.
    """
    lines = content.split("\n")
    expected = ["ready", *map(str, range(1, len(lines)))]
    if last is None:
        assert expected[-1].startswith(lines.pop())
        expected.pop()
    assert lines == expected
    assert last in {None, len(lines) - 1}


def ended(service: Service) -> dict[str, Any]:
    """Wait until the process has ended and nothing of its tree can print any more; return the status object."""

    def over() -> dict[str, Any]:
        status = service.status()
        return status if status["stopped_at"] and not status["output_open"] else {}

    return wait_until(over)


def workers_of(service: Service) -> list[int]:
    """Return the pids of the master's live workers: its children in its own session."""
    session = os.getsid(service.pid)
    return [
        member.pid
        for member in snapshot().values()
        if member.ppid == service.pid and member.session == session and member.alive
    ]


def worker_of(service: Service) -> int:
    """Wait until there is exactly one worker and return its pid."""
    return wait_until(lambda: workers[0] if len(workers := workers_of(service)) == 1 else 0)


def record_of(status: dict[str, Any]) -> RunRecord:
    """Return the record on disk of the run with this status object."""
    record = read_record(record_path(status["log_file"]))
    assert record is not None
    return record


def shim_of(status: dict[str, Any]) -> int:
    """Return the pid of the live shim of the run with this status object, once it has written that down."""

    def living() -> int:
        shim = record_of(status).shim
        return shim.pid if shim is not None and runs(shim.pid) else 0

    return wait_until(living)


def runs(pid: int) -> bool:
    """Tell whether a process is alive; a zombie is not."""
    member = read_member(pid)
    return member is not None and member.alive


def send(number: signal.Signals, *pids: int) -> None:
    """Signal processes and wait until that shows: SIGKILL, SIGSTOP and SIGCONT take effect on their own time."""
    for pid in pids:
        os.kill(pid, number)
    for pid in pids:
        if number == signal.SIGKILL:
            wait_until(partial(_is_gone, pid))
        elif number == signal.SIGSTOP:
            wait_until(partial(_is_stopped, pid))


def _is_gone(pid: int) -> bool:
    return not runs(pid)


def _is_stopped(pid: int) -> bool:
    member = read_member(pid)
    return member is not None and member.state == "T"


def kill_shim(service: Service) -> None:
    """Kill the current run's shim and wait, 2 s at the most, until another keeps the run."""
    status = service.status()
    old = shim_of(status)
    send(signal.SIGKILL, old)
    wait_until(lambda: (shim := record_of(status).shim) and shim.pid != old, timeout=2)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Keep a process from doing anything for the time, alive as it is."""
    send(signal.SIGSTOP, pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Request:
    """One request on a thread of its own, so that something can happen to the service in the meantime."""

    def __init__(self, call: Callable[[], Answer]) -> None:
        self._call = call
        self._answer: Answer | None = None
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def answer(self) -> Answer | None:
        """Wait for the end of the request; None when the connection broke."""
        self._thread.join()
        return self._answer

    def _send(self) -> None:
        try:
            self._answer = self._call()
        except (OSError, http.client.HTTPException):
            return
