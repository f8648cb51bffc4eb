"""Output that one program has made non-blocking for all others blocks again, so that they lose none of it."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from app.runs.spec import Spec
from app.supervisor.manager import ProcessManager
from tests.kit.actors import shim_of
from tests.kit.machine import log_records
from tests.kit.output import content
from tests.kit.processes import send
from tests.kit.waiting import ended, wait_until

LINES = 40_000
LINE = "x" * 99
FLOOD = f"yes {LINE} | head -n {LINES}; echo rc=$?"
# Sets the flag, as ssh and node do, and prints now and then until it finds the flag cleared.
PROGRAM = """
import os, sys, time
os.set_blocking(1, False)
for _ in range(50):
    if os.get_blocking(1):
        break
    print("still non-blocking", flush=True)
    time.sleep(0.1)
"""
PYTHON = "/usr/bin/python3"  # which any user may execute
SETS = f"{PYTHON} -c '{PROGRAM}'"
FILLS = """
import os, time
block = (b"x" * 99 + b"\\n") * 600
written = len(block)
try:
    while written == len(block):
        os.set_blocking(1, False)
        written = os.write(1, block)
except BlockingIOError:
    pass
while not os.get_blocking(1): time.sleep(0.01)
print("", "blocks again", sep="\\n", flush=True)
"""


def start(pm: ProcessManager, command: str) -> None:
    """Start a command where any user may be."""
    pm.start(Spec(command, cwd="/"))


def whole(pm: ProcessManager) -> list[str]:
    """Wait until all output is there, and return its lines without those of the program that set the flag."""
    ended(pm.get_status, 60)
    wait_until(lambda: not pm.get_status()["output_open"])
    return [record["line"] for record in log_records(pm.get_status()) if record["line"] != "still non-blocking"]


def expected() -> list[str]:
    """Return the lines of a flood that is whole."""
    return [*[LINE] * LINES, "rc=0"]


@pytest.mark.parametrize(
    "command",
    [f"{SETS}; {FLOOD}", f"exec 3>&1 1>&2; {SETS}; {FLOOD}", f"exec 2>/dev/null; {SETS}; {FLOOD}"],
    ids=["as it was started", "also as descriptor 3", "standard error elsewhere"],
)
def test_output_blocks_again_once_some_has_come(either: ProcessManager, command: str) -> None:
    """After the first output of the program that made it non-blocking, a flood of the next one is whole."""
    start(either, command)
    assert whole(either) == expected()


def test_only_standard_error_is_left(either: ProcessManager) -> None:
    """A command that writes to a file, and has kept standard error alone, is recognised by that."""
    start(
        either, f"exec 1>/dev/null; {SETS.replace('(1', '(2').replace('flush=True', 'file=sys.stderr')} ; ({FLOOD}) >&2"
    )
    assert whole(either) == expected()


def test_the_process_has_ended(either: ProcessManager) -> None:
    """What is left of a command whose process has ended is looked at, too."""
    start(either, f"(sleep 0.2; {SETS}; {FLOOD}) & exit 0")
    assert whole(either) == expected()


def test_the_process_writes_elsewhere(either: ProcessManager) -> None:
    """Where the process has given its output to another one, such as tee, that one's descriptor is looked at."""
    start(either, f"({SETS}; {FLOOD}) & exec >/dev/null 2>&1; wait")
    assert whole(either) == expected()


def test_an_understudy_does_as_its_shim_did(pm: ProcessManager, tmp_path: Path) -> None:
    """What has taken over from a killed shim keeps the output blocking, too."""
    start(pm, f"until [ -e {tmp_path}/go ]; do sleep 0.01; done; {SETS}; {FLOOD}")
    send(signal.SIGKILL, shim_of(pm.get_status()))
    (tmp_path / "go").touch()
    assert whole(pm) == expected()


def test_an_end_that_the_shim_borrows_does_not_hold_the_output_open(pm: ProcessManager) -> None:
    """The output is at its end once all programs have closed it, whatever the shim has looked at."""
    start(pm, f"{SETS}; exec >/dev/null 2>&1; exec sleep 100")
    wait_until(lambda: not pm.get_status()["output_open"])
    assert pm.get_status()["status"] == "running"


def test_a_quiet_pipe_of_the_command_s_own_is_left_alone(pm: ProcessManager) -> None:
    """A program may make any other descriptor non-blocking, a pipe to another program among them."""
    code = "import os, time; os.set_blocking(1, False); time.sleep(0.4); print(os.get_blocking(1))"
    start(pm, f"echo one; {PYTHON} -c '{code}' | cat; echo last")
    ended(pm.get_status)
    assert content(pm) == "one\nFalse\nlast"


def test_it_is_told_that_output_may_be_lost(either: ProcessManager) -> None:
    """Where the pipe was full while it did not block, `reason` says so in one sentence, and it blocks again."""
    start(either, f"{PYTHON} -c '{FILLS}'")
    wait_until(lambda: not either.get_status()["output_open"])
    assert content(either).endswith("\nblocks again")
    assert re.fullmatch(
        r"Incidents: times that a program had made the full output non-blocking for all others \(O_NONBLOCK\), "
        r"which may have lost some: [1-9]\d*\.",
        ended(either.get_status)["reason"],
    )
