"""Who is who in a running service, and requests that wait in the background."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from app.runs.record import RunRecord, read_record, record_path
from tests.kit.leftovers import ZYGOTE
from tests.kit.processes import alive, children, name_of, parent, send
from tests.kit.service import Answer, Service
from tests.kit.waiting import wait_until


def worker_of(service: Service) -> int:
    """Wait until there is exactly one worker and return its pid."""
    return wait_until(lambda: workers[0] if len(workers := service.workers) == 1 else 0)


def record_of(status: dict[str, Any]) -> RunRecord:
    """Return the record on disk of the run with this status object."""
    record = read_record(record_path(status["log_file"]))
    assert record is not None
    return record


def shim_of(status: dict[str, Any]) -> int:
    """Return the pid of the live shim of the run with this status object, once it has written that down."""

    def living() -> int:
        shim = record_of(status).shim
        return shim.pid if shim is not None and alive(shim.pid) else 0

    return wait_until(living)


def understudy_of(status: dict[str, Any]) -> int:
    """Return the pid of the live understudy of the run with this status object: its shim's parent."""
    understudy = parent(shim_of(status))
    assert name_of(understudy) == "llm-understudy"
    return understudy


def zygote_of(worker: int) -> int:
    """Wait until a process that starts runs has exactly one zygote, ready for a start, and return its pid."""

    def only() -> int:
        with suppress(FileNotFoundError, ProcessLookupError):  # one ended while we looked
            found = [child for child in children(worker) if name_of(child) == ZYGOTE]
            return found[0] if len(found) == 1 else 0
        return 0

    return wait_until(only)


def reload(service: Service) -> int:
    """Send SIGHUP, wait until one new worker is left, and return its pid."""
    old = worker_of(service)
    os.kill(service.pid, signal.SIGHUP)
    return wait_until(lambda: now[0] if len(now := service.workers) == 1 and now != [old] else 0, 30)


def kill_shim(service: Service) -> None:
    """Kill the current run's shim and wait, 2 s at the most, until its understudy keeps the run."""
    status = service.status()
    old = shim_of(status)
    send(signal.SIGKILL, old)
    wait_until(lambda: (shim := record_of(status).shim) and shim.pid != old, timeout=2)


def keepers_of(status: dict[str, Any]) -> tuple[int, int]:
    """Return the pids of the understudy and the shim of the run with this status object.

    Killed in this order they leave the run without a keeper: the other way round the understudy could take over.
    """
    return understudy_of(status), shim_of(status)


class Request:
    """One request on a thread of its own, so that something can happen to the service in the meantime."""

    def __init__(self, call: Callable[[], Answer]) -> None:
        self._call = call
        self._answer: Answer | None = None
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    @property
    def under_way(self) -> bool:
        """Tell whether the answer is still awaited."""
        return self._thread.is_alive()

    def answer(self) -> Answer | None:
        """Wait for the end of the request; None when the connection broke."""
        self._thread.join()
        return self._answer

    def _send(self) -> None:
        try:
            self._answer = self._call()
        except (OSError, http.client.HTTPException):
            return
