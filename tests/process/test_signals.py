"""A command begins with every signal at its default, whichever way it is started."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.runs.spec import Spec
from app.service import manage
from app.supervisor.policy import Policy
from app.supervisor.process import ProcessManager
from tests.kit.output import content
from tests.kit.requiring import require
from tests.kit.waiting import ended


@pytest.fixture(params=[None, "nobody"], ids=["own user", "another user"])
def pm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProcessManager]:
    """Return a process manager for each way of starting: posix_spawn, and fork and exec for another user."""
    require(request.param is None or os.geteuid() == 0, "root, to start commands as another user")
    manager = manage(tmp_path / "logs", Policy(run_as=request.param))
    yield manager
    manager.shut_down(0.0)
    manager.close()


def test_no_signal_is_ignored_blocked_or_caught(pm: ProcessManager) -> None:
    """Not even 32 and 33, which are the C library's own and which its posix_spawn leaves ignored; nor in a restart."""
    pm.start(Spec("exec cat /proc/self/status", cwd="/"))
    for again in (True, False):
        ended(pm.get_status)
        masks = dict(line.split(":\t") for line in content(pm).splitlines() if line.startswith("Sig"))
        assert {name: int(masks[name], 16) for name in ("SigIgn", "SigBlk", "SigCgt", "SigPnd")} == {
            "SigIgn": 0,
            "SigBlk": 0,
            "SigCgt": 0,
            "SigPnd": 0,
        }
        if again:
            pm.restart()


@pytest.mark.parametrize("number", [32, 33, 34, 64])
def test_a_real_time_signal_ends_the_command(pm: ProcessManager, number: int) -> None:
    """A command is ended by signals that it does not handle, those of the C library included."""
    pm.start(Spec(f"kill -{number} $$; sleep 1", cwd="/"))
    assert ended(pm.get_status)["exit_code"] == -number
