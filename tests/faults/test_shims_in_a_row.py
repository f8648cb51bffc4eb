"""Many shims are killed one after the other: nothing of them is kept."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from bench.soak import size_of
from tests.kit.actors import kill_shim, shim_of, understudy_of, worker_of, zygote_of
from tests.kit.executions import Executions, started
from tests.kit.processes import send
from tests.kit.service import Service
from tests.kit.waiting import wait_until

TIMES = 25


def sizes(service: Service) -> list[tuple[int, int]]:
    """Return how many descriptors and threads worker and zygote have once they do nothing."""
    service.wait_until_alone()
    worker = worker_of(service)
    return [size_of(pid)[:2] for pid in (worker, zygote_of(worker))]


def lose_shims(service: Service, times: int) -> None:
    """Kill the shims of so many runs, some of which end by themselves and some by /kill."""
    for number in range(times):
        pid = service.start("trap 'exit 5' USR1; echo ready; while :; do sleep 0.02; done")["process_pid"]
        service.wait_for_output("ready")
        kill_shim(service)
        if number % 2:
            os.kill(pid, signal.SIGUSR1)
        else:
            assert service.post("/kill?type=SIGKILL").body["survivors"] == []
        assert service.wait_for_exit()["exit_code"] == (5 if number % 2 else -9)


def assert_settles(service: Service, before: list[tuple[int, int]]) -> None:
    """Fail unless worker and zygote come back to the descriptors and threads that they had, the same processes."""
    wait_until(lambda: all(now <= then for now, then in zip(sizes(service), before, strict=True)))


def test_killed_shims_leave_nothing(service: Service) -> None:
    """Twenty-five runs whose shims were killed leave no thread, no descriptor, no process and no zombie."""
    lose_shims(service, 2)
    before, zygote = sizes(service), zygote_of(worker_of(service))
    lose_shims(service, TIMES)
    assert zygote_of(worker_of(service)) == zygote
    assert_settles(service, before)


def test_lost_runs_leave_nothing(service: Service) -> None:
    """Nor do runs that lost shim and understudy."""

    def lose(times: int) -> None:
        for _ in range(times):
            status = service.start("setsid sleep 1000 & exec sleep 1000")
            send(signal.SIGKILL, shim_of(status), understudy_of(status))
            assert service.post("/kill?type=SIGKILL").body["survivors"] == []

    lose(2)
    before = sizes(service)
    lose(TIMES // 3)
    assert_settles(service, before)


def test_killed_zygotes_leave_nothing(service: Service, tmp_path: Path) -> None:
    """Nor do killed zygotes: each is reaped, and the next start has another."""
    executions = Executions(service, tmp_path / "executions")
    started(executions)
    before = sizes(service)
    for _ in range(TIMES // 3):
        send(signal.SIGKILL, zygote_of(worker_of(service)))
        started(executions)
    executions.check()
    assert_settles(service, before)
