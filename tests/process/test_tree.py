"""Nothing survives a kill: the whole tree is gone when it answers, whatever the tree does about it."""

import signal
import sys
import time

import pytest

from app.supervisor.manager import ProcessManager
from tests.kit.output import content, printed
from tests.kit.places import PROGRAMS
from tests.kit.processes import alive, descendants, parent, send
from tests.kit.waiting import ended, wait_until


def nest(pm: ProcessManager, *arguments: str) -> list[int]:
    """Start a tree with every kind of escapee and return the members' pids."""
    pm.start(f"{sys.executable} {PROGRAMS / 'nest.py'} {' '.join(arguments)} & wait")
    return [int(line) for line in printed(pm, "ready").split() if line.isdigit()]


def test_escapees_end_with_the_tree(pm: ProcessManager) -> None:
    """setsid, double forks and new groups do not save anybody from a kill, and SIGTERM reaches them all."""
    pids = nest(pm)
    assert len(pids) == 7
    answer = pm.kill("SIGTERM", 5.0)
    assert (answer["status"], answer["escalated"], answer["survivors"]) == ("killed", False, [])
    assert not [pid for pid in pids if alive(pid)]


def test_a_stubborn_tree_is_killed_after_the_grace(pm: ProcessManager) -> None:
    """Who ignores SIGTERM gets SIGKILL when the time is up, and the answer says that it was needed."""
    pids = nest(pm, "stubborn")
    began = time.monotonic()
    answer = pm.kill("SIGTERM", 0.5)
    assert 0.5 <= time.monotonic() - began < 1.5
    assert (answer["escalated"], answer["survivors"]) == (True, [])
    assert answer["reason"] == "Ended by /kill. SIGKILL followed."
    assert not [pid for pid in pids if alive(pid)]


def test_sigkill_skips_the_grace(pm: ProcessManager) -> None:
    """type=SIGKILL ends a stubborn tree at once, which is not an escalation."""
    pids = nest(pm, "stubborn")
    began = time.monotonic()
    answer = pm.kill("SIGKILL", 30.0)
    assert time.monotonic() - began < 1.0
    assert (answer["signal"], answer["escalated"]) == ("SIGKILL", False)
    assert not [pid for pid in pids if alive(pid)]


def test_a_tree_that_forks_while_it_is_killed(pm: ProcessManager) -> None:
    """A tree that changes its pid, session and parent all the time is caught."""
    for _ in range(5):
        pm.start(f"exec {sys.executable} {PROGRAMS / 'forker.py'}")
        printed(pm, "ready")
        ended(pm.get_status)
        wait_until(lambda: pm.get_status()["leftover_pids"])
        assert pm.kill("SIGKILL")["survivors"] == []


def test_a_stopped_process_gets_the_signal(pm: ProcessManager) -> None:
    """A stopped process is continued after SIGTERM, so that it ends within the grace and by that signal."""
    pid = pm.start("exec sleep 100")["process_pid"]
    send(signal.SIGSTOP, pid)
    answer = pm.kill("SIGTERM", 5.0)
    assert (answer["signal"], answer["escalated"]) == ("SIGTERM", False)


def test_clean_up_of_a_trap_is_left_alone(pm: ProcessManager) -> None:
    """What a process starts in answer to SIGTERM may finish within the grace."""
    pm.start("trap 'sleep 0.3; echo saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    printed(pm, "ready")
    answer = pm.kill("SIGTERM", 5.0)
    assert (answer["exit_code"], answer["escalated"]) == (0, False)
    assert content(pm).endswith("saved")


def test_kill_waits_for_the_whole_tree(pm: ProcessManager) -> None:
    """The answer comes when the last member has gone, not when the process has."""
    pm.start("(trap 'sleep 0.4; exit 0' TERM; echo ready; while :; do sleep 0.05; done) & wait")
    printed(pm, "ready")
    began = time.monotonic()
    answer = pm.kill("SIGTERM", 5.0)
    assert time.monotonic() - began >= 0.4
    assert (answer["escalated"], answer["survivors"]) == (False, [])


@pytest.mark.parametrize("command", ["exec >/dev/null 2>&1; exec sleep 100", "exec <&- >&- 2>&-; exec sleep 100"])
def test_a_process_without_output_is_killed_like_any_other(pm: ProcessManager, command: str) -> None:
    """Closing or moving its output does not make a process forgotten."""
    pid = pm.start(command)["process_pid"]
    wait_until(lambda: not pm.get_status()["output_open"])
    assert pm.kill()["status"] == "killed"
    assert not alive(pid)


def test_orphans_are_reaped(pm: ProcessManager) -> None:
    """Orphans that end do not stay as zombies."""
    pid = pm.start("for i in 1 2 3 4 5; do (sleep 0.05 &) ; done; exec sleep 100")["process_pid"]
    wait_until(lambda: descendants(parent(pid)).keys() == {pid})
    pm.kill()
