"""The service is stopped: the tree goes with it or is kept, as the operator chose, and nothing is left half-done."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.kit.actors import Request, record_of, shim_of, worker_of
from tests.kit.counter import assert_whole, start_counter
from tests.kit.places import PROGRAMS
from tests.kit.processes import alive, descendants
from tests.kit.service import Service
from tests.kit.services import Services, successor_of
from tests.kit.waiting import wait_until

DAEMON = f"{sys.executable} {PROGRAMS / 'daemon.py'}"
STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]


@pytest.mark.parametrize("number", STOPS)
def test_stop_ends_the_tree(serve: Services, number: signal.Signals) -> None:
    """When the master has exited the whole tree is gone, what had escaped from it included, and so is all of ours."""
    service = serve()
    service.start(["exec", sys.executable, PROGRAMS / "nest.py"])
    service.wait_for_output("ready")
    shim = shim_of(service.status())
    everybody = {worker_of(service), shim, *filter(alive, descendants(shim))}
    assert len(everybody) == 9
    assert service.stop(number) == 0
    assert not any(alive(pid) for pid in everybody)


@pytest.mark.parametrize("number", STOPS)
def test_a_stop_says_what_it_waits_for(serve: Services, number: signal.Signals) -> None:
    """While a command does not end by SIGTERM one line tells that the stop waits for it, and how long."""
    service = serve()
    pid = service.start([sys.executable, PROGRAMS / "stubborn.py"])["process_pid"]
    service.wait_for_output("ready")
    began = time.monotonic()
    os.kill(service.pid, number)
    wait_until(lambda: "Waiting up to 5 s" in service.text)
    assert time.monotonic() - began < 2
    assert service.wait(timeout=9) == 0
    assert re.findall(r"Waiting .*", service.text) == [f"Waiting up to 5 s for the command to end (pid {pid})."]


def test_a_stop_says_what_leftovers_it_waits_for(serve: Services) -> None:
    """The same for what a command left behind."""
    service = serve()
    service.start(f"{sys.executable} {PROGRAMS / 'stubborn.py'} & true")
    service.wait_for_output("ready")
    [pid] = wait_until(lambda: service.status()["leftover_pids"])
    os.kill(service.pid, signal.SIGINT)
    assert service.wait(timeout=9) == 0
    [line] = re.findall(r"Waiting .*", service.text)
    assert line.startswith(f"Waiting up to 5 s for the command's leftovers to end: {pid} (")


def test_a_stop_of_what_ends_at_once_says_no_more(serve: Services) -> None:
    """A command that ends by SIGTERM is not waited for, and nothing is said of it."""
    service = serve()
    service.start("exec sleep 1000")
    assert service.stop(signal.SIGINT) == 0
    assert "Waiting" not in service.text


def test_keep_leaves_the_process_to_the_next_service(serve: Services) -> None:
    """With ON_SHUTDOWN=keep the process outlives any stop, its output has no hole, and the next service has it."""
    service = serve(settings={"LLM_SHELL_ON_SHUTDOWN": "keep"})
    first = service
    pid = start_counter(service, interval=0.001)
    for number in STOPS:
        assert service.stop(number) == 0
        assert alive(pid)
        service = successor_of(first, serve, LLM_SHELL_ON_SHUTDOWN="keep")
        status = service.status()
        assert (status["process_pid"], status["reason"]) == (pid, None)
    assert service.post("/kill").body["exit_code"] == -15
    assert_whole(service.content())


@pytest.mark.parametrize(
    ("number", "path", "body", "code"),
    [
        (signal.SIGTERM, "/kill?timeout=600", None, 200),
        (signal.SIGTERM, "/restart?timeout=600", None, 409),
        (signal.SIGTERM, "/start", {"command": "exec sleep 1000", "replace": True}, 409),
        (signal.SIGINT, "/restart?timeout=600", None, None),
        (signal.SIGQUIT, "/restart?timeout=600", None, None),
    ],
)
def test_stop_overtakes_an_operation(
    serve: Services, number: signal.Signals, path: str, body: dict[str, object] | None, code: int | None
) -> None:
    """A stop does not wait for the grace of an operation under way, and nothing is started after it.

    SIGTERM lets the caller have his answer, SIGINT and SIGQUIT do not.
    """
    service = serve()
    pid = start_counter(service, stubborn=True, pause_at=100, count=200, exit_code=5)
    status = service.status()
    request = Request(lambda: service.post(path, body))
    wait_until(lambda: service.status()["reason"])
    os.kill(service.pid, number)
    wait_until(lambda: record_of(status).state.killed_by == "shutdown")
    os.kill(pid, signal.SIGUSR1)  # it ends within its grace
    assert service.wait(timeout=5) == 0
    answer = request.answer()
    assert (answer.status if answer is not None else None) == code
    assert record_of(status).state.exit_code == 5
    assert len(list(service.log_dir.glob("*.json"))) == 1


def test_stop_overtakes_a_start_that_waits_for_leftovers(serve: Services) -> None:
    """A stop ends the leftovers that a start is waiting for, and nothing is started in their place."""
    service = serve()
    service.start("sleep 1000 & exit 4")
    (leftover,) = wait_until(lambda: service.status()["leftover_pids"])
    request = Request(lambda: service.post("/start", {"command": "exec sleep 1000"}))
    wait_until(lambda: is_locked(service.log_dir / ".lock"))
    assert service.status()["leftover_pids"] == [leftover]
    assert service.stop() == 0
    answer = request.answer()
    assert answer is not None
    assert (answer.status, "cancelled" in answer.body["detail"]) == (409, True)
    assert not alive(leftover)
    assert len(list(service.log_dir.glob("*.json"))) == 1


def is_locked(path: Path) -> bool:
    """Tell whether anybody has a lock on this file (proc_locks(5))."""
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(fields[-3].endswith(f":{path.stat().st_ino}") for fields in locks)


def test_a_stop_that_keeps_does_not_wait_for_a_restart(serve: Services) -> None:
    """A service that keeps its process ends in its graceful timeout although a /restart gives far more.

    The grace that was begun is kept to by the shim, the next service tells how it ended, and nothing is started.
    """
    service = serve("--graceful-timeout", "1", settings={"LLM_SHELL_ON_SHUTDOWN": "keep"})
    pid = start_counter(service, stubborn=True, pause_at=100, count=200, exit_code=5)
    request = Request(lambda: service.post("/restart?timeout=600"))
    wait_until(lambda: service.status()["reason"])
    os.kill(service.pid, signal.SIGTERM)
    assert service.wait(timeout=5) == 0
    assert request.answer() is None
    successor = successor_of(service, serve)
    status = successor.status()
    assert (status["status"], status["process_pid"]) == ("running", pid)
    assert status["reason"] == "It was asked to end and is still alive."
    os.kill(pid, signal.SIGUSR1)
    status = successor.wait_for_exit()
    assert (status["status"], status["exit_code"], status["reason"]) == ("killed", 5, "Ended by /restart.")
    assert_whole(successor.content(), 200)
    assert len(list(service.log_dir.glob("*.json"))) == 1


def leave_two_daemons(service: Service) -> list[tuple[str, int]]:
    """Run two commands that leave a daemon each; return run id and daemon of both."""
    left = []
    for _ in range(2):
        service.start(DAEMON)
        run_id = service.wait_for_exit()["run_id"]
        left.append((run_id, int(service.content())))
    return left


def test_a_stop_ends_daemons_of_all_runs(serve: Services) -> None:
    """A stop ends what the last run left as a daemon, and what a past run did."""
    service = serve()
    left = leave_two_daemons(service)
    assert all(alive(pid) for _run_id, pid in left)
    assert service.stop() == 0
    assert not any(alive(pid) for _run_id, pid in left)


def test_a_stop_says_that_it_waits_for_a_daemon(serve: Services) -> None:
    """A daemon that does not end by SIGTERM is named while the stop waits for it."""
    service = serve()
    service.start(f"{DAEMON} stubborn")
    service.wait_for_exit()
    pid = int(service.content())
    os.kill(service.pid, signal.SIGINT)
    assert service.wait(timeout=9) == 0
    assert f"Waiting up to 5 s for the command's daemons to end: {pid} (" in service.text
    assert not alive(pid)


def test_keep_leaves_daemons_to_the_next_service(serve: Services) -> None:
    """With ON_SHUTDOWN=keep daemons go on, the next service tells of them truly, and starts beside them."""
    service = serve(settings={"LLM_SHELL_ON_SHUTDOWN": "keep"})
    left = leave_two_daemons(service)
    assert service.stop() == 0
    successor = successor_of(service, serve)
    for run_id, pid in left:
        assert [one["pid"] for one in successor.get(f"/status?run_id={run_id}").body["daemons"]] == [pid]
    assert successor.status()["run_id"] == left[1][0]
    assert successor.start("exec sleep 1000")["status"] == "running"
    assert all(alive(pid) for _run_id, pid in left)
    assert successor.stop() == 0
    assert not any(alive(pid) for _run_id, pid in left)
