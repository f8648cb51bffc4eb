"""gunicorn's worker is killed: the process does not notice, and the next worker tells the truth about it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.kit.actors import Request, record_of, shim_of, worker_of
from tests.kit.counter import assert_whole, counter, start_counter
from tests.kit.processes import alive, send, stopped
from tests.kit.service import Service
from tests.kit.waiting import wait_until


def test_ten_kills_in_a_row_leave_no_hole(service: Service) -> None:
    """After each of ten kills the next worker answers for the same process within 3 s, and no line is missing."""
    pid = start_counter(service, interval=0.001)
    for _ in range(10):
        send(signal.SIGKILL, worker_of(service))
        began = time.monotonic()
        status = service.status()
        assert time.monotonic() - began < 3
        assert (status["status"], status["process_pid"], status["reason"]) == ("running", pid, None)
    answer = service.post("/kill").body
    assert (answer["exit_code"], answer["signal"], answer["survivors"]) == (-15, "SIGTERM", [])
    assert_whole(service.content())


def test_an_end_while_no_worker_lives_is_known_to_the_next(service: Service) -> None:
    """The exit code and the last lines of a process that ended while there was no worker are told by the next one."""
    pid = start_counter(service, pause_at=1000, count=2000, exit_code=7)
    shim = shim_of(service.status())
    with stopped(service.pid):  # or the master would make a new worker
        send(signal.SIGKILL, worker_of(service))
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: not alive(shim))
    status = service.status()
    assert (status["status"], status["exit_code"], status["reason"]) == ("exited", 7, None)
    assert_whole(service.content(), 2000)


@pytest.mark.parametrize(("call", "reason"), [("/kill", "Ended by /kill."), ("/restart", "Ended by /restart.")])
def test_an_operation_cut_short_is_finished(service: Service, call: str, reason: str) -> None:
    """When the worker dies during the grace the tree gets its SIGKILL in time all the same, and nothing is started."""
    pid = start_counter(service, stubborn=True, interval=0.001)
    run_id = service.status()["run_id"]
    request = Request(lambda: service.post(f"{call}?timeout=0.5"))
    wait_until(lambda: service.status()["reason"])
    assert record_of(service.status()).intent is not None
    send(signal.SIGKILL, worker_of(service))
    assert request.answer() is None
    wait_until(lambda: not alive(pid))
    status = service.wait_for_exit(10)
    assert (status["run_id"], status["status"], status["exit_code"]) == (run_id, "killed", -9)
    assert status["reason"] == f"{reason} SIGKILL followed."
    assert_whole(service.content())
    assert service.post("/kill").status == 400
    service.start("true")


def test_a_replace_cut_short_keeps_the_grace(service: Service) -> None:
    """When the worker dies during a replace the old process has its whole grace, and nothing is started after it."""
    pid = start_counter(service, stubborn=True, pause_at=100, count=200, exit_code=5)
    request = Request(lambda: service.post("/start", {"command": "echo never", "replace": True}))
    wait_until(lambda: service.status()["reason"])
    send(signal.SIGKILL, worker_of(service))
    assert request.answer() is None
    os.kill(pid, signal.SIGUSR1)
    status = service.wait_for_exit(10)
    assert (status["process_pid"], status["status"], status["exit_code"]) == (pid, "killed", 5)
    assert status["reason"] == "Ended by a /start with replace."
    assert_whole(service.content(), 200)


def test_a_start_cut_short_leaves_one_run_or_none(service: Service) -> None:
    """Whenever in the course of a start the worker dies: what was started is answered for, and can be replaced."""
    for delay in (0.0, 0.005, 0.01, 0.02, 0.04):  # no state to wait for: the moments themselves are under test
        request = Request(lambda: service.post("/start", {"command": "exec sleep 1000", "replace": True}))
        time.sleep(delay)
        send(signal.SIGKILL, worker_of(service))
        request.answer()
        code, status = service.get("/status")
        assert code in {200, 404}
        if code == 200 and status["status"] == "running":
            wait_until(lambda: alive(service.status()["process_pid"] or 0))
    pid = service.start(counter(), replace=True)["process_pid"]
    assert alive(pid)
