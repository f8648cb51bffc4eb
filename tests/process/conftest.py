"""Fixtures for real shims and real children, without HTTP."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.service import manage
from app.supervisor.manager import ProcessManager
from app.supervisor.policy import Policy
from tests.kit.leftovers import assert_none_left, reap, subreaper
from tests.kit.processes import descendants
from tests.kit.requiring import require


@pytest.fixture(autouse=True)
def _nobody_left() -> Iterator[None]:
    """Fail a test that leaves anybody behind; strays come to this process, so that none escapes the look."""
    with subreaper():
        before = descendants()
        yield
        assert_none_left(before)


@pytest.fixture
def pm(tmp_path: Path) -> Iterator[ProcessManager]:
    """Return a process manager on a directory of its own; what it started is ended afterwards."""
    manager = manage(tmp_path / "logs")
    yield manager
    manager.shut_down(0.0)
    manager.close()


@pytest.fixture(params=[None, "nobody"], ids=["own user", "another user"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProcessManager]:
    """Return a process manager for each way of starting: posix_spawn, and fork and exec for another user."""
    require(request.param is None or os.geteuid() == 0, "root, to start commands as another user")
    manager = manage(tmp_path / "logs", Policy(run_as=request.param))
    yield manager
    manager.shut_down(0.0)
    manager.close()


@pytest.fixture
def orphans_reaped() -> Iterator[None]:
    """Reap in the end what was orphaned and came to this process, as gunicorn's worker would."""
    yield
    reap([pid for pid, name in descendants().items() if name.endswith("(Z)")])
