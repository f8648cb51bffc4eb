"""One program, run by a real service: what its command leaves, and what a kill does to it."""

import contextlib
import http.client
import json
import os
import re
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from bench.programs.signals import Recorder, Signal, label
from bench.programs.tools import Tools
from bench.service import Service, alive, looks, parent, serving, tree

# Seconds for a program to be ready, and for what a command leaves to have become what it will be.
READY = 60.0
SETTLING = 1.5
GRACE = 15.0
# Ready when `{port}` is listened on.
PORT = "the port"
NOTHING: Mapping[str, str] = MappingProxyType({})


class Case(NamedTuple):
    """A command and the files that it needs, as a user would have them.

    `{port}` and `{folder}` stand for a free port and the folder, in the files as well. `prepare` runs before it, and
    `beside` all the time, both outside of the service. `ready` is a pattern in the output of a command that runs on, or
    `PORT`; a command without ends by itself. `packages` are as `Tools` takes them, that of the program first. `shown`
    is the command in short.
    """

    tool: str
    command: str
    packages: tuple[str, ...] = ()
    files: Mapping[str, str] = NOTHING
    prepare: str = ""
    ready: str = ""
    environment: Mapping[str, str] = NOTHING
    beside: str = ""
    stdin: str = "empty"
    remark: str = ""
    shown: str = ""

    @property
    def ends(self) -> bool:
        """Tell whether the command ends by itself."""
        return not self.ready


class Left(NamedTuple):
    """A process that lives on after its command: by its name, and the two facts."""

    pid: int
    name: str
    holds_output: bool
    own_session: bool


class Outcome(NamedTuple):
    """What was seen of one program.

    `passing` names what lived on for a moment only. `next_start` is the status of the answer to a start after it, None
    where nothing is left.
    """

    passing: list[str]
    left: list[Left]
    told: Mapping[str, Any]
    next_start: int | None
    outlived: bool
    answer: Mapping[str, Any]
    seconds: float
    signals: list[Signal]
    names: Mapping[int, str]
    survived_the_service: list[str]


class Place:
    """A folder with the files of a case, and the environment of its commands."""

    def __init__(self, case: Case, folder: Path, tools: Tools) -> None:
        self.case = case
        for package in case.packages:
            tools.link_modules(package, folder)
        self.folder = folder
        self.port = _free_port()
        home = folder / "home"
        home.mkdir(mode=0o700)
        path = f"{folder}/node_modules/.bin:{tools.path}"
        # In TMPDIR watchman has its socket and locks, which are a user's otherwise.
        usual = {"PATH": path, **dict.fromkeys(("HOME", "GNUPGHOME", "TMPDIR"), str(home)), "NO_UPDATE_NOTIFIER": "1"}
        self.environment = usual | {key: self._filled(text) for key, text in case.environment.items()}
        for name, text in case.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self._filled(text))
        self.command = self._filled(case.command)
        if case.prepare:
            self._prepare(self._filled(case.prepare))

    def _filled(self, text: str) -> str:
        return text.replace("{port}", str(self.port)).replace("{folder}", str(self.folder))

    def _prepare(self, command: str) -> None:
        environment = os.environ | self.environment
        done = subprocess.run(
            ["bash", "-ec", command],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=READY,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"it could not be prepared: {(done.stderr or done.stdout).strip()[-300:]}")

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Run what has to run beside it."""
        if not self.case.beside:
            yield
            return
        with subprocess.Popen(shlex.split(self._filled(self.case.beside)), cwd=self.folder) as process:
            try:
                yield
            finally:
                process.terminate()


def run(case: Case, tools: Tools, recorder: Recorder) -> Outcome:
    """Run a case in a folder and service of its own, and tell what was seen."""
    with tempfile.TemporaryDirectory(prefix="llm-programs-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # another user may have a part in it
        (folder / "work").mkdir()
        (folder / "service").mkdir()
        place = Place(case, folder / "work", tools)
        with place.beside():
            return _tried(place, folder / "service", recorder)


def _tried(place: Place, folder: Path, recorder: Recorder) -> Outcome:
    """Kill it once; where it leaves something, have it leave that again, for the next start and the service's end."""
    survivors: list[int] = []
    with serving(folder) as service:
        found = _found(service, place)
        recorder.begin(found.members)
        began = time.monotonic()
        answer = _asked(service, "POST", f"/kill?timeout={GRACE}")[1]
        seconds = time.monotonic() - began
        signals, names = recorder.end(), dict(recorder.names)
        next_start, outlived = None, False
        if found.left:
            survivors = [one.pid for one in _found(service, place).left]
            next_start = _asked(service, "POST", "/start", {"command": "true"})[0]
            outlived = all(alive(pid) for pid in survivors)
    after = [label(pid) for pid in survivors if alive(pid)]
    return Outcome(found.passing, found.left, found.told, next_start, outlived, answer, seconds, signals, names, after)


class Found(NamedTuple):
    """What is there before a kill: what has gone meanwhile, what is left, what the service tells, and all members."""

    passing: list[str]
    left: list[Left]
    told: Mapping[str, Any]
    members: list[int]


def _found(service: Service, place: Place) -> Found:
    """Run the command until it is ready, or has ended and what it leaves has settled."""
    status = _start(service, place)
    for _ in looks(0.05, READY):
        now = service.status()
        if now["status"] != "running" and not place.case.ends:
            raise RuntimeError(f"it ended by itself with {now['exit_code']}: {_output(service)[-300:]}")
        if now["status"] != "running" if place.case.ends else _is_ready(service, place):
            break
    first = {pid: label(pid) for pid in _left_in(now)}
    time.sleep(SETTLING)  # no event tells that a program has become what it will be
    now = service.status()
    if not place.case.ends:
        shim = parent(status["process_pid"])
        return Found([], [], now, [pid for pid in tree(shim) if pid != shim])
    pipe = json.loads(Path(now["log_file"]).with_suffix(".json").read_text())["pipe"]
    left = [_left(pid, f"pipe:[{pipe}]", status["process_pid"]) for pid in _left_in(now) if alive(pid)]
    members = [one.pid for one in left]
    return Found([name for pid, name in first.items() if pid not in members and name != "?"], left, now, members)


def _left_in(status: Mapping[str, Any]) -> list[int]:
    return [*status["leftover_pids"], *(one["pid"] for one in status["daemons"])]


def _start(service: Service, place: Place) -> Mapping[str, Any]:
    body = {"command": place.command, "cwd": str(place.folder), "env": place.environment, "stdin": place.case.stdin}
    code, status = _asked(service, "POST", "/start", body)
    if code != http.client.CREATED:
        raise RuntimeError(f"it could not be started: {status}")
    return status


def _left(pid: int, pipe: str, session: int) -> Left:
    targets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            targets.add(str(link.readlink()))
    return Left(pid, label(pid), pipe in targets, os.getsid(pid) != session)


def _is_ready(service: Service, place: Place) -> bool:
    if place.case.ready != PORT:
        return re.search(place.case.ready, _output(service)) is not None
    with contextlib.suppress(OSError), socket.create_connection(("localhost", place.port), timeout=1):
        return True
    return False


def _output(service: Service) -> str:
    return str(json.loads(service.call("GET", "/logs"))["content"])


def _asked(service: Service, method: str, path: str, body: object = None) -> tuple[int, Mapping[str, Any]]:
    """Return the status and the body of an answer, a refusal's as well."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=120)
    with contextlib.closing(connection):
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
