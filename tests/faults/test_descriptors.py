"""A worker that is short of descriptors for a moment loses none of them, and nothing of the run it answers for."""

from __future__ import annotations

import os
import resource
import signal

import pytest

from tests.faults.test_limits import A_REQUEST, descriptors_left
from tests.kit.actors import record_of, shim_of, worker_of
from tests.kit.counter import assert_whole, start_counter
from tests.kit.machine import limited
from tests.kit.processes import descriptors_of, send
from tests.kit.service import Service
from tests.kit.waiting import wait_until

# From what the worker has open anyway to more than a new connection to the run's keeper needs.
LIMITS = range(14, 34)


def lose_shim(service: Service, limit: int) -> None:
    """Kill the run's shim while its worker may have so few descriptors, until the worker has lost its connection."""
    status = service.status()
    shim, worker = shim_of(status), worker_of(service)
    before = descriptors_of(worker).items()
    with limited(worker, resource.RLIMIT_NOFILE, limit):
        send(signal.SIGKILL, shim)
        wait_until(lambda: (now := record_of(status).shim) and now.pid != shim)
        wait_until(lambda: before - descriptors_of(worker).items())


def test_a_takeover_without_descriptors_is_made_up_for(service: Service) -> None:
    """Whatever descriptor a takeover lacked for a moment, /kill ends the run then, and the worker holds no more."""
    service.start("true")
    service.wait_for_exit(10)
    wait_until(lambda: service.zygotes)
    before = len(descriptors_of(worker_of(service)))
    for limit in LIMITS:
        service.start("exec sleep 1000")
        lose_shim(service, limit)
        status, killed = service.post("/kill")
        assert (status, killed["exit_code"], killed["survivors"]) == (200, -15, []), limit
        service.wait_until_alone()
    wait_until(lambda: service.zygotes)
    wait_until(lambda: len(descriptors_of(worker_of(service))) <= before)


@pytest.mark.parametrize("limit", [14, 20, 24])
def test_the_output_is_kept_through_it(service: Service, limit: int) -> None:
    """Whatever the worker lacks at a takeover, the command gets no SIGPIPE, all it prints is kept and its code true."""
    pid = start_counter(service, pause_at=100, count=200, exit_code=7)
    lose_shim(service, limit)
    os.kill(pid, signal.SIGUSR1)
    assert service.wait_for_exit(10)["exit_code"] == 7
    assert_whole(service.content(), 200)


def test_an_ended_run_holds_no_descriptor(service: Service) -> None:
    """A run that the worker saw begin and end takes no descriptor of it from then on, ended by itself or killed."""
    wait_until(lambda: service.zygotes)
    before = len(descriptors_of(worker_of(service)))
    for command in ("sleep 0.3", "exec sleep 1000"):
        service.start(command)
        assert len(descriptors_of(worker_of(service))) > before
        if "1000" in command:
            service.post("/kill")
        service.wait_for_exit(10)
        service.wait_until_alone()
        wait_until(lambda: service.zygotes)
        wait_until(lambda: len(descriptors_of(worker_of(service))) == before)


def test_refused_starts_leak_nothing(service: Service) -> None:
    """Starts that fail for want of a descriptor, whichever, leave the worker with those that it had."""
    service.start("true")
    service.wait_for_exit(10)
    service.wait_until_alone()
    wait_until(lambda: service.zygotes)
    before = len(descriptors_of(worker_of(service)))
    for more in range(A_REQUEST, A_REQUEST + 14):
        send(signal.SIGSTOP, *service.zygotes)
        with descriptors_left(service, more):
            answer = service.post("/start", {"command": "true"})
        assert answer.status in {201, 500}
        send(signal.SIGCONT, *service.zygotes)
        wait_until(lambda: (now := service.status())["stopped_at"] and not now["output_open"])
        service.wait_until_alone()
    wait_until(lambda: service.zygotes)
    wait_until(lambda: len(descriptors_of(worker_of(service))) <= before)
