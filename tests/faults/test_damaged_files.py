"""Whatever a stranger or a crash does to the files, what is left is served and the process can be ended."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.runs.record import record_path, spare_path
from tests.kit.actors import keepers_of, record_of, shim_of, worker_of
from tests.kit.counter import assert_whole, counter, go_on, numbers, start_counter
from tests.kit.machine import log_records
from tests.kit.processes import alive, send
from tests.kit.service import Service
from tests.kit.waiting import wait_until

Damage = Callable[[Path], object]
DAMAGES: dict[str, Damage] = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\0\xff{garbage" * 1000),
    "no UTF-8 in a text": lambda path: path.write_bytes(path.read_bytes().replace(b'"command":"', b'"command":"\xff')),
    "deeply nested": lambda path: path.write_bytes(b'{"a":' * 20_000),
    "cut": lambda path: os.truncate(path, 40),
    "removed": lambda path: path.unlink(),
}
LINES = 3000


@pytest.fixture(params=DAMAGES)
def damage(request: pytest.FixtureRequest) -> Damage:
    """Return each way in which a file gets broken."""
    return DAMAGES[request.param]


def record_file(status: dict[str, Any]) -> Path:
    """Return where the record of the run lies."""
    return Path(record_path(status["log_file"]))


@pytest.mark.alone
def test_output_goes_on_after_the_log_directory_was_removed(service: Service) -> None:
    """What is printed after the removal is in a new log of the same name, numbered on, and the run has a record."""
    pid = start_counter(service, pause_at=100, count=200, exit_code=3)
    shutil.rmtree(service.log_dir)
    assert service.status()["process_pid"] == pid
    go_on(pid)
    status = service.wait_for_exit()
    assert status["exit_code"] == 3
    assert numbers(service.content()) == list(range(101, 201))
    assert [record["seq"] for record in log_records(status)] == list(range(102, 202))
    assert record_of(status).state.exit_code == 3


@pytest.mark.alone
def test_a_process_can_be_ended_after_the_log_directory_was_removed(service: Service) -> None:
    """With no directory every call has an answer, /kill ends the process, and the next start makes a directory."""
    pid = start_counter(service, pause_at=10)
    shutil.rmtree(service.log_dir)
    assert service.get("/logs").status in {200, 404}
    assert service.get("/health").status == 200
    status, killed = service.post("/kill")
    assert (status, killed["exit_code"], alive(pid)) == (200, -15, False)
    service.start("echo again")
    service.wait_for_exit()
    assert service.content() == "again"


@pytest.mark.alone
def test_a_worker_finds_the_process_after_the_log_directory_was_removed(service: Service) -> None:
    """A run that was asked for since the removal is known to the next worker, too."""
    pid = start_counter(service, pause_at=100, count=200, exit_code=3)
    shutil.rmtree(service.log_dir)
    service.status()
    send(signal.SIGKILL, worker_of(service))
    worker_of(service)
    assert service.status()["process_pid"] == pid
    go_on(pid)
    assert service.wait_for_exit()["exit_code"] == 3


def test_a_truncated_log_goes_on(service: Service) -> None:
    """After a stranger emptied the log, later lines follow from its beginning with the numbers they would have had."""
    pid = start_counter(service, pause_at=100, count=200)
    os.truncate(service.status()["log_file"], 0)
    assert service.get("/logs?lines=5").body["content"] == ""
    go_on(pid)
    status = service.wait_for_exit()
    assert numbers(service.content()) == list(range(101, 201))
    assert [record["seq"] for record in log_records(status)] == list(range(102, 202))


def test_a_torn_record_spoils_no_other(service: Service) -> None:
    """A record that a dying shim left unfinished is skipped, and its understudy writes on lines of its own."""
    pid = start_counter(service, pause_at=100, count=200)
    status, worker = service.status(), worker_of(service)
    understudy, shim = keepers_of(status)
    # The understudy opens the log after that only; the worker would wake it.
    send(signal.SIGSTOP, worker, understudy)
    send(signal.SIGKILL, shim)
    with Path(status["log_file"]).open("ab") as log:
        log.write(b'{"seq":102,"timest')
    send(signal.SIGCONT, understudy, worker)
    wait_until(lambda: (now := record_of(status).shim) and now.pid == understudy)
    go_on(pid)
    service.wait_for_exit()
    assert_whole(service.content(), last=200)


@pytest.mark.parametrize("garbage", [bytes(5000), b"\xff\xfe garbage \n{}\n[1]\n" * 200], ids=["NUL", "bytes"])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0], ids=["begin", "middle", "end"])
def test_garbage_in_a_log_is_read_around(service: Service, garbage: bytes, place: float) -> None:
    """Every whole record before and after overwritten bytes is served, by count, by time and all together."""
    service.start(f"seq {LINES}")
    log = Path(service.wait_for_exit()["log_file"])
    offset = int(place * (log.stat().st_size - len(garbage)))
    with log.open("r+b") as file:
        file.seek(offset)
        file.write(garbage)
    kept = numbers(service.content())
    assert kept == numbers(service.content("?seconds=600"))
    assert kept == sorted(set(kept))
    assert LINES * 0.8 < len(kept) < LINES
    assert (kept[0] > 1, kept[-1] < LINES) == (place == 0.0, place == 1.0)
    assert numbers(service.content("?lines=10")) == kept[-10:]
    assert numbers(service.content("?lines=2700")) == kept[-2700:]


def test_a_broken_record_of_a_live_run_is_made_anew(service: Service, damage: Damage) -> None:
    """A record that got broken while the process runs holds nothing up; the next change writes a whole one."""
    pid = start_counter(service, pause_at=10)
    started = service.status()
    shim_of(started)
    damage(record_file(started))
    assert service.status() == started
    status, killed = service.post("/kill")
    assert (status, killed["exit_code"], alive(pid)) == (200, -15, False)
    assert record_of(started).state.exit_code == -15


def test_a_worker_finds_a_run_whose_record_is_broken(service: Service, damage: Damage) -> None:
    """A worker that finds the record broken takes the run over with the spare: same pid, no hole, true exit code."""
    pid = start_counter(service, pause_at=100, count=200, exit_code=3)
    started = service.status()
    shim_of(started)
    damage(record_file(started))
    send(signal.SIGKILL, worker_of(service))
    worker_of(service)
    assert service.status()["process_pid"] == pid
    go_on(pid)
    assert service.wait_for_exit()["exit_code"] == 3
    assert_whole(service.content(), last=200)


def test_a_broken_record_of_an_ended_run_is_history(service: Service, damage: Damage) -> None:
    """A run that ended and whose record is broken costs its successor nothing: its log is read, the next run works.

    The last run that is known is then the one before.
    """
    service.start("echo before; exit 6")
    before = service.wait_for_exit()
    run_id = service.start(counter(count=50))["run_id"]
    ended = service.wait_for_exit()
    spare = Path(spare_path(str(record_file(ended))))
    wait_until(lambda: '"ended":true' in spare.read_text())  # the last that the shim writes
    damage(record_file(ended))
    damage(spare)
    send(signal.SIGKILL, worker_of(service))
    worker_of(service)
    assert service.status() == before
    assert service.get(f"/status?run_id={run_id}").status == 404
    assert_whole(service.content(f"?run_id={run_id}"), last=50)
    assert service.start("echo again")["run_id"] != run_id
    service.wait_for_exit()
    assert service.content() == "again"
