"""The directory that the service was started in is removed, and made again."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.kit.actors import worker_of
from tests.kit.processes import alive
from tests.kit.service import Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until

TOKEN = "a-token-of-sufficient-length"  # noqa: S105  made up
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a directory with a `.env` that holds a token."""
    path = tmp_path / "home"
    make(path)
    return path


def make(path: Path) -> None:
    """Make the directory, with its settings."""
    path.mkdir()
    (path / ".env").write_text(f"LLM_SHELL_TOKEN={TOKEN}\n")


def start(service: Service, **fields: str) -> tuple[int, str]:
    """Start a command in the place of whatever runs; return the answer's status and its detail, if it has one."""
    request = {"command": "pwd; exec sleep 300", "replace": True, **fields}
    answer = service.post("/start", request, headers=BEARER)
    return answer.status, answer.body.get("detail", "")


def assert_works_without(service: Service, home: Path) -> None:
    """Fail unless commands start elsewhere alone, and the refusal names what is missing."""
    assert start(service, cwd="/")[0] == 201
    status, detail = start(service)
    assert status == 400
    assert f"The service's own directory, '{home}'," in detail
    assert service.get("/status").status == 401


def test_starts_restarts_and_a_new_worker(serve: Services, home: Path) -> None:
    """Without the directory an absolute `cwd` works, also in a new worker; with one made in its place all works."""
    service = serve(cwd=home)
    shutil.rmtree(home)
    assert_works_without(service, home)
    assert service.post("/restart?timeout=1", headers=BEARER).status == 200
    os.kill(worker_of(service), signal.SIGKILL)
    wait_until(service.answers)
    assert_works_without(service, home)
    make(home)
    assert start(service)[0] == 201
    pid = service.get("/status", headers=BEARER).body["process_pid"]
    assert Path(f"/proc/{pid}/cwd").readlink() == home


def test_a_reload_without_it_changes_nothing(serve: Services, home: Path) -> None:
    """A reload while the directory is gone keeps service and settings, the token among them; a later one works."""
    service = serve(cwd=home)
    start(service, cwd="/")
    pid = service.get("/status", headers=BEARER).body["process_pid"]
    worker = worker_of(service)
    shutil.rmtree(home)
    os.kill(service.pid, signal.SIGHUP)
    wait_until(lambda: f"Reload: the old settings stay in force. {home}: No such file" in service.text)
    assert worker_of(service) == worker
    assert service.get("/status").status == 401
    make(home)
    os.kill(service.pid, signal.SIGHUP)
    wait_until(lambda: len(now := service.workers) == 1 and now != [worker], 30)
    assert service.get("/status", headers=BEARER).body["process_pid"] == pid
    assert start(service)[0] == 201
    assert service.get("/status").status == 401


def test_a_stop_without_it_ends_the_tree(serve: Services, home: Path) -> None:
    """A service whose directory is gone stops as any other."""
    service = serve(cwd=home)
    start(service, cwd="/")
    pid = service.get("/status", headers=BEARER).body["process_pid"]
    shutil.rmtree(home)
    assert service.stop() == 0
    assert not alive(pid)
