"""A command begins with every signal at its default, whichever way it is started."""

import pytest

from app.runs.spec import Spec
from app.supervisor.manager import ProcessManager
from tests.kit.output import content
from tests.kit.waiting import ended


def test_no_signal_is_ignored_blocked_or_caught(either: ProcessManager) -> None:
    """Not even 32 and 33, which are the C library's own and which its posix_spawn leaves ignored; nor in a restart."""
    either.start(Spec("exec cat /proc/self/status", cwd="/"))
    for again in (True, False):
        ended(either.get_status)
        masks = dict(line.split(":\t") for line in content(either).splitlines() if line.startswith("Sig"))
        assert {name: int(masks[name], 16) for name in ("SigIgn", "SigBlk", "SigCgt", "SigPnd")} == {
            "SigIgn": 0,
            "SigBlk": 0,
            "SigCgt": 0,
            "SigPnd": 0,
        }
        if again:
            either.restart()


@pytest.mark.parametrize("number", [32, 33, 34, 64])
def test_a_real_time_signal_ends_the_command(either: ProcessManager, number: int) -> None:
    """A command is ended by signals that it does not handle, those of the C library included."""
    either.start(Spec(f"kill -{number} $$; sleep 1", cwd="/"))
    assert ended(either.get_status)["exit_code"] == -number
