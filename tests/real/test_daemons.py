"""Programs that leave something running: the command has exited, what is left is told as what it is, and ended."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit.processes import command_line
from tests.kit.waiting import wait_until
from tests.real.conftest import needs
from tests.real.trying import Trial

DMYPY = Path(sys.executable).parent / "dmypy"
# Each with a word of what its command line is then, and whether it holds no output and has a session of its own.
DAEMONS = {
    "dmypy": (f"{DMYPY} start", "dmypy", True),
    "gpg-agent": ("mkdir -m 700 home; GNUPGHOME=$PWD/home gpg-agent --daemon", "gpg-agent", False),
    "credential-cache": (
        "mkdir -m 700 home; printf 'host=h\\nusername=u\\npassword=p\\n\\n'"
        " | git credential-cache --socket $PWD/home/socket store",
        "credential-cache",
        False,
    ),
    "ssh-agent": ("ssh-agent -a $PWD/socket", "ssh-agent", True),
    "redis": ("redis-server --port 0 --unixsocket $PWD/socket --daemonize yes", "redis-server", True),
    "setsid -f": ("setsid --fork sleep 100", "sleep 100", False),
    "nohup &": ("nohup sleep 100 > /dev/null &", "sleep 100", False),
}
PROGRAMS = {"gpg-agent": "gpg-agent", "credential-cache": "git", "ssh-agent": "ssh-agent", "redis": "redis-server"}


def settled(status: dict[str, Any], *, daemon: bool) -> list[int]:
    """Return what is left, once it is all of the kind expected: a daemon is none at first."""
    daemons = [one["pid"] for one in status["daemons"]]
    expected, others = (daemons, status["leftover_pids"]) if daemon else (status["leftover_pids"], daemons)
    return [] if others else expected


@pytest.mark.parametrize("name", DAEMONS)
def test_what_is_left_is_named_and_ended(trial: Trial, name: str) -> None:
    """The command ends with 0 while its daemon runs on; the status names that, and /kill ends it by SIGTERM."""
    command, word, daemon = DAEMONS[name]
    if name in PROGRAMS:
        needs(PROGRAMS[name])
    trial.start(command, env={"PATH": os.environ["PATH"]})

    status = trial.ended()
    assert (status["status"], status["exit_code"]) == ("exited", 0)
    left = wait_until(lambda: settled(trial.pm.get_status(), daemon=daemon))
    assert any(word in command_line(pid) for pid in left)
    answer = trial.pm.kill("SIGTERM", 5.0)

    assert (answer["status"], answer["survivors"], answer["escalated"]) == ("exited", [], False)
