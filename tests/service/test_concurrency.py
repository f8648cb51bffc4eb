"""Several callers at once: one operation at a time, reads at any time, and /kill always gets through."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.kit.places import PROGRAMS
from tests.kit.processes import alive
from tests.kit.service import Answer, Service
from tests.kit.waiting import wait_until

CALLERS = 20
AT_ONCE = 1.0
THREADS = 16  # the default


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Return threads to call from."""
    with ThreadPoolExecutor(CALLERS) as threads:
        yield threads


@pytest.fixture
def stubborn(service: Service) -> int:
    """Return the pid of a running process that prints each SIGTERM and does nothing else about it."""
    pid = service.start(["exec", sys.executable, PROGRAMS / "stubborn.py"])["process_pid"]
    service.wait_for_output("ready")
    return int(pid)


def under_way(service: Service, pool: ThreadPoolExecutor, path: str, body: object = None) -> Future[Answer]:
    """Call something that sends SIGTERM and waits, and return when the process has got the signal."""
    call = pool.submit(service.post, path, body)
    service.wait_for_output("SIGTERM")
    assert not call.done()
    return call


def at_once(service: Service, method: str, path: str, body: object = None) -> Answer:
    """Call, and fail when the answer takes longer than a call that waits for nothing may take."""
    began = time.monotonic()
    answer = service.call(method, path, body)
    assert time.monotonic() - began < AT_ONCE, f"{method} {path} waited"
    return answer


def test_one_of_many_starts_wins(service: Service, pool: ThreadPoolExecutor) -> None:
    """Of twenty starts at once exactly one answers 201, the others 409 or, for want of a place, 429; one runs."""
    before = set(service.log_dir.glob("*.log"))
    calls = [pool.submit(service.post, "/start", {"command": f"exec sleep 30{n}"}) for n in range(CALLERS)]
    answers = [call.result() for call in calls]
    statuses = sorted(answer.status for answer in answers)
    assert statuses[0] == 201
    assert set(statuses[1:]) <= {409, 429}
    [winner] = [answer.body for answer in answers if answer.status == 201]
    assert service.status()["process_pid"] == winner["process_pid"]
    assert [str(path) for path in set(service.log_dir.glob("*.log")) - before] == [winner["log_file"]]


@pytest.mark.usefixtures("stubborn")
def test_reads_do_not_wait_for_a_kill(service: Service, pool: ThreadPoolExecutor) -> None:
    """Every read answers at once while a kill waits for a process that ignores SIGTERM."""
    began = time.monotonic()
    killing = under_way(service, pool, "/kill?timeout=3")
    for path in ("/status", "/logs", "/logs?lines=1", "/health", "/openapi.json"):
        assert at_once(service, "GET", path).status == 200
    assert not killing.done()
    assert at_once(service, "GET", "/status").body["status"] == "running"
    status, body = killing.result()
    assert status == 200
    assert (body["status"], body["signal"], body["escalated"]) == ("killed", "SIGKILL", True)
    assert time.monotonic() - began >= 3


def test_kill_joins_and_escalates(service: Service, pool: ThreadPoolExecutor, stubborn: int) -> None:
    """/kill?type=SIGKILL joins a patient /kill and ends it at once; both callers are told how it went."""
    patient = under_way(service, pool, "/kill?timeout=60")
    status, body = at_once(service, "POST", "/kill?type=SIGKILL")
    assert status == 200
    assert not alive(stubborn)
    first = patient.result(timeout=AT_ONCE)
    assert first.status == 200
    for told in (body, first.body):
        assert (told["status"], told["exit_code"], told["escalated"], told["survivors"]) == ("killed", -9, True, [])
    assert (body["type"], first.body["type"]) == ("SIGKILL", "SIGTERM")


@pytest.mark.usefixtures("stubborn")
def test_a_second_kill_may_be_less_patient(service: Service, pool: ThreadPoolExecutor) -> None:
    """A /kill with a shorter timeout ends the grace that an earlier one granted."""
    patient = under_way(service, pool, "/kill?timeout=60")
    assert at_once(service, "POST", "/kill?timeout=0.1").body["escalated"] is True
    assert patient.result(timeout=AT_ONCE).body["escalated"] is True


@pytest.mark.usefixtures("stubborn")
@pytest.mark.parametrize("query", ["?type=SIGKILL", "?timeout=0.2"])
def test_kill_cancels_a_restart(service: Service, pool: ThreadPoolExecutor, query: str) -> None:
    """/kill during a restart's grace ends the process; the restart answers 409 and nothing new is started."""
    run_id = service.status()["run_id"]
    logs = set(service.log_dir.glob("*.log"))
    restarting = under_way(service, pool, "/restart?timeout=60")
    assert at_once(service, "POST", f"/kill{query}").status == 200
    assert restarting.result(timeout=AT_ONCE).status == 409
    now = service.status()
    assert (now["status"], now["run_id"]) == ("killed", run_id)
    assert "/kill" in now["reason"]
    assert set(service.log_dir.glob("*.log")) == logs


@pytest.mark.usefixtures("stubborn")
@pytest.mark.parametrize(
    ("path", "body"),
    [("/start", {"command": "true"}), ("/start", {"command": "true", "replace": True}), ("/restart", None)],
    ids=["start", "replace", "restart"],
)
@pytest.mark.parametrize("first", ["/kill?timeout=60", "/restart?timeout=60"])
def test_another_operation_meanwhile(
    service: Service, pool: ThreadPoolExecutor, first: str, path: str, body: object
) -> None:
    """While a /kill or a /restart is under way any other operation is refused with 409 at once."""
    waiting = under_way(service, pool, first)
    try:
        meanwhile = pool.submit(service.post, path, body)
        assert wait_until(meanwhile.done, AT_ONCE)
        assert meanwhile.result().status == 409
    finally:
        service.end_run()
        waiting.result()


def test_restart_goes_through_after_the_grace(service: Service, pool: ThreadPoolExecutor, stubborn: int) -> None:
    """A restart that nobody cancels kills what outlives its grace, and starts the command again."""
    restarting = under_way(service, pool, "/restart?timeout=0.5")
    status, body = restarting.result()
    assert status == 200
    assert body["status"] == "running"
    assert body["process_pid"] != stubborn
    assert not alive(stubborn)
    assert service.wait_for_output("ready") == "ready"


def test_half_a_request_line_holds_no_thread_for_long(service: Service) -> None:
    """Clients that fall silent inside a request, more than there are threads, delay the others by seconds only."""
    with ExitStack() as clients:
        for _ in range(THREADS + 4):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", service.port)))
            client.sendall(b"GET /he")
        assert service.get("/health", timeout=20.0).status == 200
