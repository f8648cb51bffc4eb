"""A real gunicorn for the tests: started as an operator would, called over HTTP, stopped by a signal."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.kit.calling import ANSWER_TIMEOUT, NO_HEADERS, exchange
from tests.kit.leftovers import zygotes_of
from tests.kit.places import ROOT
from tests.kit.processes import children, command_line, descendants
from tests.kit.waiting import wait_until

# From any working directory, as `python -m app` runs it.
GUNICORN = (sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "--pythonpath", str(ROOT))
START_TIMEOUT = 20.0
# 5 s of grace for the tree, 2 s after its SIGKILL, and what gunicorn and a busy machine add.
STOP_TIMEOUT = 15.0
_LISTENING = re.compile(r"Listening at: http://\S+:(\d+) ")
_GUNICORN_INFO = re.compile(r"\[[^]]*\] \[\d+\] \[INFO\] ")
# What would be understood as an order to gunicorn, whoever runs the tests.
_GUNICORN_NAMES = frozenset({"WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "PORT"})


class Answer(NamedTuple):
    """What came back: the status and the body, read as JSON."""

    status: int
    body: Any


class Refusal(NamedTuple):
    """How a service ended that did not start: its exit code, what it said beside gunicorn's notices, and when."""

    code: int
    lines: list[str]
    seconds: float


class Service:
    """One running gunicorn; `wait_until_healthy` before calling it.

    It prints to the file `output`; `options` are those of `Popen`.
    """

    def __init__(
        self, output: Path, command: Sequence[str], cwd: Path, environment: Mapping[str, str], **options: Any
    ) -> None:
        self.cwd = cwd
        self.log_dir = Path(environment["LLM_SHELL_LOG_DIR"])
        self.output = output
        self.others: set[int] = set()  # processes of a second run, which no test of the first has to do with
        with output.open("wb") as stream:
            self._process = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )
        self.pid = self._process.pid
        self.port = 0

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> Mapping[str, str]:
        """Return what every request to it carries."""
        return NO_HEADERS

    @property
    def text(self) -> str:
        """Return what gunicorn has printed so far."""
        return self.output.read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Tell whether the master has not ended."""
        return self._process.poll() is None

    @property
    def workers(self) -> list[int]:
        """Return the pids of the master's workers: forked from it, so that their command line is its own."""
        own = command_line(self.pid)
        return [pid for pid in children(self.pid) if command_line(pid) == own]

    @property
    def zygotes(self) -> set[int]:
        """Return the pids of the zygotes of its workers."""
        return zygotes_of(self.workers)

    def wait_until_healthy(self) -> None:
        """Wait for the first answer of /health; fail with the service's own words when it ends before."""
        wait_until(self._healthy, START_TIMEOUT)

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Wait for the master's end and return its exit code; fail, and end it, when it takes too long."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            pytest.fail(f"the service did not end within {timeout} s:\n{self.text}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal to the master and return its exit code."""
        self._process.send_signal(number)
        return self.wait()

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        """Return a connection to it, which may yet have to be opened."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] = NO_HEADERS,
        timeout: float = ANSWER_TIMEOUT,
    ) -> Answer:
        """Send one request, with the usual headers unless others are given, and read its answer to the end."""
        reply = exchange(self.connect(timeout), method, path, body, {**self.headers, **headers})
        return Answer(reply.status, reply.json)

    def get(self, path: str, **options: Any) -> Answer:
        """Send a GET."""
        return self.call("GET", path, **options)

    def post(self, path: str, body: object = None, **options: Any) -> Answer:
        """Send a POST, with a JSON body if one is given."""
        return self.call("POST", path, body, **options)

    def start(self, command: str | Sequence[str | Path], **fields: Any) -> dict[str, Any]:
        """Start a command that must start, quoting a list of arguments; return its status object."""
        text = command if isinstance(command, str) else shlex.join(map(str, command))
        status, body = self.post("/start", {"command": text, **fields})
        assert status == 201, body
        return dict(body)

    def status(self) -> dict[str, Any]:
        """Return the status object of the current run."""
        status, body = self.get("/status")
        assert status == 200, body
        return dict(body)

    def content(self, query: str = "") -> str:
        """Return what the run has printed so far."""
        status, body = self.get(f"/logs{query}")
        assert status == 200, body
        return str(body["content"])

    def wait_for_output(self, text: str, timeout: float = 15.0) -> str:
        """Wait until the run's output holds `text`, and return the output."""
        return wait_until(lambda: seen if text in (seen := self.content()) else "", timeout)

    def wait_for_exit(self, timeout: float = 30.0) -> dict[str, Any]:
        """Wait until the process has ended and nothing can print any more; return the status object."""

        def ended() -> dict[str, Any]:
            now = self.status()
            return {} if now["output_open"] or now["status"] == "running" else now

        return wait_until(ended, timeout)

    def end_run(self) -> None:
        """End whatever lives, so that the next test finds a free service; one of version 1 knows of one run alone."""
        if self.post("/kill?all=true&type=SIGKILL").status != 200:
            assert self.post("/kill?type=SIGKILL").status in {200, 400, 404}

    def wait_until_alone(self) -> None:
        """Wait until it has no process but master, one worker and its zygote, not even one to be reaped."""
        deadline = time.monotonic() + 10
        while len(workers := self.workers) != 1 or self._below() != set(workers):
            assert time.monotonic() < deadline, f"below the master is not one worker alone: {descendants(self.pid)}"
            time.sleep(0.01)  # as `wait_until` does; this tells who is in the way

    def _below(self) -> set[int]:
        return descendants(self.pid).keys() - self.zygotes - self.others

    def answers(self) -> bool:
        """Tell whether /health is answered; it is not for a moment after the worker has ended."""
        with suppress(OSError, http.client.HTTPException):
            return self.get("/health").status == 200
        return False

    def find(self) -> bool:
        """Tell whether it says where it listens, and keep that in mind."""
        if listening := _LISTENING.search(self.text):
            self.port = int(listening[1])
        return listening is not None

    def _healthy(self) -> bool:
        if not self.running:
            pytest.fail(f"the service ended with {self._process.returncode}:\n{self.text}")
        return self.find() and self.answers()


def service_environment(log_dir: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a service: this one without orders to gunicorn, any free port, and the settings."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LLM_SHELL_") and name not in _GUNICORN_NAMES
    }
    return {**inherited, "LLM_SHELL_PORT": "0", "LLM_SHELL_LOG_DIR": str(log_dir), **settings}


def notable_lines(text: str) -> list[str]:
    """Return the lines that are not gunicorn's own notices."""
    return [line for line in text.splitlines() if line.strip() and not _GUNICORN_INFO.match(line)]
