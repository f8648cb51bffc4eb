"""Ownership is exact, in every order of deaths: what tests/faults does for two deaths, for four."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from tests.kit.pairs import Stage, kill_and_check, stage
from tests.kit.requiring import require


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
