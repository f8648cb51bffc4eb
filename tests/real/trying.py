"""Start a real program through a real shim, kill it, and say what every process below it heard and from whom."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from app.runs.spec import EMPTY, Spec
from app.supervisor.manager import ProcessManager
from tests.kit.output import content
from tests.kit.places import PROGRAMS, ROOT
from tests.kit.processes import parent
from tests.kit.waiting import ended, wait_until

HEARS = PROGRAMS / "hears.py"
# Where `make test-real` installs what comes from PyPI and from npm.
PYTHON_TOOLS = ROOT / ".real" / "python" / "bin"
NODE_TOOLS = ROOT / ".real" / "node" / "node_modules" / ".bin"
# What every listener exits with, so that its own code is told from a wrapper's.
OWN_CODE = 7
START_TIMEOUT = 30.0
NOTHING: Mapping[str, str] = MappingProxyType({})


def tool_path() -> str:
    """Return a PATH on which the installed tools come first."""
    return f"{PYTHON_TOOLS}:{NODE_TOOLS}:{os.environ['PATH']}"


@dataclass(frozen=True, slots=True)
class Listener:
    """A program that writes down what it hears (`tests/programs/hears.py`), with the file it writes to."""

    report: Path

    @property
    def command(self) -> str:
        """Return the command line that runs it."""
        return f"{sys.executable} {HEARS} {self.report} {OWN_CODE}"

    @property
    def _words(self) -> list[list[str]]:
        try:
            return [line.split() for line in self.report.read_text().splitlines()]
        except FileNotFoundError:
            return []

    @property
    def pid(self) -> int | None:
        """Return its pid once it is ready."""
        return next((int(words[1]) for words in self._words if words[0] == "ready"), None)

    @property
    def heard(self) -> list[tuple[str, int]]:
        """Return the signals heard so far, each with its sender's pid."""
        return [(words[0], int(words[1])) for words in self._words if words[0].startswith("SIG")]

    @property
    def cleaned(self) -> bool:
        """Tell whether it has cleaned up."""
        return ["cleaned"] in self._words

    def ready(self) -> Self:
        """Wait until it listens."""
        wait_until(lambda: self.pid, START_TIMEOUT)
        return self


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a kill went: its answer, how long it took, and the shim whose signals are ours."""

    answer: Mapping[str, Any]
    seconds: float
    shim: int

    @property
    def code(self) -> int | None:
        """Return the exit code of the process."""
        code: int | None = self.answer["exit_code"]
        return code

    @property
    def gentle(self) -> bool:
        """Tell whether all was over without SIGKILL."""
        return not self.answer["escalated"] and not self.answer["survivors"]

    def ours(self, listener: Listener) -> int:
        """Return how often it heard SIGTERM from us."""
        return listener.heard.count(("SIGTERM", self.shim))

    def others(self, listener: Listener) -> list[str]:
        """Return the signals that it heard from anybody else."""
        return [name for name, sender in listener.heard if sender != self.shim]


@dataclass(slots=True)
class Trial:
    """One command in a directory of its own, run by `shell`, with the listeners below it."""

    pm: ProcessManager
    folder: Path
    shell: str
    listeners: list[Listener] = field(default_factory=list)

    def listener(self) -> Listener:
        """Return a further listener, whose `command` is part of what will be run."""
        self.listeners.append(Listener(self.folder / f"heard-{len(self.listeners)}"))
        return self.listeners[-1]

    def start(self, command: str, env: Mapping[str, str] = NOTHING, stdin: str = EMPTY) -> int:
        """Start the command and return its pid once every listener listens."""
        environment = {"PATH": tool_path(), **env}
        pid: int = self.pm.start(Spec(command, cwd=str(self.folder), env=environment, stdin=stdin))["process_pid"]
        for listener in self.listeners:
            listener.ready()
        return pid

    def file(self, name: str, timeout: float = START_TIMEOUT) -> Path:
        """Wait for a file that the command makes in its directory, and return its path."""
        path = self.folder / name
        wait_until(path.exists, timeout)
        return path

    def kill(self, timeout: float = 10.0, kind: str = "SIGTERM") -> Outcome:
        """End the tree and say how that went."""
        shim = parent(self.pm.get_status()["process_pid"])
        began = time.monotonic()
        answer = self.pm.kill(kind, timeout)
        return Outcome(answer, time.monotonic() - began, shim)

    def ended(self, timeout: float = START_TIMEOUT) -> Mapping[str, Any]:
        """Wait until the process has ended, and return its status."""
        return ended(self.pm.get_status, timeout)

    @property
    def printed(self) -> str:
        """Return what the command has printed so far."""
        return content(self.pm)


def make_executable(path: Path, lines: Sequence[str]) -> Path:
    """Write a script of these lines and return its path."""
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)
    return path
