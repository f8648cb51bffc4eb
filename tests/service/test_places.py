"""However many operations wait, there is a thread for whoever looks, and a place for the one call that ends it all."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kit.calling import exchange
from tests.kit.places import PROGRAMS
from tests.kit.service import Service
from tests.kit.services import Services, lent, services_in
from tests.kit.waiting import wait_until

THREADS = 4  # the least
CALLERS = 12


@pytest.fixture(scope="module")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a service with as few threads as may be."""
    with services_in(tmp_path_factory.mktemp("shared")) as services:
        yield few_threads(services)


def few_threads(services: Services) -> Service:
    """Start one."""
    return services(settings={"LLM_SHELL_THREADS": str(THREADS)})


@pytest.fixture
def service(shared_service: Service) -> Iterator[Service]:
    """Return it with a process on it that ignores SIGTERM."""
    with lent(shared_service) as service:
        service.start(["exec", sys.executable, PROGRAMS / "stubborn.py"])
        service.wait_for_output("ready")
        yield service


def test_two_operations_wait_and_the_others_are_told(service: Service) -> None:
    """Of a dozen patient /kills two wait; the others are 429 with Retry-After at once, and all else works meanwhile."""
    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [pool.submit(service.post, "/kill?timeout=60") for _ in range(CALLERS)]
        wait_until(lambda: sum(call.done() for call in calls) == CALLERS - 2)
        assert {call.result().status for call in calls if call.done()} == {429}
        for path in ("/status", "/health", "/logs"):
            began = time.monotonic()
            assert service.get(path).status == 200
            assert time.monotonic() - began < 1
        for path, body in (("/start", {"command": "true"}), ("/restart", None), ("/kill", None)):
            refused = service.post(path, body)
            assert (refused.status, refused.body["title"]) == (429, "Too Many Requests")
            assert "/kill?type=SIGKILL" in refused.body["detail"]
        reply = exchange(service.connect(5.0), "POST", "/kill")
        assert (reply.status, reply.headers["Retry-After"]) == (429, "1")
        assert service.status()["status"] == "running"
        status, killed = service.post("/kill?type=SIGKILL")
        assert (status, killed["signal"], killed["survivors"]) == (200, "SIGKILL", [])
        answers = [call.result().status for call in calls]
    assert sorted(answers) == [200] * 2 + [429] * (CALLERS - 2)
