"""A machine that gives no descriptor or process more is told of, and nothing half-made is left."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit.actors import worker_of
from tests.kit.counter import assert_whole, start_counter
from tests.kit.machine import AS_LONELY_USER, LONELY_USER, limited, tasks_of
from tests.kit.network import connections_to
from tests.kit.processes import descriptors_of, send
from tests.kit.requiring import require
from tests.kit.service import GUNICORN, Answer, Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until

# The descriptors of one request: its connection.
A_REQUEST = 1
# More than a start takes; by then it must have worked.
ENOUGH = 40
THREADS = 4
# Processes and threads that may be counted before a start, and are gone when it needs one.
FREED = 3


@contextmanager
def descriptors_left(service: Service, more: int) -> Iterator[None]:
    """Let the worker open only so many descriptors more; each takes the lowest free number (open(2))."""
    wait_until(lambda: not connections_to(service.port))
    worker = worker_of(service)
    taken, limit = descriptors_of(worker).keys(), 0
    while more:
        more -= limit not in taken
        limit += 1
    with limited(worker, resource.RLIMIT_NOFILE, limit):
        yield


def files_of(service: Service) -> list[Path]:
    """Return everything in the log directory."""
    return sorted(service.log_dir.iterdir())


def assert_quotes(answer: Answer, words: str) -> None:
    """Fail unless this is a problem that quotes the system."""
    assert answer.status == 500
    assert words in answer.body["detail"], answer.body
    assert answer.body["title"] == "Internal Server Error"


@pytest.fixture
def ended_run(service: Service) -> dict[str, Any]:
    """Return the status of a run that has ended: what a failed start must leave as it was."""
    service.start("echo before; exit 3")
    status = service.wait_for_exit()
    service.wait_until_alone()
    return status


@pytest.mark.parametrize(("zygote", "least"), [(signal.SIGSTOP, 5), (signal.SIGCONT, 3)])
def test_a_start_without_descriptors_fails_whole(
    service: Service, ended_run: dict[str, Any], zygote: signal.Signals, least: int
) -> None:
    """However many descriptors are missing, a start works or is a 500 that says so; the last run stays untouched.

    That holds with a zygote that waits for starts, and with one that was stopped.
    """
    wait_until(lambda: service.zygotes)
    files = files_of(service)
    for more in range(A_REQUEST, ENOUGH):
        send(zygote, *service.zygotes)
        with descriptors_left(service, more):
            answer = service.post("/start", {"command": "echo again"})
        if answer.status == 201:
            break
        assert_quotes(answer, "Too many open files")
        assert files_of(service) == files
        service.wait_until_alone()
        assert service.status() == ended_run
    assert more > A_REQUEST + least
    assert answer.status == 201
    assert service.wait_for_exit()["exit_code"] == 0
    assert service.content() == "again"


def test_a_log_that_can_not_be_opened_is_told(service: Service, ended_run: dict[str, Any]) -> None:
    """Reading without a descriptor to spare is a 500 in the system's words, and works again with one."""
    for query in ("", "?lines=1", f"?run_id={ended_run['run_id']}"):
        with descriptors_left(service, A_REQUEST):
            assert_quotes(service.get(f"/logs{query}"), "Too many open files")
        assert service.content(query) == "before"


def test_a_tree_is_ended_without_descriptors(service: Service) -> None:
    """A worker that can open nothing more still knows what runs, and /kill ends all of it."""
    service.start("sleep 1000 & exec sleep 1000")
    with descriptors_left(service, A_REQUEST):
        assert service.get("/health").status == 200
    with descriptors_left(service, A_REQUEST):
        assert service.status()["status"] == "running"
    with descriptors_left(service, A_REQUEST):
        answer = service.post("/kill")
    assert (answer.status, answer.body["exit_code"], answer.body["survivors"]) == (200, -15, [])


def test_more_connections_than_descriptors_end_nothing(service: Service) -> None:
    """However many clients hold on to connections, the process goes on and the service answers once they are gone."""
    pid = start_counter(service, interval=0.01)
    with descriptors_left(service, 20), ExitStack() as clients:
        for _ in range(40):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", service.port)))
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_until(service.answers)
    assert service.status()["process_pid"] == pid
    status, killed = service.post("/kill")
    assert (status, killed["exit_code"]) == (200, -15)
    assert_whole(service.content())


@pytest.fixture
def lonely_service(serve: Services, tmp_path: Path) -> Service:
    """Return a service of a user whom RLIMIT_NPROC binds and who has no other process."""
    require(os.geteuid() == 0 and shutil.which("setpriv"), "the right, and setpriv, to become another user")
    logs = tmp_path / "logs"
    logs.mkdir()
    os.chown(logs, LONELY_USER, LONELY_USER)
    # With root's way into files, since the interpreter may lie in root's home.
    rights = [f"--{kind}-caps=+dac_override" for kind in ("inh", "ambient")]
    settings = {"LLM_SHELL_LOG_DIR": str(logs), "LLM_SHELL_THREADS": str(THREADS)}
    return serve(command=[*AS_LONELY_USER, *rights, *GUNICORN, "wsgi:app"], cwd=Path("/"), settings=settings)


@contextmanager
def processes_left(service: Service, more: int) -> Iterator[None]:
    """Let worker and zygote make only so many processes and threads more; only their user may say so (prlimit(2))."""
    who = [worker_of(service), *service.zygotes]
    limit_processes(who, tasks_of(LONELY_USER) + more)
    yield
    limit_processes(who, 1000)


def limit_processes(pids: list[int], most: int) -> None:
    """Limit how many processes and threads the user of these may have."""
    for pid in pids:
        subprocess.run([*AS_LONELY_USER, "prlimit", f"--pid={pid}", f"--nproc={most}:"], check=True)


@pytest.mark.parametrize("zygote", [signal.SIGCONT, signal.SIGKILL])
def test_a_start_without_processes_fails_whole(lonely_service: Service, zygote: signal.Signals) -> None:
    """However many processes and threads are missing, a start works or is a 500 that says so; nothing is left of it.

    That holds with a zygote that waits for starts, and where it was killed, and the start needs another.
    """
    service = lonely_service
    service.start("echo before; exit 3")
    before = service.wait_for_exit()
    service.wait_until_alone()
    worker, files = worker_of(service), files_of(service)
    for more in range(-FREED, ENOUGH):
        send(zygote, *service.zygotes)
        with processes_left(service, more):
            answer = service.post("/start", {"command": "echo again"})
        if answer.status == 201:
            break
        assert_quotes(answer, "Resource temporarily unavailable")
        service.wait_until_alone()
        assert files_of(service) == files
        assert service.status() == before
    assert more > -FREED + 1
    assert answer.status == 201
    assert service.wait_for_exit()["exit_code"] == 0
    assert service.content() == "again"
    assert worker_of(service) == worker
