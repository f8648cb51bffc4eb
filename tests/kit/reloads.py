"""A reload in whose course the shim is killed, and what its command must not notice of that."""

from __future__ import annotations

import os
import signal
import time

from tests.kit.actors import record_of, shim_of, worker_of
from tests.kit.counter import assert_whole, go_on, start_counter
from tests.kit.pairs import numbers_lost
from tests.kit.processes import send
from tests.kit.service import Service
from tests.kit.waiting import wait_until

# A number each millisecond: of what a shim has read it writes all at once.
MOST_LOST = 250


def lose_shim_at_reload(service: Service, delay: float) -> None:
    """Send SIGHUP, kill the run's shim `delay` seconds later, and wait until the reload and the takeover are over."""
    status, old = service.status(), worker_of(service)
    shim = shim_of(status)
    os.kill(service.pid, signal.SIGHUP)
    time.sleep(delay)  # no state to wait for: the moments of a reload themselves are under test
    send(signal.SIGKILL, shim)
    wait_until(lambda: len(now := service.workers) == 1 and now != [old], 30)
    wait_until(lambda: record_of(status).state.incidents.get("takeovers") == 1, timeout=5)


def waiting_command_goes_on(service: Service, delay: float) -> None:
    """Check that a command which prints nothing meanwhile loses nothing, and that its end is known."""
    pid = start_counter(service, pause_at=100, count=200, exit_code=7)
    lose_shim_at_reload(service, delay)
    assert service.status()["process_pid"] == pid
    go_on(pid)
    status = service.wait_for_exit(10)
    assert (status["status"], status["exit_code"]) == ("exited", 7)
    assert_whole(service.content(), 200)


def printing_command_goes_on(service: Service, delay: float) -> None:
    """Check that a command which prints all the time goes on, and loses what its dead shim had read at the most."""
    pid = start_counter(service, interval=0.001)
    lose_shim_at_reload(service, delay)
    status = service.status()
    assert (status["status"], status["process_pid"]) == ("running", pid)
    before = service.get("/logs?lines=1").body["total_lines"]
    wait_until(lambda: service.get("/logs?lines=1").body["total_lines"] > before)
    assert service.post("/kill").body["exit_code"] == -15
    gaps = numbers_lost(service.content())
    assert len(gaps) <= 1
    assert sum(gaps) <= MOST_LOST
