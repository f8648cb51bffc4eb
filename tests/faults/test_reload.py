"""SIGHUP, SIGTTIN and SIGUSR2: what an operator may send to gunicorn never hurts the process or doubles it."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.runs.record import read_record
from app.service import manage
from tests.kit.actors import Request, reload, worker_of
from tests.kit.counter import assert_whole, start_counter
from tests.kit.processes import alive, descendants, stopped
from tests.kit.service import GUNICORN, Answer, Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until

TOKEN = "a-token-for-the-reload-tests"  # noqa: S105  it opens nothing but a service of these tests


def test_a_reload_leaves_process_and_output_alone(service: Service) -> None:
    """Across reloads the same process goes on, its output has no hole, and it can be ended."""
    pid = start_counter(service, interval=0.001)
    for _ in range(2):
        reload(service)
        status = service.status()
        assert (status["status"], status["process_pid"], status["reason"]) == ("running", pid, None)
    assert service.post("/kill").body["exit_code"] == -15
    assert_whole(service.content())


def test_reloads_in_a_row_are_all_made(service: Service) -> None:
    """Each of many reloads has its worker, the ones that come too soon after others a moment later."""
    workers = {reload(service) for _ in range(8)}
    assert len(workers) == 8
    assert worker_of(service) in workers


def test_no_request_is_dropped_by_a_reload(service: Service) -> None:
    """Every request is answered, those under way at the reload and those that come during it."""
    start_counter(service, stubborn=True, interval=0.001)
    slow = Request(lambda: service.post("/kill?timeout=1"))
    wait_until(lambda: service.status()["reason"])
    with callers(service, ["/health", "/status", "/logs?lines=10"]) as answers:
        reload(service)
        seen = len(answers)
        wait_until(lambda: len(answers) > seen + 10)
    assert (killed := slow.answer()) is not None
    assert (killed.status, killed.body["exit_code"], killed.body["escalated"]) == (200, -9, True)
    assert {answer.status for answer in answers} == {200}


def test_a_reload_during_a_long_kill_changes_nothing_about_it(serve: Services) -> None:
    """The new worker tells of a /kill that the old one still waits for; its caller is answered, nothing is started."""
    service = serve()
    pid = start_counter(service, stubborn=True)
    old = worker_of(service)
    kill = Request(lambda: service.post("/kill?timeout=3"))
    wait_until(lambda: service.status()["reason"])
    os.kill(service.pid, signal.SIGHUP)
    wait_until(lambda: set(service.workers) - {old})
    with stopped(old):  # so that it is the new one that answers
        status = service.status()
    assert (status["status"], status["process_pid"]) == ("running", pid)
    assert status["reason"] == "It was asked to end and is still alive."
    assert (answer := kill.answer()) is not None
    assert (answer.status, answer.body["exit_code"], answer.body["escalated"]) == (200, -9, True)
    assert not alive(pid)
    assert service.status()["status"] == "killed"
    assert len(list(service.log_dir.glob("*.json"))) == 1


@contextmanager
def callers(service: Service, paths: list[str]) -> Iterator[list[Answer]]:
    """Call each path without a pause, on a connection of its own each time; what breaks fails the test at the end."""
    answers: list[Answer] = []
    broken: list[OSError] = []
    enough = threading.Event()

    def call(path: str) -> None:
        while not enough.is_set():
            try:
                answers.append(service.get(path))
            except OSError as error:
                broken.append(error)
                return

    threads = [threading.Thread(target=call, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert not broken


@pytest.mark.alone
def test_overlapping_workers_never_start_two_runs(service: Service) -> None:
    """Of two starts that reach the old and the new worker of a reload at the same time one is refused."""
    old = worker_of(service)
    held = HeldStart(service)
    os.kill(service.pid, signal.SIGHUP)
    (new,) = wait_until(lambda: set(service.workers) - {old})
    with stopped(old):  # so that it is the new one that answers
        assert service.get("/health").status == 200
        request = Request(lambda: service.post("/start", {"command": "exec sleep 1000"}))
        held.release()
    first, second = held.answer(), request.answer()
    assert second is not None
    assert sorted([first, second.status]) == [201, 409]
    assert live_runs(service) == 1
    wait_until(lambda: service.workers == [new])
    assert service.post("/kill").status == 200
    assert live_runs(service) == 0


def test_a_start_is_never_taken_for_dead_by_the_other_worker(tmp_path: Path) -> None:
    """While one worker starts a run, another that overlaps with it sees the old run or the new one, alive."""
    one, other = manage(tmp_path), manage(tmp_path)
    one.start("exec sleep 1000")
    seen: set[str] = set()
    enough = threading.Event()

    def look() -> None:
        while not enough.is_set():
            seen.add(other.get_status()["status"])

    looker = threading.Thread(target=look)
    looker.start()
    for _ in range(10):
        one.start("exec sleep 1000", if_running="replace")
    enough.set()
    looker.join()
    one.shut_down(0.0)
    one.close()
    other.close()
    assert seen <= {"running", "killed"}


def live_runs(service: Service) -> int:
    """Count the run records whose run has not ended."""
    records = [read_record(str(path)) for path in service.log_dir.glob("*.json")]
    return sum(record is not None and not record.state.ended for record in records)


class HeldStart:
    """A `/start` that one worker has begun to read: its head is there, its body comes with `release`."""

    BODY = json.dumps({"command": "exec sleep 1000"}).encode()

    def __init__(self, service: Service) -> None:
        self._socket = socket.create_connection(("127.0.0.1", service.port), timeout=30)
        head = f"POST /start HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\nContent-Type: application/json\r\n"
        self._socket.sendall(f"{head}Content-Length: {len(self.BODY)}\r\nConnection: close\r\n\r\n".encode())
        # Connections are accepted in their order: this answer says that ours was.
        assert service.get("/health").status == 200

    def release(self) -> None:
        """Send the body."""
        self._socket.sendall(self.BODY)

    def answer(self) -> int:
        """Return the answer's status."""
        with self._socket, self._socket.makefile("rb") as stream:
            return int(stream.readline().split()[1])


