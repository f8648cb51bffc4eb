"""The keepers of a start die around the moment of its execution: it was executed and is kept, or it never is."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.kit.actors import zygote_of
from tests.kit.leftovers import nothing_left_behind
from tests.kit.managers import CallError, Managers, managers_in
from tests.kit.processes import alive
from tests.kit.requiring import require
from tests.kit.waiting import ended, wait_until

# Starts at each of which a keeper is killed as soon as it has forked the command; few are too late for that.
TRIES = 12


@pytest.fixture
def marks() -> Iterator[Path]:
    """Return a folder in which any user may make files."""
    with tempfile.TemporaryDirectory(prefix="llm-shell-marks-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


@pytest.fixture(params=[None, "nobody"], ids=["own user", "another user"])
def managers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Managers]:
    """Return a worker whose commands run as the service's user, and one where they run as another."""
    require(request.param is None or os.geteuid() == 0, "root, to start commands as another user")
    with nothing_left_behind(), managers_in(tmp_path, request.param) as made:
        made.run("a").start("true")
        ended(made.run("a").status)
        yield made


def next_child(pid: int, known: set[int]) -> int:
    """Wait, without a pause, until a process has a child that is not known; 0 where it has none in time."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        with suppress(OSError):
            new = set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())) - known
            if new:
                return new.pop()
    return 0


def torn(managers: Managers, marker: Path, *, both: bool) -> tuple[bool, int]:
    """Start a command that makes a file, and kill its shim, or shim and understudy, once that has forked.

    Return whether the start succeeded, and the pid of what was forked.
    """
    zygote = zygote_of(managers.worker)
    known = {int(name) for name in Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()}
    answer: Future[Any] = managers.ask("a", "start", command=f"echo > {marker}; exec sleep 1000")
    understudy = next_child(zygote, known)
    assert understudy
    shim = next_child(understudy, set())
    assert shim
    command = next_child(shim, set())
    assert command
    with suppress(ProcessLookupError):
        if both:
            os.kill(understudy, signal.SIGKILL)
        os.kill(shim, signal.SIGKILL)
    try:
        answer.result(20)
    except CallError:
        return False, command
    return True, command


def await_end(pid: int) -> None:
    """Wait until a process has ended."""
    wait_until(lambda: not alive(pid))


def test_a_shim_killed_around_the_execution(managers: Managers, marks: Path) -> None:
    """A start that is answered with success was executed, and goes on; one that fails never is."""
    run = managers.run("a")
    for number in range(TRIES):
        started, command = torn(managers, marks / str(number), both=False)
        if started:
            assert wait_until((marks / str(number)).exists)
            status = run.status()
            assert (status["status"], status["process_pid"]) == ("running", command)
            assert run.kill("SIGKILL")["survivors"] == []
        await_end(command)
        assert started == (marks / str(number)).exists()


def test_a_pair_killed_around_the_execution(managers: Managers, marks: Path) -> None:
    """A start that loses both keepers in that moment leaves nothing alive, or a run that can be ended."""
    for number in range(TRIES):
        started, command = torn(managers, marks / str(number), both=True)
        if started:
            managers.run("a").kill("SIGKILL")
        await_end(command)
