"""The calls over HTTP, one after the other, and what a started process finds around it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.processes import alive, environment_of, name_of, parent, status_fields
from tests.kit.service import Service
from tests.kit.services import Services, services_in
from tests.kit.waiting import wait_until

UMASK = 0o027
# Set in the service's environment, and no business of the process's.
SERVICE_NAMES = {
    "GUNICORN_CMD_ARGS": "--backlog 64",
    "NOTIFY_SOCKET": "/nonexistent/notify",
    "LISTEN_PID": "1",
    "LISTEN_FDS": "0",
    "LISTEN_FDNAMES": "none",
    "MAKEFLAGS": "n",
    "MAKELEVEL": "1",
    "MFLAGS": "-n",
    "SERVER_SOFTWARE": "none",
    "INVOCATION_ID": "0123456789abcdef0123456789abcdef",
    "JOURNAL_STREAM": "8:1",
    "WATCHDOG_USEC": "1",
}
FOREIGN = re.compile(
    r"LLM_SHELL_.*|GUNICORN_.*|SERVER_SOFTWARE|NOTIFY_SOCKET|LISTEN_.*|MAKE.*|MFLAGS|INVOCATION_ID|JOURNAL_STREAM"
    r"|WATCHDOG_.*|SSH_CLIENT"
)
# The shell's own doing: where it is and was, how many are above it, and what it runs (bash(1)).
SHELL_NAMES = dict.fromkeys(("PWD", "OLDPWD", "SHLVL", "_"), "")
DEFAULTS = {"PYTHONUNBUFFERED": "1", "PAGER": "cat", "GIT_PAGER": "cat", "TERM": "dumb"}


@pytest.fixture(scope="module")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a service with much in its environment that is its own, and an unusual umask."""
    with services_in(tmp_path_factory.mktemp("shared")) as services:
        yield services(umask=UMASK, settings=SERVICE_NAMES)


@pytest.fixture
def process(service: Service) -> Path:
    """Return the /proc folder of a process that was started with no wishes and waits."""
    pid = service.start("exec sleep 300")["process_pid"]
    folder = Path(f"/proc/{pid}")
    wait_until(lambda: "nanosleep" in (folder / "wchan").read_text())  # no library is opened any more
    return folder


def test_the_calls_one_by_one(serve: Services) -> None:
    """A caller starts, watches, reads, kills and restarts a command, and reads the earlier run's output by its id."""
    service = serve()
    assert service.get("/status").status == 404
    first = service.start("echo one; echo two; exec sleep 300")
    assert first["status"] == "running"
    assert Path(first["log_file"]).parent == service.log_dir
    assert service.wait_for_output("two") == "one\ntwo"
    assert service.content("?lines=1") == "two"
    assert service.content("?seconds=0") == ""
    assert service.status() == first
    conflict = service.post("/start", {"command": "true"})
    assert conflict.status == 409
    assert str(first["process_pid"]) in conflict.body["detail"]

    status, killed = service.post("/kill")
    assert status == 200
    assert killed["status"] == "killed"
    assert (killed["exit_code"], killed["signal"], killed["escalated"], killed["survivors"]) == (
        -15,
        "SIGTERM",
        False,
        [],
    )
    assert not alive(first["process_pid"])
    assert service.status()["stopped_at"] == killed["stopped_at"]
    assert service.post("/kill").status == 400

    status, second = service.post("/restart")
    assert status == 200
    assert second["status"] == "running"
    assert second["command"] == first["command"]
    assert second["run_id"] != first["run_id"]
    assert service.wait_for_output("two") == "one\ntwo"
    past = service.get(f"/logs?run_id={first['run_id']}").body
    assert past == {
        "log_file": first["log_file"],
        "total_lines": 2,
        "content": "one\ntwo",
        "lines_returned": 2,
    }
    assert service.post("/kill").status == 200
    assert service.get("/health").body["status"] == "healthy"


def test_descriptors(process: Path) -> None:
    """The process has descriptors 0, 1 and 2 alone; the first is /dev/null, the others are one pipe."""
    targets = {int(fd.name): str(fd.readlink()) for fd in (process / "fd").iterdir()}
    assert sorted(targets) == [0, 1, 2]
    assert targets[0] == "/dev/null"
    assert targets[1].startswith("pipe:")
    assert targets[2] == targets[1]


