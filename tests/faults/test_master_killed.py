"""gunicorn's master is killed: its worker goes, the process stays, and the next service takes it over."""

from __future__ import annotations

import os
import signal

from tests.kit.actors import shim_of, worker_of
from tests.kit.counter import assert_whole, start_counter
from tests.kit.processes import alive, send
from tests.kit.services import Services, successor_of
from tests.kit.waiting import wait_until


def test_the_next_service_waits_for_the_old_worker_and_takes_over(serve: Services) -> None:
    """The worker ends by itself, the process goes on, and a service started at once answers for it, no line missing."""
    service = serve()
    pid = start_counter(service, interval=0.001)
    worker = worker_of(service)
    send(signal.SIGKILL, service.pid)
    successor = successor_of(service, serve)
    assert not alive(worker)
    status = successor.status()
    assert (status["status"], status["process_pid"], status["reason"]) == ("running", pid, None)
    assert successor.post("/kill").body["exit_code"] == -15
    assert_whole(successor.content())


def test_an_end_between_two_services_is_known_to_the_next(serve: Services) -> None:
    """The exit code and the last lines of a process that ended while no service ran are told by the next one."""
    service = serve()
    pid = start_counter(service, pause_at=1000, count=2000, exit_code=7)
    shim = shim_of(service.status())
    worker = worker_of(service)
    send(signal.SIGKILL, service.pid)
    wait_until(lambda: not alive(worker))
    os.kill(pid, signal.SIGUSR1)
    wait_until(lambda: not alive(shim))
    successor = successor_of(service, serve)
    status = successor.status()
    assert (status["status"], status["exit_code"], status["reason"]) == ("exited", 7, None)
    assert_whole(successor.content(), 2000)
