"""Shells, and what runs below them: traps, forwarding, escapees, stopped members, trees that fork while they end."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.kit.places import PROGRAMS
from tests.kit.processes import alive, parent, send
from tests.kit.waiting import wait_until
from tests.real.conftest import shell_named
from tests.real.trying import OWN_CODE, Listener, Trial, make_executable

FORKS_ON_TERM = """
import os, pathlib, signal, subprocess, sys

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("ready", flush=True)
signal.sigwait({signal.SIGTERM})
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
for number in range(20):
    subprocess.run(["sh", "-c", f"sleep 0.02; touch step-{number}"], check=True)
"""


def test_a_trap_runs_at_once_with_a_child_in_front(trial: Trial) -> None:
    """A shell with a trap and a child in the foreground runs its trap now, since the child gets the signal, too."""
    bash = shell_named("bash")
    trial.start(f"exec {bash} -c 'trap \"touch cleaned; exit 3\" TERM; touch ready; sleep 100; touch next'")
    trial.file("ready")

    outcome = trial.kill()

    assert (trial.folder / "cleaned").exists()
    assert not (trial.folder / "next").exists()
    assert outcome.code == 3
    assert outcome.gentle
    assert outcome.seconds < 1.5


def test_the_command_itself_may_have_the_trap(trial: Trial) -> None:
    """The same holds for a trap in the command that the service's own shell runs."""
    trial.start("trap 'touch cleaned; exit 3' TERM; touch ready; sleep 100; touch next")
    trial.file("ready")

    outcome = trial.kill()

    assert (trial.folder / "cleaned").exists()
    assert not (trial.folder / "next").exists()
    assert outcome.code == 3
    assert outcome.gentle
    assert outcome.seconds < 1.5


def test_a_trap_that_forwards(trial: Trial) -> None:
    """A shell that waits, and forwards the signal in its trap, ends with its child's code; ours comes once."""
    child = trial.listener()
    trial.start(f"trap 'kill -TERM $pid' TERM; {child.command} & pid=$!; wait $pid; wait $pid; exit $?")

    outcome = trial.kill()

    assert outcome.ours(child) <= 1
    assert len(child.heard) <= 2
    assert child.cleaned
    assert outcome.code == OWN_CODE
    assert outcome.gentle


def test_every_job_of_a_shell_hears_it(trial: Trial) -> None:
    """Background jobs, subshells and shells below shells all hear it once, from us."""
    jobs = [trial.listener() for _ in range(4)]
    one, two, three, four = (job.command for job in jobs)
    trial.start(f"{one} & ( {two} & wait ) & sh -c '{three} & {four}' & wait")

    outcome = trial.kill()

    assert [outcome.ours(job) for job in jobs] == [1, 1, 1, 1]
    assert [outcome.others(job) for job in jobs] == [[], [], [], []]
    assert all(job.cleaned for job in jobs)
    assert outcome.code == -15
    assert outcome.gentle


@pytest.mark.parametrize("escape", ["setsid {} &", "(setsid {} &);", "nohup setsid --fork {} &", "set -m; {} &"])
def test_escapees_hear_it(trial: Trial, escape: str) -> None:
    """Who has left the session, the group or its parent hears it once, cleans up and is gone."""
    escapee = trial.listener()
    trial.start(f"{escape.format(escapee.command)} sleep 100")

    outcome = trial.kill()

    assert outcome.ours(escapee) == 1
    assert escapee.cleaned
    assert outcome.gentle
    assert outcome.code == -15


def test_a_stopped_program_cleans_up(trial: Trial) -> None:
    """A stopped member goes on with the signal, and cleans up."""
    child = trial.listener()
    trial.start(f"{child.command}; touch next")
    stop(child)

    outcome = trial.kill()

    assert outcome.ours(child) == 1
    assert child.cleaned
    assert outcome.gentle
    assert not (trial.folder / "next").exists()


def test_a_stopped_wrapper_passes_it_on(trial: Trial) -> None:
    """A stopped wrapper goes on with the signal, and passes it on as always."""
    child = trial.listener()
    trial.start(f"exec timeout 60 {child.command}")
    assert child.pid
    pid = parent(child.pid)
    send(signal.SIGSTOP, pid)

    outcome = trial.kill()

    assert [name for name, _ in child.heard] == ["SIGTERM"]
    assert child.cleaned
    assert outcome.gentle
    assert outcome.code == OWN_CODE


def test_what_a_program_starts_in_answer_is_left_alone(trial: Trial) -> None:
    """The steps of a clean-up, each a process of its own, are all done, although they began after the signal."""
    make_executable(trial.folder / "its.py", [FORKS_ON_TERM])
    trial.start(f"exec {sys.executable} its.py")
    wait_until(lambda: "ready" in trial.printed)

    outcome = trial.kill()

    assert len(list(trial.folder.glob("step-*"))) == 20
    assert outcome.code == 0
    assert outcome.gentle


def test_a_tree_that_forks_while_it_ends(trial: Trial) -> None:
    """A tree that changes all its pids while it is ended is ended all the same."""
    forker = PROGRAMS / "forker.py"
    trial.start(f"{sys.executable} {forker}; sleep 100")
    wait_until(lambda: "ready" in trial.printed)

    outcome = trial.kill(timeout=1.0)

    assert outcome.answer["survivors"] == []
    assert outcome.code == -15


def stop(listener: Listener) -> None:
    """Stop a listener, and see that it is."""
    pid = listener.pid
    assert pid is not None
    assert alive(pid)
    send(signal.SIGSTOP, pid)
