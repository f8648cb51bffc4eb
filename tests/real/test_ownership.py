"""Ownership is exact, in every order of deaths: what tests/faults does for two deaths, for four."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator

import pytest

from tests.kit.actors import shim_of, understudy_of
from tests.kit.pairs import Stage, kill_and_check, stage
from tests.kit.processes import alive
from tests.kit.requiring import require
from tests.kit.waiting import wait_until


@pytest.fixture(params=[None, "nobody"], ids=["own user", "another user"])
def place(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Return a stage whose commands run as the service's user, and one where they run as another."""
    require(request.param is None or os.geteuid() == 0, "root, to start commands as another user")
    with stage(request.param) as made:
        yield made


@pytest.mark.parametrize("last", ["understudy-a", "shim-b"])
def test_four_killed(place: Stage, last: str) -> None:
    """Whichever order worker, zygote and two of the runs' keepers die in, all that is told of both runs is true.

    A run that loses its understudy, too, is lost; one that loses its shim alone goes on.
    """
    for victims in itertools.permutations(["worker", "zygote", "shim-a", last]):
        kill_and_check(place, victims)


def test_an_escapee_is_known_at_once(place: Stage) -> None:
    """Right after both keepers were killed, what has left the process's session is known and ended as the run's own."""
    run = place.managers.run("a")
    for _ in range(40):
        status = run.start("(setsid sh -c 'setsid sleep 1000 & echo $! ready' &) ; exit 3")
        wait_until(lambda: "ready" in run.content())
        (escapee,) = wait_until(lambda: len(pids := run.status()["leftover_pids"]) == 1 and pids)
        understudy = understudy_of(status)
        for pid in (understudy, shim_of(status)):
            os.kill(pid, signal.SIGKILL)
        assert run.status()["leftover_pids"] == [escapee]
        assert run.kill("SIGKILL")["survivors"] == []
        assert not alive(escapee)
