"""create_app() any number of times in one process: each application serves what it was given."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.config import Settings
from tests.api.calls import end_of, output_of, start, status
from tests.kit.places import ROOT
from tests.kit.processes import alive, descriptors_of
from tests.kit.waiting import wait_until

MakeApp = Callable[..., Flask]


def refused(client: FlaskClient) -> bool:
    """Tell whether the application has nothing to serve any more, and says so."""
    response = client.get("/status")
    return response.status_code == 500 and "stopping" in response.get_json()["detail"]


def test_two_applications_on_two_directories(make_app: MakeApp, tmp_path: Path) -> None:
    """Each has its own run, log and state, at the same time; what ends one leaves the other alone."""
    clients = [make_app(log_dir=tmp_path / name).test_client() for name in ("one", "two")]
    runs = [start(client, f"echo {number}; exec sleep 60") for number, client in enumerate(clients)]
    for number, client in enumerate(clients):
        assert status(client)["process_pid"] == runs[number]["process_pid"]
        assert Path(status(client)["log_file"]).parent == tmp_path / ("one", "two")[number]
        wait_until(lambda: output_of(client) == str(number))  # noqa: B023  called within this turn
    assert clients[0].post("/kill").status_code == 200
    assert [status(client)["status"] for client in clients] == ["killed", "running"]


@pytest.mark.parametrize("spelling", ["logs", "logs/../logs", "link"])
def test_two_applications_on_one_directory(make_app: MakeApp, tmp_path: Path, spelling: str) -> None:
    """The second comes at once, has the run of the first, and both serve it from then on."""
    (tmp_path / "link").symlink_to("logs")
    first = make_app().test_client()
    run = start(first, "echo ready; exec sleep 60")
    began = time.monotonic()
    second = make_app(log_dir=tmp_path / spelling).test_client()
    assert time.monotonic() - began < 2
    assert status(first) == status(second)
    assert status(second)["process_pid"] == run["process_pid"]
    again = start(second, "exec sleep 61", replace=True)
    assert status(first)["process_pid"] == again["process_pid"]
    assert first.post("/kill").status_code == 200
    assert status(second)["status"] == "killed"


def test_the_settings_given_last_hold_for_a_directory(make_app: MakeApp, tmp_path: Path) -> None:
    """A second application on a directory starts commands by its own settings, and keeps its own door."""
    first = make_app().test_client()
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\necho "other shell"\n')
    shell.chmod(0o755)
    second = make_app(shell=str(shell), token="a-token-of-sufficient-length").test_client()  # noqa: S106  made up
    assert second.get("/status").status_code == 401
    start(first, "true")
    end_of(first)
    wait_until(lambda: output_of(first) == "other shell")


def test_a_directory_that_was_removed_is_served_anew(make_app: MakeApp, tmp_path: Path) -> None:
    """An application on a directory that somebody removed meanwhile holds the new one, and finds what lives."""
    run = start(make_app().test_client(), "exec sleep 60")
    wait_until(lambda: '"process":[' in next((tmp_path / "logs").glob("*.json")).read_text())
    shutil.rmtree(tmp_path / "logs")
    (tmp_path / "logs").mkdir()
    client = make_app().test_client()
    assert status(client)["process_pid"] == run["process_pid"]
    assert list(descriptors_of(os.getpid()).values()).count(str(tmp_path / "logs")) == 1


def test_an_application_after_a_stop(make_app: MakeApp) -> None:
    """What was stopped serves nothing any more and says so; another on its directory remembers its run."""
    app = make_app()
    pid = start(app.test_client(), "exec sleep 60")["process_pid"]
    app.extensions["supervisor"].stop()
    assert not alive(pid)
    assert refused(app.test_client())
    client = make_app().test_client()
    assert (status(client)["status"], status(client)["process_pid"]) == ("killed", pid)
    assert refused(app.test_client())
    app.extensions["supervisor"].stop()
    assert status(client)["process_pid"] == pid


def test_many_applications_leave_nothing(tmp_path: Path) -> None:
    """An application for each of many tests costs no descriptor and no thread once it was stopped."""

    def use(number: int) -> None:
        app = create_app(Settings(log_dir=tmp_path / str(number)))
        start(app.test_client(), "exec sleep 60")
        app.extensions["supervisor"].stop()

    use(0)
    before = len(descriptors_of(os.getpid())), threading.active_count()
    for number in range(1, 6):
        use(number)
    # Of these, the first one's last thread may have been counted on its way out.
    wait_until(lambda: len(descriptors_of(os.getpid())) <= before[0] and threading.active_count() <= before[1])


def test_applications_made_at_the_same_time(make_app: MakeApp) -> None:
    """Of several threads that make one for the same directory each gets one that serves it."""
    made: list[Flask] = []
    threads = [threading.Thread(target=lambda: made.append(make_app())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    start(made[0].test_client(), "exec sleep 60")
    assert len({status(app.test_client())["process_pid"] for app in made}) == 1
    assert len(made) == 6


def python(script: str, *arguments: str | Path) -> list[str]:
    """Run a script with this project on the path and return the lines that it prints."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_each_run_ends_as_its_own_setting_says(make_app: MakeApp, tmp_path: Path) -> None:
    """At the interpreter's end the run of an application that keeps it goes on, and that of another is ended."""
    script = """
import sys
from pathlib import Path
from app import create_app
from app.config import Settings
for name, what in (("kept", "keep"), ("ended", "stop")):
    app = create_app(Settings(log_dir=Path(sys.argv[1]) / name, on_shutdown=what))
    print(app.test_client().post("/start", json={"command": "exec sleep 60"}).get_json()["process_pid"])
"""
    kept, over = map(int, python(script, tmp_path))
    assert (alive(kept), alive(over)) == (True, False)
    statuses = [status(make_app(log_dir=tmp_path / name).test_client()) for name in ("kept", "ended")]
    assert [(now["process_pid"], now["status"]) for now in statuses] == [(kept, "running"), (over, "killed")]


def test_the_end_of_a_forked_child_ends_nothing(tmp_path: Path) -> None:
    """A child that was forked from the process of an application leaves the run alone when it exits."""
    script = """
import os, sys
from pathlib import Path
from app import create_app
from app.config import Settings
client = create_app(Settings(log_dir=Path(sys.argv[1]))).test_client()
client.post("/start", json={"command": "exec sleep 60"})
child = os.fork()
if child == 0:
    sys.exit()
os.waitpid(child, 0)
print(client.get("/status").get_json()["status"])
"""
    assert python(script, tmp_path / "logs") == ["running"]


def test_the_readmes_fixture(tmp_path: Path) -> None:
    """The fixture that the README shows gives each test of a file an application and a directory of its own."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (fixture,) = [block for block in blocks if "@pytest.fixture" in block]
    tests = "".join(
        f"""
def test_{number}(client):
    assert client.get("/status").status_code == 404
    assert client.post("/start", json={{"command": "exec sleep 60"}}).status_code == 201
    assert client.get("/status").get_json()["status"] == "running"
"""
        for number in range(3)
    )
    (tmp_path / "test_readme.py").write_text(fixture + tests)
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_readme.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr
