"""A start beside leftovers: it waits for them to go by themselves, and tells shortly who does not."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from app.exceptions import ConflictError
from app.supervisor.manager import ProcessManager
from app.supervisor.process import LEFTOVER_TIMEOUT
from app.supervisor.run import Run
from tests.kit.output import printed
from tests.kit.processes import alive, send
from tests.kit.waiting import ended, wait_until

STAYS = "sleep 1000 & echo $!; exit 4"
# Takes a name and arguments that would break a line, a terminal or a reader's eyes.
HOSTILE = """
import sys, time
with open("/proc/self/comm", "w") as comm:
    comm.write("a\\n\\x1b[1mb")
print("ready", flush=True)
time.sleep(1000)
"""


class Starting:
    """A start on a thread of its own, and what came of it."""

    def __init__(self, start: Callable[[], dict[str, Any]]) -> None:
        self.status: dict[str, Any] | None = None
        self.refusal: ConflictError | None = None
        self.seconds = 0.0
        self._start = start
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def waits(self) -> bool:
        """Tell whether it has come to the wait for leftovers, which nothing outside of it shows."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        while frame is not None and frame.f_code is not Run.wait_until_over.__code__:
            frame = frame.f_back
        return frame is not None

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            self.status = self._start()
        except ConflictError as error:
            self.refusal = error
        self.seconds = time.monotonic() - began


def starting_beside(pm: ProcessManager, command: str) -> Starting:
    """Run a command that leaves something behind, and begin another start once it has ended."""
    pm.start(command)
    ended(pm.get_status)
    starting = Starting(lambda: pm.start("echo new"))
    wait_until(starting.waits)
    return starting


def test_leftovers_that_go_by_themselves_are_waited_for(pm: ProcessManager) -> None:
    """A start during a leftover's last moments comes as soon as that has gone, and not only after the whole wait."""
    starting = starting_beside(pm, STAYS)
    (leftover,) = pm.get_status()["leftover_pids"]
    os.kill(leftover, signal.SIGKILL)
    starting.join()
    assert starting.status is not None
    assert starting.status["status"] == "running"
    assert starting.seconds < LEFTOVER_TIMEOUT


def test_leftovers_that_stay_are_told_after_the_wait(pm: ProcessManager) -> None:
    """A start that waited in vain is refused with who is in the way; the leftover lives on, and /kill ends it."""
    starting = starting_beside(pm, STAYS)
    (leftover,) = pm.get_status()["leftover_pids"]
    starting.join()
    assert starting.refusal is not None
    assert LEFTOVER_TIMEOUT <= starting.seconds < LEFTOVER_TIMEOUT + 1
    assert starting.refusal.extra["leftovers"] == [{"pid": leftover, "name": "sleep", "command_line": "sleep 1000"}]
    assert starting.refusal.extra["more"] == 0
    assert f"{leftover} (sleep). Call /kill" in starting.refusal.detail
    assert alive(leftover)
    assert pm.kill()["survivors"] == []


def test_a_kill_gets_through_to_leftovers_and_cancels_the_start(pm: ProcessManager) -> None:
    """A /kill while a start waits ends the leftovers at once; nothing is started after it, and the caller is told."""
    starting = starting_beside(pm, STAYS)
    assert (pm.get_status()["status"], pm.kill()["status"]) == ("exited", "exited")
    starting.join()
    assert starting.seconds < LEFTOVER_TIMEOUT
    assert starting.refusal is not None
    assert "cancelled" in starting.refusal.detail
    assert pm.get_status()["exit_code"] == 4


def test_a_stop_overtakes_a_start_that_waits(pm: ProcessManager) -> None:
    """The service's stop ends the leftovers and with them the wait, and nothing is started."""
    starting = starting_beside(pm, STAYS)
    pm.shut_down(0.0)
    starting.join()
    assert starting.refusal is not None
    assert "cancelled" in starting.refusal.detail


def test_an_earlier_kill_cancels_nothing(pm: ProcessManager) -> None:
    """A start after a /kill that is over starts, also when that /kill was for what the same run had left behind."""
    pm.start(STAYS)
    ended(pm.get_status)
    pm.kill("SIGKILL")
    assert pm.start("echo new")["status"] == "running"


def test_a_running_process_is_not_waited_for(pm: ProcessManager) -> None:
    """A start beside a process that runs is refused at once, and so is one beside another that waits."""
    pm.start("exec sleep 1000")
    began = time.monotonic()
    with pytest.raises(ConflictError, match="already running"):
        pm.start("true")
    assert time.monotonic() - began < 1
    pm.kill("SIGKILL")
    starting = starting_beside(pm, STAYS)
    with pytest.raises(ConflictError, match=r"Another operation \(start\)"):
        pm.start("true")
    pm.kill("SIGKILL")
    starting.join()


def test_a_start_waits_on_when_the_shim_dies(pm: ProcessManager) -> None:
    """A shim that is killed while a start waits for its leftovers is replaced, and the start comes when they go."""
    starting = starting_beside(pm, STAYS)
    (leftover,) = pm.get_status()["leftover_pids"]
    current = pm._get("default").current()
    record = current.record if current is not None else None
    assert record is not None
    assert record.shim is not None
    send(signal.SIGKILL, record.shim.pid)
    os.kill(leftover, signal.SIGKILL)
    starting.join()
    assert starting.status is not None


def test_many_leftovers_are_told_shortly(pm: ProcessManager) -> None:
    """Of 40 leftovers with command lines of 3.5 KB five are named by 80 characters each, and the others counted."""
    pm.start("numbers=$(seq -s ' ' 1000 1700); for i in $(seq 40); do sleep $numbers & done; exit 4")
    ended(pm.get_status)
    leftovers = wait_until(lambda: len(found := pm.get_status()["leftover_pids"]) == 40 and found)
    with pytest.raises(ConflictError) as caught:
        pm.start("true")
    told = {"detail": caught.value.detail, **caught.value.extra}
    assert len(json.dumps(told)) < 1500
    named = caught.value.extra["leftovers"]
    assert isinstance(named, list)
    assert [left["pid"] for left in named] == leftovers[:5]
    assert {left["name"] for left in named} == {"sleep"}
    assert {len(left["command_line"]) for left in named} == {80}
    assert caught.value.extra["more"] == 35
    assert caught.value.detail.count("(sleep)") == 5
    assert "and 35 more. Call /kill" in caught.value.detail
    assert pm.kill("SIGKILL")["survivors"] == []


def test_what_a_leftover_calls_itself_does_no_harm(pm: ProcessManager) -> None:
    """Newlines, terminal sequences and changes of direction in a name or in arguments are told as escapes."""
    words = [sys.executable, "-c", HOSTILE, "ignore\nall\u202eprevious"]
    pm.start(f"{shlex.join(words)} & exit 4")
    printed(pm, "ready")
    ended(pm.get_status)
    with pytest.raises(ConflictError) as caught:
        pm.start("true")
    assert caught.value.detail.isprintable()
    assert r"(a\n\x1b[1mb)" in caught.value.detail
    named = caught.value.extra["leftovers"]
    assert isinstance(named, list)
    assert [left["name"] for left in named] == [r"a\n\x1b[1mb"]
    assert all(left["command_line"].isprintable() for left in named)
    pm.kill("SIGKILL")
