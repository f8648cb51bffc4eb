"""Every way to run the service, to stop it, and to be refused by it."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.kit.places import PROGRAMS, ROOT
from tests.kit.processes import alive, environment_of
from tests.kit.service import GUNICORN, Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until

TOKEN = "a-token-of-sufficient-length"  # noqa: S105  made up
STOP_SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]


def start_a_tree(service: Service) -> set[int]:
    """Start a process with a child in a session of its own; return the pids of both."""
    pid = service.start("setsid sleep 300 & echo child $!; echo ready; exec sleep 300")["process_pid"]
    child = re.search(r"child (\d+)", service.wait_for_output("ready"))
    assert child is not None
    wait_until(lambda: os.getsid(int(child[1])) == int(child[1]))
    return {pid, int(child[1])}


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_gunicorn_command(serve: Services, number: signal.Signals) -> None:
    """`gunicorn wsgi:app` in the repository serves; TERM, INT and QUIT end the tree and it exits with 0."""
    script = str(Path(sys.executable).with_name("gunicorn"))
    service = serve(command=[script, "wsgi:app"], cwd=ROOT)
    tree = start_a_tree(service)
    assert service.stop(number) == 0
    assert not [pid for pid in tree if alive(pid)]


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_python_module(serve: Services, tmp_path: Path, number: signal.Signals) -> None:
    """`python -m app --host … --port …` serves from any directory, which stays its own; stopping it ends the tree."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "app", "--host", "localhost", "--port", "0"]
    # What the command line says goes before the environment.
    service = serve(command=command, cwd=elsewhere, settings={"PYTHONPATH": str(ROOT), "LLM_SHELL_HOST": "192.0.2.1"})
    tree = start_a_tree(service)
    assert {Path(f"/proc/{pid}/cwd").readlink() for pid in tree} == {elsewhere}
    assert service.stop(number) == 0
    assert not [pid for pid in tree if alive(pid)]


def test_the_service_says_that_it_does_without_the_quick_encoder(serve: Services, tmp_path: Path) -> None:
    """Where ssrjson is missing the service's log says so once, and answers are what they are with it."""
    (tmp_path / "ssrjson.py").write_text("raise ImportError('not made for this system')")
    services = [serve(settings={"PYTHONPATH": str(tmp_path)}), serve()]
    for service in services:
        service.start("printf '\\033[1m\\360\\237\\232\\200 \"it\" \\377\\n'; sleep 300")
        service.wait_for_output('\x1b[1m\U0001f680 "it" \\xff')
    assert [service.text.count("Without ssrjson") for service in services] == [1, 0]


def test_stop_does_not_wait_for_the_stubborn(serve: Services) -> None:
    """A process that ignores SIGTERM is gone, by SIGKILL, some 5 s after the service was told to stop."""
    service = serve()
    pid = service.start([sys.executable, PROGRAMS / "stubborn.py"])["process_pid"]
    service.wait_for_output("ready")
    os.kill(service.pid, signal.SIGTERM)
    assert service.wait(timeout=9) == 0
    assert not alive(pid)


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["-w", "2"], {}),
        (["--workers", "0"], {}),
        ([], {"WEB_CONCURRENCY": "2"}),
        ([], {"GUNICORN_CMD_ARGS": "-w 2"}),
    ],
    ids=["-w 2", "--workers 0", "WEB_CONCURRENCY=2", "GUNICORN_CMD_ARGS=-w 2"],
)
def test_any_number_of_workers_but_one_is_refused(
    serve: Services, arguments: list[str], settings: dict[str, str]
) -> None:
    """Another number of workers ends the start with one line that gives the reason and the remedy."""
    refusal = serve.refused(*arguments, settings=settings)
    assert refusal.code != 0
    [line] = refusal.lines
    assert "exactly one worker" in line
    assert "remove -w, --workers or WEB_CONCURRENCY" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["-k", "sync", "--threads", "1"],
        ["--threads", "1"],
        ["--threads", "2"],
        ["--preload"],
    ],
    ids=" ".join,
)
def test_an_unfit_worker_is_refused(serve: Services, arguments: list[str]) -> None:
    """A worker class other than gthread, too few threads and preloading end the start with one clear line."""
    refusal = serve.refused(*arguments)
    assert refusal.code != 0
    [line] = refusal.lines
    assert "LLM Shell" in line


def test_gevent_does_not_start(serve: Services) -> None:
    """gevent's worker does not start: refused by us where gevent is installed, by gunicorn where not."""
    refusal = serve.refused("-k", "gevent")
    assert refusal.code != 0
    assert "gevent" in refusal.lines[-1] or "gevent" in refusal.lines[-2]


def test_second_service_on_a_log_directory(serve: Services) -> None:
    """A second service on the same log directory gives the first some 5 s, then says who is in the way."""
    first = serve()
    refusal = serve.refused(settings={"LLM_SHELL_LOG_DIR": str(first.log_dir)})
    assert refusal.code != 0
    [line] = refusal.lines
    assert str(first.log_dir) in line
    assert "LLM_SHELL_LOG_DIR" in line
    assert 5 <= refusal.seconds < 9
    assert first.get("/health").status == 200


