"""Where the machine gives neither process nor thread, a run is answered for and ended all the same."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NoReturn

import pytest

from app.runs.record import read_record, record_path
from app.supervisor.process import ProcessManager
from app.supervisor.run import Run
from tests.kit.actors import shim_of
from tests.kit.output import content, printed
from tests.kit.places import PROGRAMS
from tests.kit.processes import alive, descendants, send
from tests.kit.waiting import ended, wait_until

STUBBORN = f"exec {sys.executable} {PROGRAMS / 'stubborn.py'}"


def refuse(*_: Any) -> NoReturn:
    """Give no process."""
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _reap() -> bool:
    """Reap a child that ended, if there is one; tell whether no zombie is left."""
    with suppress(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    return not any(name.endswith("(Z)") for name in descendants().values())


@pytest.fixture(autouse=True)
def _reaped() -> Iterator[None]:
    """Reap in the end what was orphaned and came to this process; under gunicorn the worker does that."""
    yield
    wait_until(_reap)


@pytest.fixture
def no_shim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no shim be had for one that died."""
    monkeypatch.setattr("app.supervisor.run_connection.launch_takeover", refuse)


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no thread be had for watching a run."""
    monkeypatch.setattr(Run, "_ensure_watcher", lambda _self: None)


@pytest.mark.usefixtures("no_shim")
def test_a_tree_is_ended_without_a_shim(pm: ProcessManager) -> None:
    """A /kill ends a tree whose shim died and has no other: with its grace, its exit code, and all that it printed."""
    pid = pm.start("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.02; done")["process_pid"]
    printed(pm, "ready")
    send(signal.SIGKILL, shim_of(pm.get_status()))
    killed = pm.kill(timeout=5.0)
    assert (killed["status"], killed["exit_code"], killed["escalated"], killed["survivors"]) == ("killed", 3, False, [])
    assert not alive(pid)
    assert content(pm).startswith("ready\n")
    assert content(pm).endswith("\nbye")
    record = read_record(record_path(pm.get_status()["log_file"]))
    assert record is not None
    assert record.state.ended


@pytest.mark.usefixtures("no_shim")
def test_a_second_kill_joins_and_escalates(pm: ProcessManager) -> None:
    """A SIGKILL meanwhile overtakes the grace, as it does with a shim."""
    pm.start(STUBBORN)
    printed(pm, "ready")
    send(signal.SIGKILL, shim_of(pm.get_status()))
    answers: list[dict[str, Any]] = []
    patient = threading.Thread(target=lambda: answers.append(pm.kill(timeout=60.0)))
    patient.start()
    printed(pm, "SIGTERM")
    assert pm.kill("SIGKILL")["exit_code"] == -9
    patient.join(5)
    assert answers[0]["escalated"]


@pytest.mark.usefixtures("no_thread")
def test_a_run_is_watched_by_who_asks(pm: ProcessManager) -> None:
    """Without a thread for it a run's output, end and exit code are known to whoever asks."""
    pm.start("echo ready; sleep 0.1; exit 4")
    assert ended(pm.get_status)["exit_code"] == 4
    assert content(pm) == "ready"


@pytest.mark.usefixtures("no_thread")
def test_a_takeover_is_made_by_who_asks(pm: ProcessManager) -> None:
    """Without a thread for it a dead shim is replaced when somebody asks, and the run goes on."""
    pid = pm.start("echo ready; exec sleep 1000")["process_pid"]
    printed(pm, "ready")
    send(signal.SIGKILL, shim_of(pm.get_status()))
    status = wait_until(lambda: (now := pm.get_status())["reason"] and now)
    assert (status["status"], status["process_pid"]) == ("running", pid)
    assert pm.kill()["exit_code"] == -15


@pytest.mark.usefixtures("no_thread", "no_shim")
def test_a_tree_is_ended_without_either(pm: ProcessManager) -> None:
    """With neither a thread nor a shim to be had, /kill ends the tree."""
    pid = pm.start("setsid sleep 1000 & exec sleep 1000")["process_pid"]
    send(signal.SIGKILL, shim_of(pm.get_status()))
    assert pm.kill()["survivors"] == []
    assert not alive(pid)
    assert pm.get_status()["status"] == "killed"
