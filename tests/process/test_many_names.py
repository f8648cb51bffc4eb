"""Names that are over cost nothing but their files; names that are being started are live."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from app.exceptions import ConflictError
from app.service import manage
from app.supervisor.manager import ProcessManager
from app.supervisor.policy import Policy
from app.supervisor.process import NamedProcess
from tests.kit.processes import alive
from tests.kit.waiting import wait_until

OVER = [f"over-{number}" for number in range(8)]
ROUNDS = 12
AT_ONCE = 12


def is_over(pm: ProcessManager, name: str) -> bool:
    """Tell whether nothing of a name's run is left."""
    return not pm.get_status(name=name)["output_open"]


def run_to_their_ends(pm: ProcessManager) -> None:
    """Run a command under each name, one after another, until nothing of it is left."""
    for name in OVER:
        pm.start(f"echo {name}", name=name)
        wait_until(partial(is_over, pm, name))


def held(log_dir: Path) -> int:
    """Return how many named processes of a directory are held in memory."""
    gc.collect()
    found = [one for one in gc.get_objects() if isinstance(one, NamedProcess)]
    return sum(one._pointer._path.parent == log_dir for one in found)


def test_names_that_are_over_are_not_held(tmp_path: Path) -> None:
    """Beyond the limit of live names, a start lets go of the others: they are listed, told of and restarted anew."""
    pm = manage(tmp_path / "logs", Policy(max_processes=2))
    run_to_their_ends(pm)
    pm.start("exec sleep 1000", name="live")
    assert held(tmp_path / "logs") == 1
    assert {one["name"] for one in pm.overview(100)} == {"live", *OVER}
    assert [one["name"] for one in pm.overview(3)] == ["live", OVER[-1], OVER[-2]]
    assert pm.get_status(name=OVER[0])["exit_code"] == 0
    pm.restart(name=OVER[0])
    wait_until(partial(is_over, pm, OVER[0]))
    pm.start("exec sleep 1000", name="second")
    with pytest.raises(ConflictError, match="2 processes"):
        pm.restart(name=OVER[1])
    pm.kill_all("SIGKILL")
    pm.close()


def test_the_next_manager_holds_live_names_alone(tmp_path: Path) -> None:
    """Of the names in a directory that it takes over, it holds those that may live, and lists all."""
    former = manage(tmp_path / "logs")
    run_to_their_ends(former)
    former.start("exec sleep 1000", name="live")
    former.close()
    del former
    pm = manage(tmp_path / "logs")
    pm.take_over()
    assert held(tmp_path / "logs") == 1
    assert {one["name"] for one in pm.overview(100)} == {"live", *OVER}
    pm.shut_down(0.0)
    pm.close()


def test_a_kill_of_all_ends_what_is_being_started(pm: ProcessManager) -> None:
    """Of the starts that are past all refusals when all is to be killed, answered or not, none outlives that."""
    outlived = []
    for turn in range(ROUNDS):
        names = [f"n{turn}-{number}" for number in range(AT_ONCE)]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            starts = {name: threads.submit(pm.start, "exec sleep 1000", name=name) for name in names}
            while not (begun := _exchanging(pm, names)):  # without a pause: what it is to hit takes a millisecond
                pass
            pm.kill_all("SIGKILL")
        outlived += [name for name in begun if alive(starts[name].result()["process_pid"])]
        pm.kill_all("SIGKILL")
    assert outlived == []


def _exchanging(pm: ProcessManager, names: list[str]) -> list[str]:
    return [one.name for one in pm._all() if one.name in names and one.exchanging]
