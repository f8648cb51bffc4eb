"""An outcome that was told stays, also where the disk no longer takes the record that holds it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.actors import keepers_of
from tests.kit.processes import alive, send
from tests.kit.service import Service
from tests.kit.waiting import wait_until

# Its process ends at once and leaves another one, so that the run goes on.
COMMAND = "(setsid sleep 1000 2> /dev/null & echo $! ready); read go < {fifo}; exit 3"
TOLD = ("status", "exit_code", "stopped_at", "process_pid")


def make_unwritable(record: Path) -> None:
    """Let neither way of writing the record anew work, while it and its log stay."""
    Path(f"{record}.spare").unlink()
    Path(f"{record}.new").mkdir()
    Path(f"{record}.new", "in-the-way").touch()


def remove_directory(record: Path) -> None:
    """Remove the log directory."""
    shutil.rmtree(record.parent)


@pytest.mark.parametrize("spoil", [make_unwritable, pytest.param(remove_directory, marks=pytest.mark.alone)])
@pytest.mark.parametrize("both", [False, True], ids=["shim", "both keepers"])
def test_an_outcome_stays(service: Service, tmp_path: Path, spoil: Callable[[Path], None], *, both: bool) -> None:
    """A process that was told to have ended has, with that code, also when its shim or both keepers are killed then."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    status = service.start(COMMAND.format(fifo=fifo))
    leftover = int(service.wait_for_output("ready").split()[0])
    understudy, shim = keepers_of(status)
    if spoil is make_unwritable:
        spoil(Path(status["log_file"]).with_suffix(".json"))
    fifo.write_text("go\n")
    before = wait_until(lambda: (now := service.status())["stopped_at"] and now)
    if spoil is remove_directory:
        spoil(Path(status["log_file"]).with_suffix(".json"))
    send(signal.SIGKILL, *([understudy] if both else []), shim)
    after = wait_until(lambda: (now := service.status())["reason"] and now)
    assert {key: after[key] for key in TOLD} == {key: before[key] for key in TOLD}
    assert (after["exit_code"], after["leftover_pids"]) == (3, [leftover])
    answer = service.post("/kill").body
    assert (answer["status"], answer["exit_code"], answer["survivors"]) == ("exited", 3, [])
    assert not alive(leftover)
    assert ("output since then is lost" in service.status()["reason"]) == both
