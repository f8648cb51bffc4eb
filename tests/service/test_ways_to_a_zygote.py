"""Every way to run the service starts its commands through a zygote, which is that process's own and ends with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.service import manage
from tests.kit.actors import worker_of, zygote_of
from tests.kit.leftovers import nothing_left_behind
from tests.kit.places import ROOT
from tests.kit.processes import alive, name_of, parent
from tests.kit.service import service_environment
from tests.kit.services import WSGI_APP, Services

NAMES = ["llm-shell-shim", "llm-understudy", "llm-zygote"]
SCRIPT = """
from app import create_app
client = create_app().test_client()
print(client.post("/start", json={"command": "exec sleep 1000"}).json["process_pid"], flush=True)
"""

# Prints the pids of the zygotes of two starts, each made by a thread that has ended when the next one is made.
THREADS = """
import threading
from app.service import manage
from tests.kit.processes import parent
manager = manage({folder!r})
def start():
    pid = manager.start("exec sleep 1000", if_running="replace")["process_pid"]
    print(parent(parent(parent(pid))), flush=True)
for _ in range(2):
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
manager.shut_down(0.0)
manager.close()
"""


def chain(pid: int) -> list[int]:
    """Return the pids of those that started a process: its shim, understudy and zygote, and what is above these."""
    found = [parent(pid)]
    while len(found) <= len(NAMES):
        found.append(parent(found[-1]))
    assert [name_of(each) for each in found[:-1]] == NAMES
    return found


@pytest.mark.parametrize("command", [WSGI_APP, (sys.executable, "-m", "app")], ids=["gunicorn", "python -m app"])
def test_a_served_command_comes_from_its_worker_s_zygote(serve: Services, command: tuple[str, ...]) -> None:
    """Under gunicorn and `python -m app` a command's shim and understudy come from the one zygote of the worker."""
    service = serve(command=command, settings={"PYTHONPATH": str(ROOT)})
    worker = worker_of(service)
    pids = chain(service.start("exec sleep 1000")["process_pid"])
    assert pids[-2:] == [zygote_of(worker), worker]
    again = chain(service.start("exec sleep 1000", replace=True)["process_pid"])
    assert again[-2:] == pids[-2:]
    assert not {*again[:2]} & {*pids[:2]}
    assert service.stop() == 0
    assert not any(alive(pid) for pid in (*pids, *again))


def test_a_test_client_s_command_comes_from_its_process_s_zygote(client: FlaskClient) -> None:
    """With Flask's test client it is the zygote of the process that has the client."""
    response = client.post("/start", json={"command": "exec sleep 1000"})
    assert response.status_code == 201
    assert response.json is not None
    assert chain(response.json["process_pid"])[-1] == os.getpid()


def test_applications_of_one_process_share_a_zygote(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    """Several applications, and managers without any, have one zygote between them."""
    zygotes = set()
    for folder in ("one", "other"):
        client = make_app(log_dir=tmp_path / folder).test_client()
        body: Any = client.post("/start", json={"command": "exec sleep 1000"}).json
        zygotes.add(chain(body["process_pid"])[2])
    manager = manage(tmp_path / "third")
    zygotes.add(chain(manager.start("exec sleep 1000")["process_pid"])[2])
    manager.shut_down(0.0)
    manager.close()
    assert zygotes == {zygote_of(os.getpid())}


def test_it_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """A zygote that a thread started by its first start serves those that come when the thread has ended."""
    script = THREADS.format(folder=str(tmp_path / "logs"))
    with nothing_left_behind():
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, check=True)
    before, after = done.stdout.split()
    assert before == after


def test_the_interpreter_s_end_ends_all(tmp_path: Path) -> None:
    """When the interpreter of a test client ends, its command, shim, understudy and zygote have gone."""
    environment = {**service_environment(tmp_path / "logs", {}), "PYTHONPATH": str(ROOT)}
    with nothing_left_behind():
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
        )
        assert not alive(int(done.stdout))
        assert done.stderr == ""
