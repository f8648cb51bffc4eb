"""Hold the managers of several log directories in one process, below a master as gunicorn's worker is.

managers.py DESCRIPTOR FOLDER [RUN_AS]

Each packet is a JSON list [NUMBER, NAME, CALL, ARGUMENTS]: NAME's log directory is the one in FOLDER, and CALL a method
of its manager; or `pid`, the worker's, or `stray`: start a process that is orphaned at once, so that it comes to the
worker, a subreaper. Each is answered, as soon as it is done, by [NUMBER, RESULT, null] or [NUMBER, null, EXCEPTION].
The end of the socket ends all runs. A worker that dies is replaced at once; the next one goes on with the socket.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from app.runs.spec import Spec
from app.service import manage
from app.supervisor.manager import ProcessManager
from app.supervisor.orphans import become_subreaper
from app.supervisor.policy import Policy

PACKET = 1024 * 1024


class Managers(dict[str, ProcessManager]):
    """The managers by name, each made when it is first asked for, with the run that is there."""

    def __init__(self, folder: Path, run_as: str | None) -> None:
        self._folder = folder
        self._run_as = run_as

    def take_over(self) -> None:
        """Make the managers of all directories that a worker before this one had."""
        for place in self._folder.iterdir():
            if place.is_dir():
                self[place.name]

    def __missing__(self, name: str) -> ProcessManager:
        self[name] = manage(self._folder / name, Policy(run_as=self._run_as))
        self[name].take_over()
        return self[name]

    def call(self, name: str, call: str, arguments: dict[str, Any]) -> object:
        """Do what was asked and return its result."""
        if call == "pid":
            return os.getpid()
        if call == "stray":
            return stray(**arguments)
        if call == "start":
            arguments = {**arguments, "command": Spec(arguments["command"], cwd="/")}
        return getattr(self[name], call)(**arguments)


def stray(command: str) -> int:
    """Start a command from a shell that ends at once, and return its pid."""
    words = ["/bin/sh", "-c", f"{command} > /dev/null 2>&1 & echo $!"]
    return int(subprocess.run(words, check=True, capture_output=True).stdout)


def answer(asking: socket.socket, managers: Managers, number: int, asked: list[Any]) -> None:
    """Do what was asked and say how that went."""
    try:
        reply = [number, managers.call(*asked), None]
    except Exception as error:  # noqa: BLE001  whatever it is, it is the answer
        reply = [number, None, f"{type(error).__name__}: {error}"]
    asking.send(json.dumps(reply).encode())


def work(asking: socket.socket, managers: Managers) -> NoReturn:
    """Answer until the other end of the socket is closed, then end all runs."""
    become_subreaper()
    managers.take_over()
    while packet := asking.recv(PACKET):
        number, *asked = json.loads(packet)
        threading.Thread(target=partial(answer, asking, managers, number, asked), daemon=True).start()
    for manager in managers.values():
        manager.shut_down(0.0)
        manager.close()
    os._exit(0)


def main() -> None:
    """Have one worker at any time, until one has ended by itself."""
    descriptor, folder, *run_as = sys.argv[1:]
    become_subreaper()
    with socket.socket(fileno=int(descriptor)) as asking:
        asking.set_inheritable(False)
        while True:
            worker = os.fork()
            if worker == 0:
                work(asking, Managers(Path(folder), run_as[0] if run_as else None))
            ended, status = os.wait()
            while ended != worker:  # an orphan
                ended, status = os.wait()
            if status == 0:
                return


if __name__ == "__main__":
    main()
