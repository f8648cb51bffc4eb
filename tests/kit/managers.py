"""Several runs of one worker, below the API (`tests/programs/managers.py`)."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from app.reading.reader import LogManager
from tests.kit.output import read_logs
from tests.kit.places import PROGRAMS, ROOT
from tests.kit.processes import send

PACKET = 1024 * 1024
ANSWER_TIMEOUT = 40.0
END_TIMEOUT = 15.0


class CallError(Exception):
    """Report the exception that a manager's method raised, or that the worker ended before it answered."""


class Managers:
    """A worker with managers, one for each name that it is asked for, below a master that replaces it when it dies."""

    def __init__(self, folder: Path, run_as: str | None = None) -> None:
        self.folder = folder
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = [str(theirs.fileno()), str(folder), *([run_as] if run_as else [])]
        with theirs, (folder / "managers.log").open("ab") as log:
            self._master = subprocess.Popen(
                [sys.executable, PROGRAMS / "managers.py", *words],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._socket = ours
        self._numbers = itertools.count()
        self._pending: dict[int, Future[Any]] = {}
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def master(self) -> int:
        """Return the pid of the master."""
        return self._master.pid

    @property
    def worker(self) -> int:
        """Return the pid of the worker, which is its runs' ancestor."""
        return int(self.call("", "pid"))

    def ask(self, name: str, call: str, **arguments: Any) -> Future[Any]:
        """Call a method of a manager, and don't wait for its result."""
        number, future = next(self._numbers), Future[Any]()
        self._pending[number] = future
        self._socket.send(json.dumps([number, name, call, arguments]).encode())
        return future

    def call(self, name: str, call: str, **arguments: Any) -> Any:
        """Call a method of a manager and return its result; raises `CallError`."""
        return self.ask(name, call, **arguments).result(ANSWER_TIMEOUT)

    def run(self, name: str) -> ManagedRun:
        """Return the run of this name."""
        return ManagedRun(self, name)

    def kill_worker(self) -> None:
        """Kill the worker alone; the next one takes over its runs."""
        send(signal.SIGKILL, self.worker)
        self._fail_pending()

    def close(self) -> None:
        """Have the worker end its runs, and wait for the master's end."""
        self._socket.shutdown(socket.SHUT_WR)
        code = self._master.wait(END_TIMEOUT)
        self._reader.join()
        self._socket.close()
        assert code == 0, (self.folder / "managers.log").read_text()

    def _fail_pending(self) -> None:
        while self._pending:
            self._pending.popitem()[1].set_exception(CallError("the worker has ended"))

    def _read(self) -> None:
        try:
            while packet := self._socket.recv(PACKET):
                number, result, error = json.loads(packet)
                future = self._pending.pop(number)
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(CallError(error))
        except ConnectionResetError:  # it ended with requests unread
            pass
        self._fail_pending()


class ManagedRun(NamedTuple):
    """The current run of one name."""

    managers: Managers
    name: str

    def start(self, command: str, *, replace: bool = False) -> dict[str, Any]:
        """Start a command and return its status object."""
        if_running = "replace" if replace else "refuse"
        return dict(self.managers.call(self.name, "start", command=command, if_running=if_running))

    def status(self) -> dict[str, Any]:
        """Return the status object."""
        return dict(self.managers.call(self.name, "get_status"))

    def kill(self, kind: str = "SIGTERM", timeout: float = 5.0) -> dict[str, Any]:
        """End the tree and return how that went."""
        return dict(self.managers.call(self.name, "kill", signal_type=kind, timeout=timeout))

    def content(self) -> str:
        """Return all that the run has printed, read here."""
        logs = LogManager(self.managers.folder / self.name)
        return str(read_logs(logs, self.status()["log_file"])["content"])


@contextmanager
def managers_in(folder: Path, run_as: str | None = None) -> Iterator[Managers]:
    """Offer a worker with managers of directories in `folder`, whose runs are ended afterwards."""
    managers = Managers(folder, run_as)
    try:
        yield managers
    finally:
        managers.close()
