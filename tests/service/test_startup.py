"""What the service says while it starts: who is in its way, where it is, what it noticed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.calling import exchange, over_unix_socket
from tests.kit.network import free_port
from tests.kit.requiring import require
from tests.kit.service import Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until

TOKEN = "a-token-of-sufficient-length"  # noqa: S105  made up
USER = "nobody"
LOGS_ELSEWHERE = "set LLM_SHELL_LOG_DIR to a directory outside of it"
NO_FILE = "give the settings in the environment instead of .env"
SERVER = (
    "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
)


@contextmanager
def another_server() -> Iterator[tuple[int, int]]:
    """Run a program that listens; return its pid and its port."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        yield server.pid, int(server.stdout.readline())
        server.kill()


def test_a_port_that_is_taken(serve: Services) -> None:
    """One line says at once which setting names a port that another has, and who has it."""
    with another_server() as (pid, port):
        refusal = serve.refused(settings={"LLM_SHELL_PORT": str(port)})
    assert refusal.code != 0
    [line] = refusal.lines
    assert line.startswith(f"LLM Shell does not start: LLM_SHELL_PORT: 127.0.0.1:{port} is taken by pid {pid} (")
    assert sys.executable in line
    assert refusal.seconds < 4


def test_a_port_that_is_taken_without_a_listener(serve: Services) -> None:
    """A port that is bound and not listened on is taken, too, though /proc names no holder."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        [line] = serve.refused(settings={"LLM_SHELL_PORT": str(holder.getsockname()[1])}).lines
    assert "LLM_SHELL_PORT" in line
    assert "is taken by an unknown process" in line


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"LLM_SHELL_BIND": "127.0.0.1:{port}"}, "LLM_SHELL_BIND: 127.0.0.1:{port} is taken by pid {pid} "),
        ({"GUNICORN_CMD_ARGS": "--bind 127.0.0.1:{port}"}, "--bind: 127.0.0.1:{port} is taken by pid {pid} "),
        ({"LLM_SHELL_HOST": "::", "LLM_SHELL_PORT": "{port}"}, "LLM_SHELL_PORT: [::]:{port} is taken by pid {pid} "),
        ({"LLM_SHELL_HOST": "0.0.0.0", "LLM_SHELL_PORT": "{port}"}, "0.0.0.0:{port} is taken by pid {pid} "),
        ({"LLM_SHELL_HOST": "localhost", "LLM_SHELL_PORT": "{port}"}, "localhost:{port} is taken by pid {pid} "),
        ({"LLM_SHELL_HOST": "192.0.2.1"}, "can't listen on 192.0.2.1:0: Cannot assign requested address."),
        ({"LLM_SHELL_HOST": "no.such.invalid"}, "can't listen on no.such.invalid:0: "),
        ({"LLM_SHELL_HOST": "a..b"}, "can't listen on a..b:0: "),
    ],
)
def test_other_addresses_that_can_t_be_had(serve: Services, how: Mapping[str, str], named: str) -> None:
    """Whichever way the address was given, one line names it and the setting, and gunicorn does not try again."""
    with another_server() as (pid, port):
        settings = {name: value.format(port=port) for name, value in how.items()}
        refusal = serve.refused(settings={"LLM_SHELL_TOKEN": TOKEN, **settings})
    assert refusal.code != 0
    [line] = refusal.lines
    assert named.format(port=port, pid=pid) in line
    assert refusal.seconds < 4


def test_a_unix_socket_that_is_taken(serve: Services, tmp_path: Path) -> None:
    """A socket that another service listens on is left to it, and its holder named."""
    path = tmp_path / "shell.sock"
    first = serve.launch(settings={"LLM_SHELL_BIND": f"unix:{path}"})
    wait_until(lambda: "LLM Shell is up" in first.text, 20)
    refusal = serve.refused(settings={"LLM_SHELL_BIND": f"unix:{path}"})
    [line] = refusal.lines
    assert f"LLM_SHELL_BIND: {path} is taken by pid {first.pid} (" in line
    assert exchange(over_unix_socket(path), "GET", "/health").status == 200


def test_the_port_of_a_dying_worker(serve: Services) -> None:
    """After the master's SIGKILL a new service waits for the worker to leave directory and port, and takes both."""
    port = str(free_port())
    first = serve(settings={"LLM_SHELL_PORT": port})
    first.stop(signal.SIGKILL)
    second = serve(settings={"LLM_SHELL_PORT": port, "LLM_SHELL_LOG_DIR": str(first.log_dir)})
    assert second.port == int(port)