def test_faulty_settings_at_a_reload_change_nothing(serve: Services) -> None:
    """A reload with faulty settings keeps the old ones and says why; the next one with sound settings takes them."""
    service = serve()
    pid = start_counter(service, interval=0.001)
    (service.cwd / ".env").write_text(f"LLM_SHELL_TOKEN={TOKEN}\nLLM_SHELL_THREADS=many\n")
    reload(service)
    assert "Reload: the old settings stay in force." in service.text
    assert "LLM_SHELL_THREADS: must be a whole number, not 'many'." in service.text
    assert service.status()["process_pid"] == pid
    (service.cwd / ".env").write_text(f"LLM_SHELL_TOKEN={TOKEN}\n")
    reload(service)
    assert service.get("/status").status == 401
    answer = service.get("/status", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.body["process_pid"] == pid
    assert TOKEN not in service.text


def test_what_cannot_change_at_a_reload_is_refused(serve: Services) -> None:
    """Another log directory or address at a reload is refused by name, and the service goes on where it is."""
    # What the environment says outweighs the file.
    service = serve(command=("env", "-u", "LLM_SHELL_LOG_DIR", *GUNICORN, "wsgi:app"))
    (service.cwd / ".env").write_text("LLM_SHELL_LOG_DIR=elsewhere\nLLM_SHELL_HOST=127.0.0.2\n")
    reload(service)
    assert "LLM_SHELL_LOG_DIR: can't change while the service runs" in service.text
    assert "LLM_SHELL_HOST: can't change while the service runs (it is 127.0.0.1): restart it." in service.text
    assert service.get("/health").status == 200
    assert not (service.cwd / "elsewhere").exists()


def test_a_reload_never_takes_the_token_from_an_open_address(serve: Services, tmp_path: Path) -> None:
    """A token that a reload would remove stays in force where gunicorn's own option made the address a public one."""
    (tmp_path / ".env").write_text(f"LLM_SHELL_TOKEN={TOKEN}\n")
    service = serve("--bind", "0.0.0.0:0", cwd=tmp_path)
    (tmp_path / ".env").write_text("")
    reload(service)
    assert "Reload: the old settings stay in force." in service.text
    assert service.get("/status").status == 401


def test_a_second_worker_is_refused(service: Service) -> None:
    """SIGTTIN gives no second worker and hurts nothing; the log says why."""
    pid = start_counter(service)
    worker = worker_of(service)
    os.kill(service.pid, signal.SIGTTIN)
    wait_until(lambda: "2 workers refused" in service.text)
    assert "exactly one worker" in service.text
    assert service.status()["process_pid"] == pid
    assert service.workers == [worker]


def test_a_second_master_is_refused(service: Service) -> None:
    """SIGUSR2 gives no second master and hurts nothing; the log says why, each time."""
    pid = start_counter(service)
    before = descendants(service.pid).keys()
    for _ in range(2):
        refusals = service.text.count("USR2 refused")
        os.kill(service.pid, signal.SIGUSR2)
        wait_until(lambda: service.text.count("USR2 refused") > refusals)  # noqa: B023  it is called in this turn only
        wait_until(lambda: descendants(service.pid).keys() == before)
    assert alive(pid)
    assert service.status()["process_pid"] == pid
    assert service.text.count("Listening at") == 1