def test_signals(process: Path) -> None:
    """No signal is ignored or blocked in the process."""
    status = status_fields(int(process.name))
    # glibc keeps 32 and 33 for itself (signal(7)), so that nobody can set these.
    assert int(status["SigIgn"], 16) == 0
    assert int(status["SigBlk"], 16) == 0


def test_broken_pipes_end_their_writers(service: Service) -> None:
    """`yes | head -n 2` prints exactly two lines: SIGPIPE does what a shell expects."""
    service.start("yes | head -n 2")
    assert service.wait_for_exit()["exit_code"] == 0
    assert service.content() == "y\ny"


def test_environment(service: Service, process: Path) -> None:
    """The process sees none of the service's own variables, the rest of its environment, four defaults and its run."""
    master = environment_of(service.pid)
    assert set(SERVICE_NAMES) <= set(master)  # or the next line would prove nothing
    seen = environment_of(int(process.name))
    run = {"LLM_SHELL_RUN_ID": service.status()["run_id"], "LLM_SHELL_NAME": "default"}
    assert {name: value for name, value in seen.items() if FOREIGN.fullmatch(name)} == run
    expected = {name: value for name, value in master.items() if not FOREIGN.fullmatch(name)} | DEFAULTS | run
    assert {**seen, **SHELL_NAMES} == {**expected, **SHELL_NAMES}


def test_callers_environment(service: Service) -> None:
    """The caller's `env` is added, and goes before the defaults and the service's own variables."""
    mine = {
        "TERM": "xterm",
        "PAGER": "less",
        "GIT_PAGER": "",
        "PYTHONUNBUFFERED": "",
        "MAKEFLAGS": "-j2",
        "MINE": "é=\n",
    }
    pid = service.start("exec sleep 300", env=mine)["process_pid"]
    seen = environment_of(pid)
    assert {name: seen.get(name) for name in mine} == mine


def test_umask(process: Path) -> None:
    """The process has the umask that the service was started with."""
    assert status_fields(int(process.name))["Umask"] == f"{UMASK:04o}"


def test_session(process: Path) -> None:
    """The process leads a session and a process group of its own, below a shim and not below the worker."""
    pid = int(process.name)
    assert os.getsid(pid) == pid
    assert os.getpgid(pid) == pid
    assert name_of(parent(pid)) == "llm-shell-shim"


def test_working_directory(service: Service, process: Path) -> None:
    """The process starts in the service's working directory."""
    assert (process / "cwd").readlink() == service.cwd


def test_an_oversized_body(service: Service) -> None:
    """A body over 1 MiB is 413, whatever else the service does with requests, and the next call is answered."""
    status, body = service.post("/start", {"command": "true", "cwd": "x" * 1024 * 1024})
    assert (status, body["status"]) == (413, 413)
    assert service.get("/health").status == 200


@pytest.mark.parametrize("length", [300, 5000], ids=["name", "path"])
def test_a_directory_with_too_long_a_name(service: Service, length: int) -> None:
    """A `cwd` that no directory can have, its name or its path being too long, is 400 as any other bad one."""
    status, body = service.post("/start", {"command": "true", "cwd": "x" * length})
    assert (status, body["status"]) == (400, 400)
    assert "cwd" in body["errors"]


def test_modes(service: Service, process: Path) -> None:  # noqa: ARG001  it has a log
    """The log directory is 0700 and its files are 0600, whatever the umask."""
    assert service.log_dir.stat().st_mode & 0o777 == 0o700
    files = [path for path in service.log_dir.iterdir() if path.is_file() and not path.is_symlink()]
    assert any(path.suffix == ".log" for path in files)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_command_is_on_no_other_command_line(service: Service) -> None:
    """Of all processes only the shell shows the command in its arguments, since it may hold a secret."""
    # Not the last of the command, whose place the shell would give to it.
    pid = service.start("echo ready; sleep 300; : a-secret-of-the-caller")["process_pid"]
    service.wait_for_output("ready")
    around = {service.pid, *service.workers, parent(pid)}
    shown = {each for each in around | {pid} if b"a-secret-of" in Path(f"/proc/{each}/cmdline").read_bytes()}
    assert shown == {pid}
