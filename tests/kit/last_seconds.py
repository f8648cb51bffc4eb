"""Ways for a command to end, with 6, in the last seconds of its service; what the next service says of it."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing
from pathlib import Path

from tests.kit.actors import record_of, worker_of
from tests.kit.processes import alive, send
from tests.kit.service import Service
from tests.kit.services import Services, successor_of
from tests.kit.waiting import wait_until

KEEP = {"LLM_SHELL_ON_SHUTDOWN": "keep"}
LINES = 1_000_000  # more than the buffers of a connection take, so that a reader which has stopped is waited for


def _next(service: Service, serve: Services) -> Service:
    return successor_of(service, serve, "--graceful-timeout", "1", **KEEP)


def spread(tries: int) -> list[float]:
    """Return that many delays from 0.02 to 0.7 s."""
    return [0.02 + 0.68 * number / max(1, tries - 1) for number in range(tries)]


def assert_told(service: Service, run_id: str, status: str) -> None:
    """Fail unless the run with this id is the current one, has ended so, and its code is known."""
    now = service.status()
    assert (now["run_id"], now["status"], now["exit_code"]) == (run_id, status, 6)
    assert service.get(f"/status?run_id={run_id}").body == now


def end_after_the_masters_death(service: Service, serve: Services, delay: float) -> Service:
    """Kill the master `delay` seconds before the command ends; return the next service, which must know the code."""
    worker = worker_of(service)
    status = service.start(f"sleep {delay}; exit 6")
    send(signal.SIGKILL, service.pid)
    wait_until(lambda: record_of(status).state.ended and not alive(worker))
    successor = _next(service, serve)
    assert_told(successor, status["run_id"], "exited")
    return successor


def end_after_a_stop_that_keeps(service: Service, serve: Services, delay: float) -> Service:
    """Stop a service that keeps its command `delay` seconds before that ends; return the next, as above."""
    status = service.start(f"sleep {delay}; exit 6")
    assert service.stop() == 0
    wait_until(lambda: record_of(status).state.ended)
    successor = _next(service, serve)
    assert_told(successor, status["run_id"], "exited")
    return successor


def end_while_a_reader_holds_up_the_stop(service: Service, serve: Services, folder: Path) -> Service:
    """Let the command end while a reader of /logs that has stopped reading holds the worker; return the next."""
    go = folder / "go"
    go.unlink(missing_ok=True)
    status = service.start(f"seq {LINES}; until [ -e {go} ]; do sleep 0.02; done; exit 6")
    wait_until(lambda: service.content("?lines=1") == str(LINES))
    worker = worker_of(service)
    with closing(slow_reader(service)):
        os.kill(service.pid, signal.SIGTERM)
        wait_until(lambda: "Handling signal: term" in service.text)
        go.touch()
        wait_until(lambda: record_of(status).state.ended)
        assert alive(worker)
        assert service.wait() == 0
    successor = _next(service, serve)
    assert_told(successor, status["run_id"], "exited")
    return successor


def slow_reader(service: Service) -> socket.socket:
    """Return a connection on which all of the log was asked for and only the answer's beginning is read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", service.port))
    connection.sendall(b"GET /logs HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection
