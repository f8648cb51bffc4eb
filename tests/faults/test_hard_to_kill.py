"""Whatever a process does against its end, /kill ends it within its timeout plus one second."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.kit.actors import keepers_of
from tests.kit.places import PROGRAMS
from tests.kit.processes import alive, send
from tests.kit.requiring import require
from tests.kit.service import Service

TIMEOUT = 0.5
STAY = "while :; do sleep 1000; done"
BLOCK = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); print('ready', flush=True)"
ENDED_BY_TERM = {
    "stops itself": "echo ready; kill -STOP $$; exec sleep 1000",
    "closes its output": f"echo ready; exec >&- 2>&-; {STAY}",
    "moves its output": f"echo ready; exec >moved 2>&1; {STAY}",
}
ENDED_BY_KILL = {
    "blocks SIGTERM": shlex.join(["exec", sys.executable, "-c", f"{BLOCK}; signal.pause()"]),
    "ignores SIGTERM": shlex.join(["exec", sys.executable, str(PROGRAMS / "stubborn.py")]),
    "ignores SIGTERM and stops": f"trap '' TERM; echo ready; kill -STOP $$; {STAY}",
    "scatters": shlex.join(["exec", sys.executable, str(PROGRAMS / "nest.py"), "stubborn"]),
}


def kill(service: Service) -> dict[str, object]:
    """Kill the process, which must be quick and complete, and return the answer."""
    pid = service.status()["process_pid"]
    began = time.monotonic()
    status, killed = service.post(f"/kill?timeout={TIMEOUT}")
    assert time.monotonic() - began < TIMEOUT + 1
    assert status == 200, killed
    assert (killed["status"], killed["survivors"]) == ("killed", [])
    assert not alive(pid)
    service.wait_until_alone()
    return dict(killed)


@pytest.mark.parametrize("command", ENDED_BY_TERM.values(), ids=ENDED_BY_TERM)
def test_a_process_that_hides_ends_by_sigterm(service: Service, command: str, tmp_path: Path) -> None:
    """A process that is stopped, or has nothing more to do with its output, ends by the first signal."""
    service.start(command, cwd=str(tmp_path))
    service.wait_for_output("ready")
    killed = kill(service)
    assert (killed["signal"], killed["escalated"]) == ("SIGTERM", False)


@pytest.mark.parametrize("stopped", ["shim", "understudy", "both"])
def test_a_stopped_keeper_does_not_delay_the_end(service: Service, stopped: str) -> None:
    """A process whose shim was stopped, as by its own `kill -STOP $PPID`, ends like any other; so with understudies."""
    understudy, shim = keepers_of(service.start("exec sleep 1000"))
    if stopped == "shim":
        os.kill(shim, signal.SIGSTOP)  # and not awaited: the understudy continues it at once
    else:
        send(signal.SIGSTOP, understudy, *([shim] if stopped == "both" else []))
    assert kill(service)["signal"] == "SIGTERM"


@pytest.mark.parametrize("command", ENDED_BY_KILL.values(), ids=ENDED_BY_KILL)
def test_a_process_that_resists_ends_by_sigkill(service: Service, command: str) -> None:
    """A process that will not have SIGTERM gets SIGKILL after the timeout, and so does all that it started."""
    service.start(command)
    service.wait_for_output("ready")
    killed = kill(service)
    assert (killed["signal"], killed["escalated"]) == ("SIGKILL", True)


def test_a_tree_that_keeps_moving_is_caught(service: Service) -> None:
    """A tree whose members fork, change session and end all the time is gone when /kill answers."""
    service.start(["exec", sys.executable, PROGRAMS / "forker.py"])
    service.wait_for_output("ready")
    began = time.monotonic()
    status, killed = service.post(f"/kill?timeout={TIMEOUT}")
    assert time.monotonic() - began < TIMEOUT + 1
    assert (status, killed["survivors"]) == (200, [])
    service.wait_until_alone()


def test_a_fork_bomb_is_ended(service: Service) -> None:
    """Processes that ignore SIGTERM and fork whenever they can are gone when /kill answers."""
    require(os.geteuid() == 0, "the right to become an unprivileged user, whom RLIMIT_NPROC binds")
    service.start(["exec", sys.executable, PROGRAMS / "bomb.py", "60"])
    service.wait_for_output("ready")
    killed = kill(service)
    assert (killed["signal"], killed["escalated"]) == ("SIGKILL", True)
