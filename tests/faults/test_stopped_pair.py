"""A command that stops its shim, its understudy or both, once or without end, is watched and ended like any other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kit.actors import Request, kill_shim, record_of, shim_of, understudy_of
from tests.kit.counter import assert_whole, go_on, start_counter
from tests.kit.processes import alive, send, stat_fields
from tests.kit.service import Service
from tests.kit.waiting import wait_until

TIMEOUT = 0.5
# Seconds in which /status is answered at any time.
QUICK = 1.0
# The parent of a process, from the fourth field of its stat (proc_pid_stat(5)); no name up there holds a space.
ABOVE = "above() { read -r _ _ _ found _ < /proc/$1/stat; }; above $$; p=$found; above $p; g=$found"
# It stops no process but those that keep it, whoever comes to be its parent.
KEEPERS = 'case "$(cat /proc/$found/comm)" in llm-shell-shim|llm-understudy) kill -STOP $found;; esac'
STOPPERS = {
    "its first parent": "touch begun; while :; do kill -STOP $PPID; done",
    "its parent": f"{ABOVE}; touch begun; while :; do above $$; {KEEPERS}; done",
    "its first parent's parent": f"{ABOVE}; touch begun; while :; do kill -STOP $g; done",
    "both of then": f"{ABOVE}; touch begun; while :; do kill -STOP $p $g; done",
    "both of now": f"{ABOVE}; touch begun; while :; do above $$; p=$found; {KEEPERS}; above $p; {KEEPERS}; done",
}
IGNORING = {f"{name}, ignoring SIGTERM": f"trap '' TERM; {command}" for name, command in STOPPERS.items()}


@pytest.mark.parametrize("command", [*STOPPERS.values(), *IGNORING.values()], ids=[*STOPPERS, *IGNORING])
def test_one_that_stops_its_keepers_without_end_is_ended(service: Service, command: str, tmp_path: Path) -> None:
    """It is gone within the timeout of a /kill and a second, and /status is answered meanwhile."""
    pid = service.start(f"{{ {command}; }} 2>/dev/null", cwd=str(tmp_path))["process_pid"]
    wait_until((tmp_path / "begun").exists)
    began = time.monotonic()
    killing = Request(lambda: service.post(f"/kill?timeout={TIMEOUT}"))
    slowest = 0.0
    while killing.under_way:
        asked = time.monotonic()
        assert service.get("/status").status == 200
        slowest = max(slowest, time.monotonic() - asked)
    took = time.monotonic() - began
    answer = killing.answer()
    assert answer is not None
    assert answer.status == 200, answer.body
    assert (answer.body["status"], answer.body["survivors"]) == ("killed", [])
    assert answer.body["exit_code"] in {-signal.SIGTERM, -signal.SIGKILL}
    assert not alive(pid)
    assert (took < TIMEOUT + 1, slowest < QUICK) == (True, True)
    service.wait_until_alone()


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("find", [shim_of, understudy_of], ids=["shim", "understudy"])
def test_a_signal_to_a_keeper_changes_nothing(
    service: Service, find: Callable[[dict[str, Any]], int], number: signal.Signals
) -> None:
    """Whatever signal but SIGKILL shim or understudy get, the command's output and end are known."""
    pid = start_counter(service, pause_at=100, count=200, exit_code=7)
    os.kill(find(service.status()), number)  # a stopped shim is continued before one could see that
    go_on(pid)
    status = service.wait_for_exit(10)
    assert (status["status"], status["exit_code"]) == ("exited", 7)
    assert_whole(service.content(), 200)
    service.wait_until_alone()


def test_a_stopped_understudy_takes_over(service: Service) -> None:
    """An understudy that was stopped when its shim died is continued, and takes over."""
    pid = start_counter(service, pause_at=100, count=200, exit_code=7)
    status = service.status()
    shim, understudy = shim_of(status), understudy_of(status)
    send(signal.SIGSTOP, understudy)
    send(signal.SIGKILL, shim)
    wait_until(lambda: record_of(status).state.incidents.get("takeovers") == 1, timeout=5)
    assert shim_of(status) == understudy
    go_on(pid)
    assert service.wait_for_exit(10)["exit_code"] == 7
    assert_whole(service.content(), 200)


def test_a_kill_reaches_a_stopped_pair(service: Service) -> None:
    """A /kill ends a command whose shim and understudy are stopped, as SIGTERM ends it."""
    status = service.start("exec sleep 1000")
    send(signal.SIGSTOP, understudy_of(status), shim_of(status))
    began = time.monotonic()
    code, killed = service.post(f"/kill?timeout={TIMEOUT}")
    assert time.monotonic() - began < TIMEOUT + 1
    assert (code, killed["status"], killed["survivors"]) == (200, "killed", [])
    assert killed["exit_code"] in {-signal.SIGTERM, -signal.SIGKILL}
    service.wait_until_alone()


def test_a_stopped_shim_without_an_understudy_goes_on(service: Service) -> None:
    """After a takeover no other process waits for the shim: the service continues it, though nobody calls."""
    pid = start_counter(service, pause_at=1000, count=2000, exit_code=7)
    kill_shim(service)
    send(signal.SIGSTOP, shim := shim_of(service.status()))
    wait_until(lambda: stat_fields(shim)[0] != "T", timeout=3)
    go_on(pid)
    assert service.wait_for_exit(10)["exit_code"] == 7
