"""A zygote lives as long as the worker that it serves, and ends with it at the latest."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.kit.actors import worker_of, zygote_of
from tests.kit.processes import alive, send, stopped
from tests.kit.service import Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until


def test_it_ends_with_its_worker(service: Service) -> None:
    """A worker that was killed or reloaded takes its zygote along, and the next one has its own."""
    for number in (signal.SIGKILL, signal.SIGHUP):
        worker = worker_of(service)
        pid = zygote_of(worker)
        os.kill(*((worker, number) if number == signal.SIGKILL else (service.pid, number)))
        wait_until(lambda: not alive(pid))  # noqa: B023  it is called in this turn only
        wait_until(lambda: len(now := service.workers) == 1 and now != [worker], 20)  # noqa: B023  so is this
        wait_until(service.answers)
        service.start("true")
        service.wait_for_exit()
        assert zygote_of(worker_of(service)) != pid


def test_a_stopped_one_ends_with_the_service(serve: Services) -> None:
    """A zygote that was stopped when its worker died has gone when the service has."""
    service = serve()
    service.start("true")
    worker = worker_of(service)
    pid = zygote_of(worker)
    send(signal.SIGSTOP, pid)
    send(signal.SIGKILL, worker)
    wait_until(service.answers, 20)
    assert service.stop() == 0
    assert not alive(pid)


@pytest.mark.parametrize("halt", [False, True], ids=["awake", "stopped"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_it_has_gone_when_the_service_has(serve: Services, number: signal.Signals, halt: bool) -> None:
    """When the master exits there is no zygote any more, however the stop was asked for, and no word was lost on it."""
    service = serve()
    service.start("true")
    pid = zygote_of(worker_of(service))
    if halt:
        send(signal.SIGSTOP, pid)
    began = time.monotonic()
    assert service.stop(number) == 0
    assert not alive(pid)
    assert time.monotonic() - began < 3
    assert "Traceback" not in service.text


def test_ctrl_c_at_the_terminal_is_quiet(serve: Services) -> None:
    """An interrupt that reaches the whole process group, as a terminal's does, ends all without a traceback."""
    service = serve()
    service.start("true")
    pid = zygote_of(worker_of(service))
    os.killpg(service.pid, signal.SIGINT)
    assert service.wait() == 0
    assert not alive(pid)
    assert "Traceback" not in service.text


def test_a_stopped_worker_hurries_no_zygote(service: Service) -> None:
    """A worker that is stopped for a while has the same zygote afterwards."""
    service.start("true")
    pid = zygote_of(worker_of(service))
    with stopped(worker_of(service)):
        over = time.monotonic() + 1  # a zygote that looks at its worker's state would have ended by then
        wait_until(lambda: time.monotonic() > over or not alive(pid))
        assert alive(pid)
    service.start("true", replace=True)
    assert zygote_of(worker_of(service)) == pid
