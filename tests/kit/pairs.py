"""Two runs of one process, whose worker, zygote, understudies and shims are killed; what must hold afterwards."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.kit.actors import record_of, shim_of, understudy_of, zygote_of
from tests.kit.leftovers import nothing_left_behind, zygotes_of
from tests.kit.managers import CallError, ManagedRun, Managers, managers_in
from tests.kit.processes import alive, descendants, send
from tests.kit.waiting import ended, wait_until

NAMES = ("a", "b")
PAUSE, LAST, CODE = 100, 200, 7
# Prints the pid of an escapee and 100 numbers, waits for SIGUSR1, and ends after 100 more.
COMMAND = f"""
setsid sleep 1000 & echo $!
trap 'go=1' USR1; seq {PAUSE}
while [ -z "$go" ]; do sleep 0.02; done
seq {PAUSE + 1} {LAST}; exit {CODE}
"""
STRAY = "exec setsid sleep 1000"


@dataclass(frozen=True, slots=True)
class Began:
    """A run in its pause: its process, its escapee, and the pair that keeps it."""

    run: ManagedRun
    status: dict[str, Any]
    escapee: int
    shim: int
    understudy: int

    @classmethod
    def of(cls, run: ManagedRun) -> Self:
        """Start the run, and wait for its pause."""
        status = run.start(COMMAND)
        lines = wait_until(lambda: (content := run.content()).endswith(f"\n{PAUSE}") and content).split("\n")
        return cls(run, status, int(lines[0]), shim_of(status), understudy_of(status))

    @property
    def process(self) -> int:
        """Return the pid of the process."""
        return int(self.status["process_pid"])

    def printed(self, last: int) -> str:
        """Return what it must have printed when it has come to this number."""
        return "\n".join(map(str, [self.escapee, *range(1, last + 1)]))


class Stage:
    """A place for two runs, and bystanders that no signal may reach: one beside, and one that came to the worker."""

    def __init__(self, managers: Managers) -> None:
        self.managers = managers
        self._beside = subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True)
        self._strays: list[int] = []
        self._has_stray = 0

    def begin(self) -> tuple[Began, Began]:
        """Start both runs, beside the bystanders."""
        if self._has_stray != (worker := self.managers.worker):
            self._strays.append(self.managers.call("", "stray", command=STRAY))
            self._has_stray = worker
        return Began.of(self.managers.run("a")), Began.of(self.managers.run("b"))

    def kill(self, victims: Sequence[str], one: Began, other: Began) -> None:
        """Kill these, one after the other."""
        pids = {
            "zygote": zygote_of(self.managers.worker),
            **{f"{kind}-{run.run.name}": getattr(run, kind) for run in (one, other) for kind in ("shim", "understudy")},
        }
        for victim in victims:
            if victim == "worker":
                self.managers.kill_worker()
            else:
                with suppress(ProcessLookupError):  # the worker's zygote ends with it
                    send(signal.SIGKILL, pids[victim])

    def clear(self) -> None:
        """End what a failed test has left of its runs, so that the next one can start its own."""
        for name in NAMES:
            with suppress(CallError):
                self.managers.run(name).kill("SIGKILL")

    def assert_bystanders_live(self) -> None:
        """Fail when one of the bystanders has ended."""
        assert all(alive(pid) for pid in (self._beside.pid, *self._strays))

    def assert_clear(self) -> None:
        """Fail unless all that lives below the master is one worker, with a zygote at the most, and bystanders."""
        expected = {self.managers.worker, *self._strays}
        deadline = time.monotonic() + 5
        while left := self._left(expected):
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.01)  # as `wait_until` does; this tells what is left

    def _left(self, expected: set[int]) -> dict[int, str]:
        allowed = expected | zygotes_of({self.managers.worker})
        return {
            pid: name for pid, name in descendants(self.managers.master).items() if pid not in allowed and alive(pid)
        }

    def close(self) -> None:
        """End the bystanders."""
        for pid in (self._beside.pid, *self._strays):
            send(signal.SIGKILL, pid)
        self._beside.wait()


@contextmanager
def stage(run_as: str | None) -> Iterator[Stage]:
    """Offer a stage, with nothing left behind."""
    folder = Path(tempfile.mkdtemp(prefix="llm-shell-pairs-"))
    try:
        with nothing_left_behind(), managers_in(folder, run_as) as managers:
            made = Stage(managers)
            try:
                yield made
            finally:
                made.close()
    finally:
        shutil.rmtree(folder)


def kill_and_check(stage: Stage, victims: Sequence[str]) -> None:
    """Start two runs, kill these processes in their order, and see what becomes of either run."""
    stage.clear()
    began = stage.begin()
    stage.kill(victims, *began)
    for run in began:
        assert alive(run.process)
        status = run.run.status()
        assert (status["status"], status["process_pid"], status["leftover_pids"]) == ("running", run.process, [])
    for run in began:
        _check_end(run, victims)
    for run in began:
        _check_kill(run, victims)
    stage.assert_bystanders_live()
    stage.assert_clear()


def _is_lost(run: Began, victims: Sequence[str]) -> bool:
    """Tell whether nothing that could keep the run was left alive."""
    return {f"shim-{run.run.name}", f"understudy-{run.run.name}"} <= set(victims)


def _check_end(run: Began, victims: Sequence[str]) -> None:
    """Let the run end, and compare its exit code, its output and what is told about it with the truth."""
    taken_over = f"shim-{run.run.name}" in victims
    if taken_over and not _is_lost(run, victims):
        wait_until(lambda: record_of(run.status).state.incidents.get("takeovers") == 1, timeout=5)
    os.kill(run.process, signal.SIGUSR1)
    status = ended(run.run.status)
    if _is_lost(run, victims):
        assert status["exit_code"] == CODE or (status["exit_code"] is None and status["reason"])
        assert run.run.content() == run.printed(PAUSE)
        return
    wait_until(lambda: run.run.content().endswith(f"\n{LAST}"), timeout=5)
    assert run.run.content() == run.printed(LAST)
    status = run.run.status()
    assert (status["status"], status["exit_code"], status["leftover_pids"]) == ("exited", CODE, [run.escapee])
    assert bool(status["reason"]) == taken_over


def _check_kill(run: Began, victims: Sequence[str]) -> None:
    """End what the run has left, all of which can be proved to be its own."""
    answer = run.run.kill("SIGTERM", 2.0)
    assert (answer["survivors"], answer["status"]) == ([], "exited")
    assert not alive(run.escapee)
    if not _is_lost(run, victims):
        assert (answer["exit_code"], answer["escalated"]) == (CODE, False)


def numbers_lost(content: str) -> list[int]:
    """Return how many numbers are missing in each gap of a counter's output that was killed in the end.

    At either edge of a gap a number may be there in part, and so may the last one: they count as missing.
    """
    *lines, _cut = content.removeprefix("ready\n").split("\n")
    found = [int(line) for line in lines if re.fullmatch(r"\d+", line)]
    gaps, expected = [], 1
    for number in found:
        if number > expected:
            gaps.append(number - expected)
        if number >= expected:
            expected = number + 1
    return gaps
