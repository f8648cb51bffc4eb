"""Runs in the chaos runner: the service, one after the other on the same directory, and its processes by their roles.

The runner is a subreaper (prctl(2)): whatever escapes from service and command alike stays below it, and is reaped here
as pid 1 would.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bench.chaos import processes
from bench.chaos.plan import Role
from bench.chaos.processes import Identity, Process
from bench.service import ROOT

_PR_SET_CHILD_SUBREAPER = 36
_LISTENING = re.compile(r"Listening at: http://[^:]+:(\d+)")
# A process gives itself a name of 15 bytes at the most (proc_pid_comm(5)).
NAMES: dict[Role, str] = {"zygote": "llm-zygote", "understudy": "llm-understudy", "shim": "llm-shell-shim"}
Value = TypeVar("Value")
START_TIMEOUT = 30.0
STOP_TIMEOUT = 40.0  # gunicorn's graceful timeout is 30 s


class BrokenPromiseError(Exception):
    """What is promised to happen within a time did not; nothing more can be tried."""


class Host:
    """Run services, and say which process is what."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.port = 0
        self.started = 0
        self.master = Identity(0, 0)
        self.codes: dict[int, int] = {}
        # Popen's own reaping is not used; what it does at its end waits for no process.
        self._popen: subprocess.Popen[bytes] | None = None
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        threading.Thread(target=self._reap, name="reaper", daemon=True).start()

    def start(self, on_shutdown: str = "keep") -> None:
        """Start a service on the directory, and wait until it listens."""
        self.started += 1
        output = self.folder / f"service-{self.started}.log"
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LLM_SHELL_")}
        environment |= {
            "LLM_SHELL_PORT": "0",
            "LLM_SHELL_LOG_DIR": str(self.logs),
            "LLM_SHELL_LOG_KEEP": "1000000",
            "LLM_SHELL_ON_SHUTDOWN": on_shutdown,
            "PYTHONPATH": str(ROOT),
        }
        arguments = ["--config", str(ROOT / "gunicorn.conf.py"), "--pythonpath", str(ROOT), "wsgi:app"]
        self.codes.clear()  # pids are used again
        with output.open("wb") as stream:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *arguments],
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        found = processes.read(self._popen.pid)
        self.master = found.identity if found else Identity(self._popen.pid, 0)
        self.port = wait_for(lambda: self._listens(output), START_TIMEOUT, f"no service listens: {output}")

    def stop(self) -> None:
        """Stop the service as an operator does, and wait until it has ended."""
        processes.send(self.master, signal.SIGTERM)
        code = wait_for(
            lambda: [self.codes[pid]] if (pid := self.master.pid) in self.codes else [], STOP_TIMEOUT, "no stop"
        )
        if code != [0]:
            raise BrokenPromiseError(f"the service stopped with {code[0]}")

    @property
    def running(self) -> bool:
        """Tell whether the master lives."""
        return processes.alive(self.master)

    def everything(self) -> list[Process]:
        """Return all that has been started and not been reaped."""
        return processes.below(os.getpid(), processes.table())

    def workers(self) -> list[Identity]:
        """Return the workers, the newest last: forked from the master, with a command line that is its own."""
        own = processes.command_line(self.master.pid)
        return sorted(
            (
                process.identity
                for process in processes.table().values()
                if process.parent == self.master.pid
                and process.alive
                and process.name not in NAMES.values()  # a fork of a worker that has ended, now the master's
                and processes.command_line(process.identity.pid) == own
            ),
            key=lambda identity: (identity.start, identity.pid),
        )

    def find(self, role: Role) -> Identity | None:
        """Return the process of service or shim that has this role now, the newest of several; None for none."""
        if role == "master":
            return self.master if self.running else None
        if role == "worker":
            return next(reversed(self.workers()), None)
        candidates = [process for process in self.everything() if process.alive and process.name == NAMES[role]]
        # A fork that has just been made is still in its service's session.
        sessions = {process.session for pid in self._own() if (process := processes.read(pid))}
        if role != "zygote":
            candidates = [process for process in candidates if process.session not in sessions]
        return max((process.identity for process in candidates), key=lambda found: found.start, default=None)

    def end_everything(self) -> None:
        """Kill what is left, however many rounds it takes."""
        with contextlib.suppress(BrokenPromiseError):
            wait_for(self._kill_round, 10.0, "")

    def _own(self) -> list[int]:
        return [self.master.pid, *(worker.pid for worker in self.workers())]

    def _kill_round(self) -> bool:
        left = self.everything()
        for process in left:
            processes.send(process.identity, signal.SIGKILL)
        return not left

    def _listens(self, output: Path) -> int:
        if not self.running:
            raise BrokenPromiseError(f"the service ended: {output.read_text(errors='replace')[-2000:]}")
        found = _LISTENING.search(output.read_text(errors="replace"))
        return int(found[1]) if found else 0

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                time.sleep(0.02)  # no event tells of a first child
                continue
            self.codes[pid] = os.waitstatus_to_exitcode(status)


def wait_for(condition: Callable[[], Value], timeout: float, else_: str) -> Value:
    """Ask until the answer is true, and return it; raises `BrokenPromiseError` when the time is over."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise BrokenPromiseError(f"{else_} (after {timeout:.0f} s)")
        time.sleep(0.02)  # no event tells of it
    return value
