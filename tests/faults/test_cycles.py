"""A service that has done a lot is as small as one that has done a little; `make soak` is the long form."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.soak import ENDPOINTS, Size, size_of
from tests.kit.actors import worker_of
from tests.kit.network import connections_to
from tests.kit.service import Service
from tests.kit.waiting import wait_until

CYCLES = 12
CALLERS = 64
CALLS = 6
# What an allocator may keep of a few dozen requests.
NOISE_KIB = 4096


def call_from_everywhere(service: Service, calls: int) -> Counter[int]:
    """Let many callers go through the endpoints, each beginning at another; return how often each status came."""

    def go_through(first: int) -> list[int]:
        turn = itertools.islice(itertools.cycle(ENDPOINTS), first, first + calls)
        return [service.call(method, path, body).status for method, path, body in turn]

    with ThreadPoolExecutor(CALLERS) as callers:
        return Counter(itertools.chain.from_iterable(callers.map(go_through, range(CALLERS))))


@pytest.fixture(scope="module", autouse=True)
def _warm(shared_service: Service) -> None:
    """Have the service do everything once, with all of its threads."""
    call_from_everywhere(shared_service, 2)


def assert_no_larger(service: Service, before: Size, waiting: int = 0) -> None:
    """Fail unless the worker comes back to the size it had, but for some memory, and for threads that wait for calls.

    Those that it has made for callers at the same time end after a minute without a call.
    """
    service.end_run()
    service.wait_until_alone()
    worker = worker_of(service)

    def settled() -> bool:
        now = size_of(worker)
        no_larger = now.descriptors <= before.descriptors and now.threads <= before.threads + waiting
        return not connections_to(service.port) and no_larger

    wait_until(settled)
    assert size_of(worker).resident_kib < before.resident_kib + NOISE_KIB


def settled_size(service: Service) -> Size:
    """Return the worker's size once it does nothing, and its zygote waits for a start."""
    service.wait_until_alone()
    wait_until(lambda: service.zygotes and not connections_to(service.port))
    return size_of(worker_of(service))


@pytest.mark.alone
def test_start_and_kill_leave_nothing(service: Service) -> None:
    """Many starts and kills leave no process and no zombie, and the worker with the descriptors and threads it had."""
    before = settled_size(service)
    for _ in range(CYCLES):
        service.start("echo ready; exec sleep 1000")
        assert service.post("/kill?type=SIGKILL").body["exit_code"] == -9
    assert_no_larger(service, before)


@pytest.mark.alone
def test_restarts_leave_nothing(service: Service) -> None:
    """Many restarts leave one run, and the worker with the descriptors and threads it had."""
    before = settled_size(service)
    service.start("echo ready; exec sleep 1000")
    pids = {service.post("/restart").body["process_pid"] for _ in range(CYCLES)}
    assert len(pids) == CYCLES
    assert_no_larger(service, before)


@pytest.mark.alone
def test_many_callers_get_answers(service: Service) -> None:
    """Whatever 64 callers ask for at the same time, no call fails by the service's fault and nothing is left over."""
    before = settled_size(service)
    began = time.monotonic()
    answers = call_from_everywhere(service, CALLS)
    assert sum(answers.values()) == CALLERS * CALLS
    assert set(answers) <= {200, 201, 400, 404, 409, 429}, answers
    assert answers[200] > CALLERS
    assert time.monotonic() - began < 30
    # How many of their starts found nothing running, and a place, is chance.
    service.end_run()
    service.start("echo ready; exec sleep 1000")
    assert_no_larger(service, before, waiting=CALLERS)