def test_next_service_waits_for_the_first_to_go(serve: Services) -> None:
    """A service that is started while the former one on its log directory still stops takes its place."""
    first = serve()
    second = serve.launch(settings={"LLM_SHELL_LOG_DIR": str(first.log_dir)})
    first.stop()
    second.wait_until_healthy()
    assert second.get("/health").status == 200


def test_all_faults_of_the_settings_are_told_at_once(serve: Services) -> None:
    """Bad settings end the start, each named in one answer, with no traceback."""
    faults = {
        "LLM_SHELL_PORT": "eighty",
        "LLM_SHELL_THREADS": "2",
        "LLM_SHELL_SHELL": "no/such/shell",
        "LLM_SHELL_TOKEN": "short",
        "LLM_SHELL_ON_SHUTDOWN": "perhaps",
        "LLM_SHELL_TOKN": "misspelt",
    }
    refusal = serve.refused(settings=faults)
    assert refusal.code != 0
    told = "\n".join(refusal.lines)
    assert "Traceback" not in told
    assert [name for name in faults if f"- {name}: " not in told] == []
    assert sum(line.startswith("  - ") for line in refusal.lines) == len(faults)


def test_other_addresses_need_a_token(serve: Services) -> None:
    """HOST=0.0.0.0 without a TOKEN is refused, with the line that sets one."""
    refusal = serve.refused(settings={"LLM_SHELL_HOST": "0.0.0.0"})
    assert refusal.code != 0
    told = "\n".join(refusal.lines)
    assert "Traceback" not in told
    assert "export LLM_SHELL_TOKEN=" in told


def test_gunicorns_own_bind_needs_a_token_too(serve: Services) -> None:
    """An address given by gunicorn's own `--bind` is refused like the setting's."""
    refusal = serve.refused("--bind", "0.0.0.0:0")
    assert refusal.code != 0
    assert "export LLM_SHELL_TOKEN=" in "\n".join(refusal.lines)


def test_other_addresses_with_a_token(serve: Services) -> None:
    """With a TOKEN, HOST=0.0.0.0 is served: /health to everybody, the rest to whoever sends the token."""
    service = serve(settings={"LLM_SHELL_HOST": "0.0.0.0", "LLM_SHELL_TOKEN": TOKEN})
    assert service.get("/health").status == 200
    assert service.get("/status").status == 401
    assert service.get("/status", headers={"Authorization": f"Bearer {TOKEN}"}).status == 404


def test_env_file(serve: Services, tmp_path: Path) -> None:
    """`.env` in the working directory holds settings, of which the process sees nothing."""
    cwd = tmp_path / "work"
    cwd.mkdir()
    (cwd / ".env").write_text(f"LLM_SHELL_TOKEN={TOKEN}\n")
    service = serve(cwd=cwd)
    assert service.get("/status").status == 401
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    answer = service.post("/start", {"command": "exec sleep 300"}, headers=bearer)
    assert answer.status == 201
    environment = environment_of(answer.body["process_pid"])
    ours = {name for name in environment if name.startswith("LLM_SHELL_")}
    assert ours == {"LLM_SHELL_RUN_ID", "LLM_SHELL_NAME"}
    assert TOKEN not in "".join(environment.values())


@pytest.mark.parametrize("number", [signal.SIGTTIN, signal.SIGUSR2], ids=lambda number: number.name)
def test_one_worker_and_one_master_whatever_the_signal(serve: Services, number: signal.Signals) -> None:
    """SIGTTIN adds no worker and USR2 no master; the service and its process go on unharmed."""
    service = serve()
    pid = service.start("exec sleep 300")["process_pid"]
    workers = service.workers
    assert len(workers) == 1
    os.kill(service.pid, number)
    wait_until(lambda: "refused" in service.text)
    # What gunicorn does in answer to a second signal it does after all that belonged to the first.
    os.kill(service.pid, signal.SIGWINCH)
    wait_until(lambda: "Handling signal: winch" in service.text)
    wait_until(lambda: service.workers == workers)
    assert alive(pid)
    assert service.status()["status"] == "running"
    assert service.stop() == 0


def test_a_wsgi_file_that_makes_two_applications(serve: Services, tmp_path: Path) -> None:
    """Both serve the one directory of the service, whose worker has one claim and one zygote."""
    (tmp_path / "twice.py").write_text("from app import create_app\ncreate_app()\napp = create_app()\n")
    service = serve(command=(*GUNICORN, "twice:app"), settings={"PYTHONPATH": str(tmp_path)})
    pid = service.start("exec sleep 300")["process_pid"]
    assert service.status()["process_pid"] == pid
    wait_until(lambda: len(service.zygotes) == 1)
    assert service.stop() == 0
    assert not alive(pid)


def test_a_wsgi_file_with_another_directory_is_refused(serve: Services, tmp_path: Path) -> None:
    """An application on a directory that the master has not claimed does not start, and the log says what to do."""
    (tmp_path / "other.py").write_text(
        "from pathlib import Path\nfrom app import create_app\nfrom app.config import Settings\n"
        f"app = create_app(Settings(log_dir=Path({str(tmp_path / 'other')!r})))\n"
    )
    service = serve.launch(command=(*GUNICORN, "other:app"), settings={"PYTHONPATH": str(tmp_path)})
    wait_until(lambda: "This service uses one log directory" in service.text, 20.0)
    assert str(tmp_path / "other") in service.text
    assert "set LLM_SHELL_LOG_DIR" in service.text
