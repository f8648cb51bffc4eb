"""Where a run has no keeper, or the service no thread to watch it, it is answered for and ended all the same."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path

import pytest

from app.service import manage
from app.supervisor.handshake import request_handshake
from app.supervisor.manager import ProcessManager
from app.supervisor.run import Run
from tests.kit.actors import record_of, shim_of, understudy_of
from tests.kit.output import content, printed
from tests.kit.processes import alive, command_line, descendants, send
from tests.kit.waiting import ended, wait_until


def kill_keepers(pm: ProcessManager) -> None:
    """Kill understudy and shim of the current run, so that neither can take the other's place."""
    status = pm.get_status()
    send(signal.SIGKILL, understudy_of(status), shim_of(status))


pytestmark = pytest.mark.usefixtures("orphans_reaped")


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no thread be had for watching a run."""
    monkeypatch.setattr(Run, "_ensure_watcher", lambda _self: None)


def test_a_tree_is_ended_without_keepers(pm: ProcessManager) -> None:
    """A /kill ends a tree whose shim and understudy are dead, with its grace; the exit code is not known, and why."""
    pid = pm.start("trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done")["process_pid"]
    printed(pm, "ready")
    kill_keepers(pm)
    killed = pm.kill(timeout=5.0)
    assert (killed["status"], killed["exit_code"], killed["survivors"]) == ("killed", None, [])
    assert (killed["escalated"], "its exit code is not known" in killed["reason"]) == (False, True)
    assert not alive(pid)
    assert record_of(pm.get_status()).state.ended


def test_an_escapee_elsewhere_is_known_by_pipe_and_id(pm: ProcessManager, tmp_path: Path) -> None:
    """One that is in no record and came to no process of the service is ended if it has the run's pipe and id, both."""
    gate = tmp_path / "gate"
    escapees = "(setsid sleep 1001 &); (setsid sleep 1002 > /dev/null 2>&1 &)"
    pm.start(f"echo ready; while [ ! -e {gate} ]; do sleep 0.02; done; {escapees}; exec sleep 1003")
    printed(pm, "ready")
    kill_keepers(pm)
    gate.touch()

    def sleepers() -> dict[str, int]:
        lines = {command_line(pid).strip(): pid for pid in descendants()}
        return {line: pid for line, pid in lines.items() if line.startswith("sleep 100") and alive(pid)}

    without_pipe = wait_until(lambda: len(found := sleepers()) == 3 and found["sleep 1002"])
    assert pm.kill(timeout=1.0)["survivors"] == []
    assert sleepers() == {"sleep 1002": without_pipe}
    send(signal.SIGKILL, without_pipe)


@pytest.mark.parametrize("end", ["kill_all", "shut_down"])
def test_a_past_run_without_keepers_is_ended_with_all(pm: ProcessManager, end: str) -> None:
    """A daemon of a past run whose keepers are dead, too, is ended by a kill of all and by the service's stop."""
    past = pm.start("setsid -f sleep 1000 > /dev/null 2>&1; exit 0")
    [daemon] = wait_until(lambda: pm.get_status()["daemons"])
    kill_keepers(pm)
    pm.start("exec sleep 1000")
    assert pm.get_status(past["run_id"])["daemons"] == [daemon]
    getattr(pm, end)(timeout=1.0)
    assert not alive(daemon["pid"])


def test_the_master_ends_a_past_run_without_keepers(pm: ProcessManager) -> None:
    """At a stop the master's manager, which has no index, ends what lives of a past run whose keepers are dead."""
    pm.start("sleep 1000 & exit 0")
    [leftover] = wait_until(lambda: pm.get_status()["leftover_pids"])
    kill_keepers(pm)
    pm.start("exec sleep 1000", leftovers="leave")
    with closing(manage(pm.logs.log_dir)) as last:
        last.take_over()
        last.shut_down(1.0)
    assert not alive(leftover)


def test_a_tree_without_keepers_that_ignores_the_signal(pm: ProcessManager) -> None:
    """SIGKILL follows after the grace, as it does with a shim."""
    pid = pm.start("trap '' TERM; exec > /dev/null 2>&1; while :; do sleep 0.05; done")["process_pid"]
    wait_until(lambda: not pm.get_status()["output_open"])
    kill_keepers(pm)
    killed = pm.kill(timeout=0.3)
    assert (killed["escalated"], killed["survivors"]) == (True, [])
    assert not alive(pid)


def test_the_end_of_a_run_without_keepers_is_noticed(pm: ProcessManager) -> None:
    """It is running as long as its process lives, and has ended with an unknown exit code when that has."""
    pid = pm.start("exec sleep 1000 > /dev/null 2>&1")["process_pid"]
    kill_keepers(pm)
    status = wait_until(lambda: (now := pm.get_status())["reason"] and now)
    assert "are gone: its output since then is lost" in status["reason"]
    assert (status["status"], status["output_open"]) == ("running", False)
    send(signal.SIGKILL, pid)
    status = ended(pm.get_status)
    assert (status["status"], status["exit_code"]) == ("exited", None)
    assert "its exit code is not known" in status["reason"]


@pytest.mark.usefixtures("no_thread")
def test_a_run_is_watched_by_who_asks(pm: ProcessManager) -> None:
    """Without a thread for it a run's output, end and exit code are known to whoever asks."""
    pm.start("echo ready; sleep 0.1; exit 4")
    assert ended(pm.get_status)["exit_code"] == 4
    assert content(pm) == "ready"


@pytest.mark.usefixtures("no_thread")
def test_a_takeover_is_made_by_who_asks(pm: ProcessManager) -> None:
    """Without a thread for it a dead shim is replaced when somebody asks, and the run goes on."""
    pid = pm.start("echo ready; exec sleep 1000")["process_pid"]
    printed(pm, "ready")
    send(signal.SIGKILL, shim_of(pm.get_status()))
    status = wait_until(lambda: (now := pm.get_status())["reason"] and now)
    assert (status["status"], status["process_pid"]) == ("running", pid)
    assert pm.kill()["exit_code"] == -15


@pytest.mark.usefixtures("no_thread")
def test_a_tree_is_ended_without_either(pm: ProcessManager) -> None:
    """With neither a thread nor a keeper, /kill ends the tree."""
    pid = pm.start("setsid sleep 1000 & exec sleep 1000")["process_pid"]
    wait_until(lambda: sum(name == "sleep (S)" for name in descendants().values()) == 2)
    assert request_handshake(record_of(pm.get_status()).control, 5.0)  # it records the members
    kill_keepers(pm)
    assert pm.kill()["survivors"] == []
    assert not alive(pid)
    assert pm.get_status()["status"] == "killed"
