"""A run that no file tells of any more is found by its shim: the next worker or service answers for it and ends it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from app.runs.record import record_path, spare_path
from tests.faults.test_damaged_files import Damage, damage
from tests.faults.test_shutdown import STOPS
from tests.kit.actors import record_of, shim_of, worker_of
from tests.kit.counter import assert_whole, go_on, numbers, start_counter
from tests.kit.machine import log_records
from tests.kit.processes import alive, send, stopped
from tests.kit.requiring import require
from tests.kit.service import GUNICORN, Service
from tests.kit.services import Services, successor_of
from tests.kit.waiting import wait_until

__all__ = ["damage"]
KEEP = {"LLM_SHELL_ON_SHUTDOWN": "keep"}


def break_both(status: dict[str, Any], damage: Damage) -> None:
    """Break the run's record and its spare."""
    shim_of(status)  # by then the first record is written
    for path in (record_path(status["log_file"]), spare_path(record_path(status["log_file"]))):
        damage(Path(path))


def assert_goes_on_after_removal(service: Service, pid: int) -> None:
    """Fail unless the service has the paused counter, and what it prints from then on is whole."""
    status = service.status()
    assert (status["status"], status["process_pid"]) == ("running", pid)
    go_on(pid)
    status = service.wait_for_exit()
    assert (status["exit_code"], status["reason"]) == (3, None)
    assert numbers(service.content()) == list(range(101, 201))
    assert [record["seq"] for record in log_records(status)] == list(range(102, 202))
    assert record_of(status).state.exit_code == 3


def test_a_worker_finds_a_run_whose_record_and_spare_are_broken(service: Service, damage: Damage) -> None:
    """With neither record nor spare to read the next worker has the run all the same: same pid, no hole, true code."""
    pid = start_counter(service, pause_at=100, count=200, exit_code=3)
    break_both(service.status(), damage)
    send(signal.SIGKILL, worker_of(service))
    assert service.status()["process_pid"] == pid
    go_on(pid)
    assert service.wait_for_exit()["exit_code"] == 3
    assert_whole(service.content(), last=200)


@pytest.mark.alone
def test_a_worker_finds_a_run_whose_directory_was_removed(service: Service) -> None:
    """A run whose log directory was removed with no call before the worker's end goes on without a hole."""
    pid = start_counter(service, pause_at=100, count=200, exit_code=3)
    shutil.rmtree(service.log_dir)
    send(signal.SIGKILL, worker_of(service))
    assert_goes_on_after_removal(service, pid)


@pytest.mark.alone
def test_a_worker_ends_a_run_whose_directory_was_removed(service: Service) -> None:
    """The found run is ended by /kill like any other, and the next one has the directory to itself."""
    pid = start_counter(service, stubborn=True, pause_at=10)
    shutil.rmtree(service.log_dir)
    send(signal.SIGKILL, worker_of(service))
    status, killed = service.post("/kill?timeout=0.2")
    assert (status, killed["exit_code"], killed["escalated"], alive(pid)) == (200, -9, True, False)
    service.start("echo again")
    service.wait_for_exit()
    assert service.content() == "again"


@pytest.mark.parametrize("number", STOPS)
def test_a_stop_ends_a_run_whose_directory_was_removed(serve: Services, number: signal.Signals) -> None:
    """A service that is stopped when neither the files nor a worker tell of the run ends it, and its shim."""
    service = serve()
    pid = start_counter(service, pause_at=10)
    shim = shim_of(service.status())
    worker = worker_of(service)
    with stopped(service.pid):  # no new worker takes the run over before the stop
        shutil.rmtree(service.log_dir)
        send(signal.SIGKILL, worker)
        os.kill(service.pid, number)
    assert service.wait() == 0
    assert not any(alive(left) for left in (pid, shim))


def test_a_stop_ends_a_run_whose_record_and_spare_are_broken(serve: Services, damage: Damage) -> None:
    """A stop ends the tree of a run whose record can't be read, and the record tells of it in the end."""
    service = serve()
    pid = start_counter(service, interval=0.001)
    status = service.status()
    break_both(status, damage)
    assert service.stop() == 0
    assert not alive(pid)
    assert record_of(status).state.killed_by == "shutdown"


def test_the_next_service_finds_a_run_whose_directory_was_removed(serve: Services) -> None:
    """A service that keeps its process is stopped after the removal: the next one on the directory has the run."""
    service = serve(settings=KEEP)
    pid = start_counter(service, pause_at=100, count=200, exit_code=3)
    shutil.rmtree(service.log_dir)
    assert service.stop() == 0
    assert_goes_on_after_removal(successor_of(service, serve), pid)


def test_the_next_service_finds_a_run_after_removal_and_the_masters_death(serve: Services) -> None:
    """Nor does it take an orderly stop: after the removal and a SIGKILL of the master the next service has the run."""
    service = serve()
    pid = start_counter(service, pause_at=100, count=200, exit_code=3)
    worker = worker_of(service)
    shutil.rmtree(service.log_dir)
    send(signal.SIGKILL, service.pid)
    wait_until(lambda: not alive(worker))
    assert_goes_on_after_removal(successor_of(service, serve), pid)


def test_the_same_path_in_another_mount_namespace_is_another_directory(serve: Services, tmp_path: Path) -> None:
    """Of two services with log directories of the same name, as in containers on one network, each has its own run."""
    require(os.geteuid() == 0 and shutil.which("unshare"), "root and unshare, for a mount namespace")
    place, elsewhere = tmp_path / "logs", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    mount_first = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    apart = ["unshare", "--mount", "sh", "-c", mount_first, "sh", str(elsewhere), str(place), *GUNICORN, "wsgi:app"]
    settings = {"LLM_SHELL_LOG_DIR": str(place)}
    service = serve(command=apart, settings=settings)
    pid = service.start("exec sleep 1000")["process_pid"]
    other = serve(settings=settings)
    assert other.get("/status").status == 404
    assert "is left alone: it has no record in" in other.text
    assert other.stop() == 0
    assert service.status()["process_pid"] == pid
    assert alive(pid)