def test_a_second_service_says_at_once_what_it_waits_for(serve: Services) -> None:
    """Before it waits for another to leave the log directory, a service says so, and who it is."""
    first = serve()
    began = time.monotonic()
    second = serve.launch(settings={"LLM_SHELL_LOG_DIR": str(first.log_dir)})
    notice = (
        f"Another service (pid {first.pid}) uses the log directory {first.log_dir}: waiting up to 5 s for it to go."
    )
    wait_until(lambda: notice in second.text, 4)
    assert second.running
    assert second.wait() != 0
    assert time.monotonic() - began >= 5
    assert f"Another service (pid {first.pid}) already uses the log directory" in second.text


def greeting(service: Service) -> list[str]:
    """Return the three lines that a service says when it is up, without what gunicorn puts before each."""
    lines = [line.partition("[INFO] ")[2] for line in service.text.splitlines()]
    [first] = [number for number, line in enumerate(lines) if line.startswith("LLM Shell is up")]
    return lines[first : first + 3]


def run(command: str, token: str = "") -> dict[str, object]:
    """Run a line in a shell as a reader would, and return what it printed."""
    require(shutil.which("curl"), "curl")
    environment = {**os.environ, **({"LLM_SHELL_TOKEN": token} if token else {})}
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_a_service_that_is_up_says_so(serve: Services) -> None:
    """Three lines: where it listens, its page, a first call that works as it is shown."""
    service = serve()
    where, page, call = greeting(service)
    assert where == f"LLM Shell is up, at {service.url}"
    assert page == f"The API as a page: {service.url}/docs"
    assert run(call.removeprefix("A first call: "))["command"] == "echo hello"
    service.wait_for_exit()
    assert service.content() == "hello"


def test_it_is_said_once(serve: Services) -> None:
    """Neither a reload nor a worker that replaces a killed one says it again."""
    service = serve()
    for pid, number in ((service.pid, signal.SIGHUP), (0, signal.SIGKILL)):
        old = service.workers
        os.kill(pid or old[0], number)
        wait_until(lambda: len(now := service.workers) == 1 and now != old and service.answers(), 30)  # noqa: B023  it is called in this turn only
    assert service.text.count("LLM Shell is up") == 1


def test_the_first_call_with_a_token(serve: Services) -> None:
    """With a token the call names its variable, not its value, and an address that can be called."""
    service = serve(settings={"LLM_SHELL_HOST": "0.0.0.0", "LLM_SHELL_TOKEN": TOKEN})
    _where, page, call = greeting(service)
    assert page.endswith(f"http://127.0.0.1:{service.port}/docs")
    assert TOKEN not in service.text
    assert run(call.removeprefix("A first call: "), TOKEN)["status"] == "running"


def test_the_first_call_on_a_unix_socket(serve: Services, tmp_path: Path) -> None:
    """On a Unix socket the call goes over that."""
    path = tmp_path / "shell.sock"
    service = serve.launch(settings={"LLM_SHELL_BIND": f"unix:{path}"})
    wait_until(lambda: "A first call" in service.text, 20)
    where, _page, call = greeting(service)
    assert where == f"LLM Shell is up, at {path}"
    assert run(call.removeprefix("A first call: "))["status"] == "running"


def test_the_first_call_beside_a_command_that_was_kept(serve: Services) -> None:
    """A service that takes a run over shows the call that tells of it."""
    first = serve(settings={"LLM_SHELL_ON_SHUTDOWN": "keep"})
    pid = first.start("exec sleep 300")["process_pid"]
    first.stop()
    second = serve(settings={"LLM_SHELL_LOG_DIR": str(first.log_dir)})
    assert run(greeting(second)[2].removeprefix("A first call: "))["process_pid"] == pid


def warnings_of(service: Service) -> list[str]:
    """Return what the service warned of."""
    return re.findall(r"\[WARNING\] (.*)", service.text)


