"""A service that a command of another service is: it goes by its own settings, and its commands are of its own runs."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.kit.calling import NO_HEADERS, exchange
from tests.kit.places import ROOT
from tests.kit.processes import children, command_line, environment_of
from tests.kit.service import GUNICORN, Service
from tests.kit.waiting import wait_until

LISTENING = re.compile(r"Listening at: http://\S+:(\d+) ")
WAYS: dict[str, Sequence[str]] = {
    "gunicorn": (*GUNICORN, "wsgi:app"),
    "python -m app": (sys.executable, "-m", "app", "--port", "0"),
}
# A process with applications and no server, as in the tests of others.
APPLICATION = """
import json
from app import create_app
from tests.kit.processes import environment_of
app = create_app()
started = app.test_client().post("/start", json={"command": "exec sleep 300"}).get_json()
environment = environment_of(started["process_pid"])
own = {name: value for name, value in environment.items() if name.startswith("LLM_SHELL_")}
app.extensions["supervisor"].stop()
print(json.dumps([started["run_id"], own]))
"""


def within(directory: Path, command: Sequence[str]) -> str:
    """Return a command line that executes a program with the settings of an inner service."""
    settings = {"LLM_SHELL_PORT": "0", "LLM_SHELL_LOG_DIR": str(directory), "PYTHONPATH": str(ROOT)}
    return shlex.join(["exec", "env", *(f"{name}={value}" for name, value in settings.items()), *command])


def marks_of(pid: int) -> dict[str, str]:
    """Return the variables of ours in the environment of a process."""
    return {name: value for name, value in environment_of(pid).items() if name.startswith("LLM_SHELL_")}


def post(port: int, path: str, body: object = None) -> dict[str, Any]:
    """Send a POST to the inner service, which must do what it says; return its answer."""
    reply = exchange(http.client.HTTPConnection("127.0.0.1", port, timeout=20), "POST", path, body, NO_HEADERS)
    assert reply.status in {200, 201}, reply.json
    return dict(reply.json)


def port_of(outer: Service) -> int:
    """Wait until the inner service says where it listens; return the port."""

    def told() -> int:
        assert outer.status()["status"] == "running", outer.content()
        found = LISTENING.search(outer.content())
        return int(found[1]) if found else 0

    return wait_until(told, 20)


@pytest.mark.parametrize("way", WAYS)
def test_it_starts_and_gives_its_own(service: Service, tmp_path: Path, way: str) -> None:
    """It serves, with no word of the two variables that it has; its commands have those of its own runs alone."""
    outer = service.start(within(tmp_path / "logs", WAYS[way]))
    port = port_of(service)
    has = marks_of(outer["process_pid"])
    assert (has["LLM_SHELL_RUN_ID"], has["LLM_SHELL_NAME"]) == (outer["run_id"], "default")
    # Two, since one of them could have the outer run's id, which is unique only in its log directory.
    started = post(port, "/start", {"command": "exec sleep 300"})
    assert marks_of(started["process_pid"]) == {"LLM_SHELL_RUN_ID": started["run_id"], "LLM_SHELL_NAME": "default"}
    again = post(port, "/restart", {})
    assert again["run_id"] != started["run_id"]
    assert marks_of(again["process_pid"]) == {"LLM_SHELL_RUN_ID": again["run_id"], "LLM_SHELL_NAME": "default"}
    assert not re.search("LLM_SHELL_(RUN_ID|NAME)", service.content())


def test_it_reloads(service: Service, tmp_path: Path) -> None:
    """SIGHUP, at which the settings are read again, gives it a new worker, and its command goes on."""
    master = service.start(within(tmp_path / "logs", WAYS["gunicorn"]))["process_pid"]
    port = port_of(service)
    wait_until(lambda: "LLM Shell is up" in service.content())
    command = post(port, "/start", {"command": "exec sleep 300"})

    def workers() -> list[int]:
        return [pid for pid in children(master) if command_line(pid) == command_line(master)]

    old = wait_until(workers)
    os.kill(master, signal.SIGHUP)
    wait_until(lambda: len(now := workers()) == 1 and now != old, 30)
    assert "no such setting" not in service.content()
    assert post(port, "/kill?type=SIGKILL")["status"] == "killed"
    assert not Path(f"/proc/{command['process_pid']}").exists()


def test_an_application_without_a_server(service: Service, tmp_path: Path) -> None:
    """create_app() in a command takes its settings as usual; what it starts has the two of its own run."""
    service.start(within(tmp_path / "logs", (sys.executable, "-c", APPLICATION)))
    assert service.wait_for_exit()["exit_code"] == 0, service.content()
    run_id, own = json.loads(service.content().splitlines()[-1])
    assert own == {"LLM_SHELL_RUN_ID": run_id, "LLM_SHELL_NAME": "default"}


def test_a_misspelt_setting_is_still_refused(service: Service, tmp_path: Path) -> None:
    """Of the names with our prefix only these two are passed over: any other unknown one ends its start."""
    wrong = ("env", "LLM_SHELL_RUN_IDS=1", *WAYS["gunicorn"])
    service.start(within(tmp_path / "logs", wrong))
    assert service.wait_for_exit()["exit_code"] != 0
    told = service.content()
    assert "LLM_SHELL_RUN_IDS: there is no such setting" in told
    assert "LLM_SHELL_RUN_ID:" not in told
    assert "LLM_SHELL_NAME" not in told


def test_a_caller_can_t_give_them(service: Service) -> None:
    """A caller who sends one of them in `env`, as one that passes its own environment on would, is told so by 400."""
    for name in ("LLM_SHELL_RUN_ID", "LLM_SHELL_NAME"):
        answer = service.post("/start", {"command": "true", "env": {name: "x"}})
        assert answer.status == 400
        [words] = answer.body["errors"][f"env.{name}"]
        assert "LLM_SHELL_ are the service's own" in words
        assert "leave" in words
