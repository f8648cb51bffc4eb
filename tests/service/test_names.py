"""Twenty processes at a time: no operation on one name waits for, refuses or touches another."""

from __future__ import annotations

import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.kit.actors import reload, worker_of
from tests.kit.places import PROGRAMS
from tests.kit.processes import alive, send
from tests.kit.service import Service
from tests.kit.services import Services, successor_of
from tests.kit.waiting import wait_until

MANY = 20
NAMES = [f"n{number}" for number in range(MANY)]
STUBBORN = f"exec {sys.executable} {PROGRAMS / 'stubborn.py'}"
PATIENCE = 4.0


def start_all(service: Service, command: str) -> dict[str, int]:
    """Start a command under each name at the same time, and return the pids."""
    with ThreadPoolExecutor(MANY) as threads:
        started = list(threads.map(lambda name: service.start(command, name=name), NAMES))
    assert [one["name"] for one in started] == NAMES
    return {one["name"]: one["process_pid"] for one in started}


def ready(service: Service) -> bool:
    """Tell whether each has said that it is."""
    return all(service.content(f"?name={name}") == "ready" for name in NAMES)


def test_twenty_at_the_same_time(service: Service) -> None:
    """Starts, slow kills and restarts of twenty names all go on at once, and none is refused."""
    first = start_all(service, STUBBORN)
    wait_until(lambda: ready(service))
    began = time.monotonic()
    calls = [f"/{'restart' if number % 2 else 'kill'}?name=n{number}&timeout={PATIENCE}" for number in range(MANY)]
    with ThreadPoolExecutor(MANY) as threads:
        answers = [threads.submit(service.post, call) for call in calls]
        wait_until(lambda: all(service.get(f"/status?name={name}").body["reason"] for name in NAMES))
        assert service.start("true", name="another")["status"] == "running"
        assert service.post("/kill?name=unknown").status == 404
        assert not any(answer.done() for answer in answers)
        assert {answer.result().status for answer in answers} == {200}
    assert time.monotonic() - began < 2 * PATIENCE
    assert not any(map(alive, first.values()))
    now = {name: service.get(f"/status?name={name}").body["status"] for name in NAMES}
    assert now == {name: "running" if number % 2 else "killed" for number, name in enumerate(NAMES)}
    assert service.post("/kill?all=true&type=SIGKILL").body["survivors"] == []


def test_the_next_worker_takes_all_over(service: Service) -> None:
    """After a reload, and after a SIGKILL of the worker, each name has its process, and no other."""
    pids = start_all(service, "exec sleep 1000")
    reload(service)
    assert {name: service.get(f"/status?name={name}").body["process_pid"] for name in NAMES} == pids
    worker = worker_of(service)
    send(signal.SIGKILL, worker)
    wait_until(lambda: worker_of(service) != worker)
    listed = service.get("/processes").body["processes"]
    assert {one["name"]: one["process_pid"] for one in listed if one["status"] == "running"} == pids
    assert all(map(alive, pids.values()))
    assert service.post("/kill?all=true").body["survivors"] == []


def test_a_stop_ends_all_within_the_bound_for_one(serve: Services) -> None:
    """Stopping a service with twenty stubborn processes takes as long as with one: they are ended side by side."""
    service = serve()
    pids = start_all(service, STUBBORN)
    wait_until(lambda: ready(service))
    began = time.monotonic()
    service.stop()
    assert time.monotonic() - began < 5 + 5  # the grace, and what gunicorn and a busy machine add
    assert not any(map(alive, pids.values()))


def test_kept_processes_are_the_next_service_s(serve: Services) -> None:
    """With ON_SHUTDOWN=keep every name goes on, and the next service ends each by its name."""
    service = serve(settings={"LLM_SHELL_ON_SHUTDOWN": "keep"})
    pids = start_all(service, "exec sleep 1000")
    service.stop()
    assert all(map(alive, pids.values()))
    heir = successor_of(service, serve)
    assert heir.post("/kill?name=n3").body["status"] == "killed"
    assert [name for name, pid in pids.items() if not alive(pid)] == ["n3"]
    assert {one["name"] for one in heir.post("/kill?all=true").body["killed"]} == pids.keys() - {"n3"}


def test_all_is_ended_whatever_it_is(service: Service) -> None:
    """/kill?all=true ends processes, leftovers of ended ones, and daemons of past runs."""
    service.start("exec sleep 1000", name="a")
    service.start("sleep 1000 & echo $!; exit 0", name="b")
    service.start("setsid -f sleep 1000 > /dev/null 2>&1; exit 0", name="c")
    wait_until(lambda: service.get("/status?name=c").body["daemons"])
    daemon = service.get("/status?name=c").body["daemons"][0]["pid"]
    service.start("exec sleep 1000", name="c")
    leftover = wait_until(lambda: service.get("/status?name=b").body["leftover_pids"])[0]
    status, body = service.post("/kill?all=true")
    assert (status, body["survivors"]) == (200, [])
    assert sorted(one["name"] for one in body["killed"]) == ["a", "b", "c", "c"]
    assert not any(map(alive, (leftover, daemon)))
