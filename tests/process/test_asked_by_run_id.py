"""What is asked of a run by its id concerns that run, also while its process gets another one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from app.exceptions import BadRequestError
from app.supervisor.manager import ProcessManager

# Of each, about a third met the exchange of the old run for the new one.
ROUNDS = 25


def beside_restarts(pm: ProcessManager, ask: Callable[[str], object]) -> list[bool]:
    """Restart a process again and again, ask for the old run meanwhile, and return whether each new run lives."""
    alive = []
    for number in range(ROUNDS):
        old = pm.get_status(name="web")["run_id"]
        restarting = threading.Thread(target=pm.restart, kwargs={"name": "web"})
        restarting.start()
        restarting.join(number % 5 * 0.004)
        while restarting.is_alive():
            ask(old)
        status = pm.get_status(name="web")
        assert status["run_id"] != old
        alive.append(status["status"] == "running")
        if not alive[-1]:
            pm.start("exec sleep 1000", name="web")
    return alive


def test_a_kill_by_run_id_ends_no_other_run(pm: ProcessManager) -> None:
    """A kill of the old run, while the new one is being started, leaves the new one alone."""
    pm.start("exec sleep 1000", name="web")

    def kill(old: str) -> None:
        if pm.get_status(old)["status"] == "killed":  # or it would cancel the restart
            with suppress(BadRequestError):  # it has ended, as it must say
                pm.kill(run_id=old)

    assert all(beside_restarts(pm, kill))


@pytest.mark.parametrize("told", ["status", "log"])
def test_what_is_told_of_a_run_is_its_own(pm: ProcessManager, told: str) -> None:
    """Status and log of the old run stay its own, while the new one is being started."""
    pm.start("exec sleep 1000", name="web")

    def look(old: str) -> None:
        found = pm.get_status(old)["log_file"] if told == "status" else pm.log_of(old)[0]
        assert found.endswith(f"/{old}.log")

    assert all(beside_restarts(pm, look))