@pytest.mark.parametrize(
    ("env_file", "logs", "told"),
    [
        (True, "logs", (".env and logs", f"{NO_FILE} and {LOGS_ELSEWHERE}")),
        (False, "a/b", ("logs", LOGS_ELSEWHERE)),
        (True, "../logs", (".env", NO_FILE)),
        (False, ".", ("logs", LOGS_ELSEWHERE)),
    ],
)
def test_what_a_command_would_find_is_told(
    serve: Services, tmp_path: Path, env_file: bool, logs: str, told: tuple[str, str]
) -> None:
    """Settings file and logs below the directory that commands begin in are named, with what to do about it."""
    work = tmp_path / "place"
    work.mkdir()
    if env_file:
        (work / ".env").touch()
    [warning] = warnings_of(serve(cwd=work, settings={"LLM_SHELL_LOG_DIR": logs}))
    assert warning == (
        f"Commands begin in {work}, which holds this service's {told[0]}: "
        f'send "cwd" for one that serves or packs up its directory, or {told[1]}.'
    )


def test_what_the_warning_of_the_logs_says_helps(serve: Services, tmp_path: Path) -> None:
    """A service whose logs were moved as the warning says has nothing to warn of any more."""
    work = tmp_path / "place"
    work.mkdir()
    service = serve(cwd=work, settings={"LLM_SHELL_LOG_DIR": "logs"})
    assert len(warnings_of(service)) == 1
    service.stop()
    (work / "logs").rename(tmp_path / "elsewhere")
    assert warnings_of(serve(cwd=work, settings={"LLM_SHELL_LOG_DIR": str(tmp_path / "elsewhere")})) == []


def test_a_file_in_the_place_of_the_logs(serve: Services, tmp_path: Path) -> None:
    """The start names the setting and the file, in one line."""
    (tmp_path / "file").touch()
    refusal = serve.refused(settings={"LLM_SHELL_LOG_DIR": str(tmp_path / "file")})
    assert refusal.lines[-1] == (
        f"LLM Shell does not start: LLM_SHELL_LOG_DIR: {tmp_path}/file is a file, not a directory. Move it away, or "
        "name another directory."
    )


def test_a_link_to_the_settings_is_told(serve: Services, tmp_path: Path) -> None:
    """A `.env` and logs that are links to elsewhere can be read through the directory all the same."""
    (tmp_path / "secret").touch()
    (tmp_path / "disk").mkdir()
    work = tmp_path / "place"
    work.mkdir()
    (work / ".env").symlink_to(tmp_path / "secret")
    (work / "logs").symlink_to(tmp_path / "disk")
    [warning] = warnings_of(serve(cwd=work, settings={"LLM_SHELL_LOG_DIR": "logs"}))
    assert "which holds this service's .env and logs:" in warning


def test_nothing_is_told_of_an_empty_directory(serve: Services) -> None:
    """A service in a directory of its own, with its logs elsewhere, has nothing to warn of."""
    assert warnings_of(serve()) == []


def test_what_the_commands_user_can_t_reach(serve: Services, tmp_path: Path) -> None:
    """With RUN_AS, a directory that the user can't enter is told in one line; an absolute cwd works there."""
    require(os.geteuid() == 0, "root, to start commands as another user")
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    service = serve(cwd=private, settings={"LLM_SHELL_RUN_AS": USER})
    [warning] = warnings_of(service)
    assert warning.startswith(f"LLM_SHELL_RUN_AS: {USER!r} can't enter {private}, where commands without a cwd begin")
    answer = service.post("/start", {"command": "pwd"})
    assert answer.status == 400
    assert answer.body["detail"] == (
        f"The service's own directory, '{private}', where commands start by default, can't be entered by the "
        f'user {USER!r}, which commands run as: Permission denied. Send "cwd" with an absolute path, or have the '
        "service started where this user may enter."
    )
    service.start("pwd", cwd="/")


def test_what_the_commands_user_may_not_read_is_not_told(serve: Services, place: Path) -> None:
    """With RUN_AS, settings and logs that the user may not read are no cause for a warning."""
    (place / ".env").touch(mode=0o600)
    service = serve(cwd=place, settings={"LLM_SHELL_RUN_AS": USER, "LLM_SHELL_LOG_DIR": "logs"})
    assert warnings_of(service) == []
    (place / ".env").chmod(0o644)
    [warning] = warnings_of(
        serve(cwd=place, settings={"LLM_SHELL_RUN_AS": USER, "LLM_SHELL_LOG_DIR": str(place / "l")})
    )
    assert "which holds this service's .env:" in warning
