"""A fork bomb takes every process and thread that there is: the service needs none, and ends it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.actors import record_of, shim_of, worker_of
from tests.kit.machine import AS_LONELY_USER, LONELY_USER, tasks_of
from tests.kit.places import PROGRAMS
from tests.kit.processes import alive, send
from tests.kit.requiring import require
from tests.kit.service import GUNICORN, Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until

MOST = 60
CALLS = 20
FIELDS = {"exit_code", "signal", "escalated", "survivors"}


@pytest.fixture
def service(serve: Services, tmp_path: Path) -> Iterator[Service]:
    """Return a service of a user who may have 60 processes and threads in all."""
    require(os.geteuid() == 0, "the right to become an unprivileged user, whom RLIMIT_NPROC binds")
    logs = tmp_path / "logs"
    logs.mkdir()
    os.chown(logs, LONELY_USER, LONELY_USER)
    rights = [f"--{kind}-caps=+dac_override" for kind in ("inh", "ambient")]  # the interpreter may lie in root's home
    command = ["prlimit", f"--nproc={MOST}", *AS_LONELY_USER, *rights, *GUNICORN, "wsgi:app"]
    yield serve(command=command, cwd=Path("/"), settings={"LLM_SHELL_LOG_DIR": str(logs), "LLM_SHELL_THREADS": "4"})
    wait_until(lambda: tasks_of(LONELY_USER) < MOST // 2)


def start_bomb(service: Service) -> None:
    """Start a bomb and wait until it has all that there is."""
    service.start(["exec", sys.executable, PROGRAMS / "bomb.py", str(MOST)])
    wait_until(lambda: tasks_of(LONELY_USER) >= MOST - 1)


def kill(service: Service) -> None:
    """End the bomb."""
    status, killed = service.post("/kill?timeout=0.2")
    assert status == 200, killed
    assert {field: killed[field] for field in FIELDS} == {
        "exit_code": -9,
        "signal": "SIGKILL",
        "escalated": True,
        "survivors": [],
    }
    service.wait_until_alone()


def test_calls_need_no_thread(service: Service) -> None:
    """Under a bomb a worker answers many calls at once, goes on living, and ends the bomb."""
    worker = worker_of(service)
    start_bomb(service)
    with ThreadPoolExecutor(CALLS) as pool:
        answers = list(pool.map(service.get, ["/status", "/health"] * CALLS))
    assert {answer.status for answer in answers} == {200}
    kill(service)
    assert worker_of(service) == worker


def test_a_takeover_needs_no_thread_and_no_process(service: Service) -> None:
    """Under a bomb the shim may be killed: its understudy is there already, and a /kill ends the bomb."""
    worker = worker_of(service)
    for _ in range(3):
        start_bomb(service)
        status = service.status()
        shim = shim_of(status)
        send(signal.SIGKILL, shim)
        kill(service)
        assert record_of(status).state.ended
        assert worker_of(service) == worker


@contextmanager
def no_worker(service: Service) -> Iterator[None]:
    """Kill the worker under a bomb, and go on when there is none, or another."""
    worker = worker_of(service)
    send(signal.SIGKILL, worker)
    wait_until(lambda: "No worker can be made" in service.text or service.text.count("Booting worker") > 1)
    yield
    assert not alive(worker)


def test_a_stop_needs_no_thread_and_no_process(service: Service) -> None:
    """Under a bomb that has eaten the worker's place too, the master ends the bomb when it is told to stop."""
    start_bomb(service)
    process = service.status()["process_pid"]
    with no_worker(service):
        assert service.stop() == 0
    assert not alive(process)
