"""A wall clock that is set while the service runs changes when things are said to be, and nothing else."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.log.clock import parse_time
from tests.kit.counter import assert_whole, start_counter
from tests.kit.machine import log_records
from tests.kit.service import GUNICORN, Service
from tests.kit.services import services_in
from tests.kit.waiting import wait_until

DAY = 86_400
CLOCK = Path(__file__).with_name("stepped_clock.py")


@dataclass
class Clock:
    """Set the service's wall clock by writing to a file."""

    offset: Path

    def step(self, seconds: int) -> None:
        """Set it so many seconds off the true time, at once."""
        fresh = self.offset.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.rename(self.offset)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    """Return the wall clock of `stepped`."""
    clock = Clock(tmp_path_factory.mktemp("clock") / "offset")
    clock.step(0)
    return clock


@pytest.fixture(scope="module")
def shared_service(clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a service that keeps one run and whose wall clock can be set."""
    command = (sys.executable, str(CLOCK), *GUNICORN[3:], "wsgi:app")
    settings = {"STEPPED_CLOCK": str(clock.offset), "LLM_SHELL_LOG_KEEP": "1"}
    with services_in(tmp_path_factory.mktemp("stepped")) as services:
        yield services(command=command, settings=settings)


@pytest.fixture
def stepped(service: Service, clock: Clock) -> Service:
    """Return the service, its clock right; it may have kept a run from what was once the future."""
    clock.step(0)
    return service


def seconds_between(earlier: str, later: str) -> float:
    """Return the time between two timestamps."""
    return (parse_time(later) - parse_time(earlier)) / 1e9


@pytest.mark.parametrize("step", [-DAY, DAY], ids=["back", "forward"])
def test_a_step_disturbs_neither_log_nor_reading(stepped: Service, clock: Clock, step: int) -> None:
    """Timestamps of one run go on from its start, seconds= counts time that has passed, and so does the uptime."""
    began = time.monotonic()
    pid = start_counter(stepped, pause_at=100, count=200)
    clock.step(step)
    assert stepped.content("?seconds=3600").endswith("\n100")
    os.kill(pid, signal.SIGUSR1)
    status = stepped.wait_for_exit()
    stamps = [record["timestamp"] for record in log_records(status)]
    assert_whole(stepped.content("?seconds=3600"), last=200)
    assert stepped.content("?seconds=0") == ""
    assert stamps == sorted(stamps)
    assert status["created_at"] <= stamps[0]
    assert stamps[-1] <= status["stopped_at"]
    assert seconds_between(status["created_at"], status["stopped_at"]) <= time.monotonic() - began
    assert 0 <= stepped.get("/health").body["uptime"] < DAY / 2


@pytest.mark.parametrize("step", [-DAY, DAY], ids=["back", "forward"])
def test_a_run_started_after_a_step_has_the_new_time(stepped: Service, clock: Clock, step: int) -> None:
    """The next run's name and times are the wall clock's, and the last seconds of both runs stay readable."""
    first = stepped.start("echo first; exec sleep 1000")
    stepped.wait_for_output("first")
    clock.step(step)
    second = stepped.start("echo second", replace=True)
    assert abs(seconds_between(first["created_at"], second["created_at"]) - step) < 60
    assert (second["run_id"] > first["run_id"]) == (step > 0)
    stepped.wait_for_exit()
    assert stepped.content("?seconds=60") == "second"


def test_the_current_run_is_kept_though_its_name_is_the_oldest(stepped: Service, clock: Clock) -> None:
    """Retention never removes the current run's files, even where a clock set back makes them look the oldest."""
    clock.step(2 * DAY)
    stepped.start("echo first")
    newest = Path(stepped.wait_for_exit()["log_file"])
    clock.step(DAY)
    stepped.start("echo second", replace=True)
    between = Path(stepped.wait_for_exit()["log_file"])
    clock.step(0)
    # It writes nothing, or its shim would make anew what was removed.
    status = stepped.start("exec sleep 1000")
    wait_until(lambda: not between.exists())
    assert Path(status["log_file"]).exists()
    assert newest.exists()
    assert status["log_file"] < str(between)
