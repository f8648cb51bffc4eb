"""Fixtures for real programs below real shims: under either shell, in a directory of their own, with nothing left."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.service import manage
from app.supervisor.policy import Policy
from tests.kit.leftovers import nothing_left_behind
from tests.kit.requiring import require
from tests.real.trying import Trial, tool_path

# dash 0.5.12 stays in front of a single command, bash replaces itself: the tree differs, the promise does not.
SHELLS = ("dash", "bash")


def shell_named(name: str) -> str:
    """Return the path of a shell that the test needs."""
    path = shutil.which(name)
    require(path, f"the shell {name}")
    return str(path)


@pytest.fixture(autouse=True)
def _nobody_left() -> Iterator[None]:
    """Fail a test that leaves anybody behind; strays come to this process, so that none escapes the look."""
    with nothing_left_behind():
        yield


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """Return the path of each shell in turn."""
    return shell_named(request.param)


@pytest.fixture
def trial(tmp_path: Path, shell: str) -> Iterator[Trial]:
    """Return a trial under the test's shell; what it started is ended afterwards."""
    folder = tmp_path / "work"
    folder.mkdir()
    manager = manage(tmp_path / "logs", Policy(shell=shell))
    yield Trial(manager, folder, Path(shell).name)
    manager.shut_down(0.0)
    manager.close()


def needs(*programs: str) -> None:
    """Require programs that `make test-real` installs."""
    for program in programs:
        require(shutil.which(program, path=tool_path()), f"{program}, which `make test-real` installs")
