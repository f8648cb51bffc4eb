"""Daemons, which have left the session and the output of their command: told apart, and in nobody's way."""

from __future__ import annotations

import os
import shlex
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import BadRequestError, ConflictError
from app.runs.spec import Spec
from app.service import manage
from app.supervisor.manager import ProcessManager
from app.supervisor.policy import Policy
from app.supervisor.process import LEFTOVER_TIMEOUT
from app.supervisor.remains import stop_below_keepers
from tests.kit.actors import keepers_of, record_of, shim_of
from tests.kit.managers import managers_in
from tests.kit.output import content, printed
from tests.kit.places import PROGRAMS
from tests.kit.processes import alive, command_line, descendants, send, status_fields
from tests.kit.requiring import require
from tests.kit.waiting import ended, wait_until

# The interpreter of the tests may be out of the other user's reach.
DAEMON = shlex.join(["/usr/bin/env", "python3", str(PROGRAMS / "daemon.py")])
QUIET = "< /dev/null > /dev/null 2>&1"
SLEEPERS = {
    "setsid &": f"setsid sleep 1001 {QUIET} &",
    "setsid -f": f"setsid -f sleep 1001 {QUIET}",
    "subshell": f"(setsid sh -c 'sleep 1001; true' {QUIET} &)",
    "nohup setsid": f"nohup setsid sleep 1001 {QUIET} &",
}
STAYERS = {
    "&": "sleep 1001 &",
    "nohup": "nohup sleep 1001 &",
    "nohup, quiet": f"nohup sleep 1001 {QUIET} &",
    "setsid &": "setsid sleep 1001 &",
    "setsid -f": "setsid -f sleep 1001",
    "setsid -f, standard error": "setsid -f sleep 1001 < /dev/null > /dev/null",
}


def sleepers() -> list[int]:
    """Return the pids of those that sleep for 1001 seconds."""
    return sorted(pid for pid in descendants() if command_line(pid).strip() == "sleep 1001")


def pids_of(status: dict[str, Any]) -> list[int]:
    """Return the pids of the daemons in a status object."""
    return [daemon["pid"] for daemon in status["daemons"]]


def leave(pm: ProcessManager, options: str = "") -> tuple[dict[str, Any], int]:
    """Run a command that leaves a daemon; return its last status, and the daemon's pid."""
    pm.start(Spec(f"{DAEMON} {options}; exit 3", cwd="/"))
    ended(pm.get_status)
    pid = int(content(pm).splitlines()[0])
    return pm.get_status(), pid


def run_beside(pm: ProcessManager, options: str = "", then: str = "sleep 1000") -> tuple[dict[str, Any], int]:
    """Run a command with a daemon, which runs on itself; return its status, and the daemon's pid."""
    pm.start(Spec(f"{DAEMON} {options}; echo ready; {then}", cwd="/"))
    printed(pm, "ready")
    return pm.get_status(), int(content(pm).splitlines()[0])


@pytest.mark.parametrize("command", SLEEPERS.values(), ids=SLEEPERS)
def test_a_daemon_is_no_leftover(either: ProcessManager, command: str) -> None:
    """What has left session and output is a daemon, however it did that; /kill ends it."""
    either.start(Spec(f"{command} exit 3" if command.endswith("&") else f"{command}; exit 3", cwd="/"))
    assert ended(either.get_status)["exit_code"] == 3
    (pid,) = wait_until(sleepers)
    status = wait_until(lambda: not (now := either.get_status())["leftover_pids"] and now)
    assert pid in pids_of(status)
    wait_until(lambda: not either.get_status()["output_open"])
    assert "no start waits for" in status["reason"]
    answer = either.kill()
    assert (answer["status"], answer["exit_code"], answer["survivors"]) == ("exited", 3, [])
    assert not alive(pid)
    with pytest.raises(BadRequestError, match="left nothing behind"):
        either.kill()


@pytest.mark.parametrize("command", STAYERS.values(), ids=STAYERS)
def test_a_leftover_is_no_daemon(either: ProcessManager, command: str) -> None:
    """What is in the command's session, or holds its output by any descriptor, is a leftover."""
    either.start(Spec(f"{command} exit 3" if command.endswith("&") else f"{command}; exit 3", cwd="/"))
    ended(either.get_status)
    wait_until(sleepers)
    status = either.get_status()
    assert (status["leftover_pids"], status["daemons"], status["reason"]) == (sleepers(), [], None)
    either.kill("SIGKILL")


def test_a_daemon_that_keeps_the_output_is_a_leftover(either: ProcessManager) -> None:
    """The output counts, whatever the number of the descriptor."""
    status, pid = leave(either, "keep")
    assert (status["leftover_pids"], status["daemons"], status["output_open"]) == ([pid], [], True)
    either.kill("SIGKILL")


def test_a_daemon_is_told_by_name(pm: ProcessManager) -> None:
    """The status names a daemon by pid and name, and says in one sentence what it is."""
    pm.start(Spec(f"setsid -f sleep 1001 {QUIET}", cwd="/"))
    ended(pm.get_status)
    (pid,) = wait_until(sleepers)
    status = wait_until(lambda: (now := pm.get_status())["daemons"] == [{"pid": pid, "name": "sleep"}] and now)
    assert status["reason"] == (
        f"sleep (pid {pid}) runs on as a daemon: it holds no output, and no start waits for it."
    )


def test_many_daemons_are_told_shortly(pm: ProcessManager) -> None:
    """Of 25 daemons 20 are listed, and five named in the sentence."""
    pm.start(Spec(f"for i in $(seq 25); do setsid -f sleep 1001 {QUIET}; done", cwd="/"))
    ended(pm.get_status)
    wait_until(lambda: len(sleepers()) == 25)
    status = wait_until(lambda: not (now := pm.get_status())["leftover_pids"] and now)
    assert pids_of(status) == sleepers()[:20]
    assert status["reason"].count("(pid ") == 5
    assert status["reason"].endswith("and 20 more run on as daemons: they hold no output, and no start waits for them.")


def test_a_start_neither_waits_for_daemons_nor_ends_them(either: ProcessManager) -> None:
    """A start after daemons comes at once; they live on with their run, which is told truly until they end."""
    past, pid = leave(either)
    began = time.monotonic()
    started = either.start(Spec("sleep 1000", cwd="/"))
    assert time.monotonic() - began < LEFTOVER_TIMEOUT / 2
    assert (started["status"], started["daemons"]) == ("running", [])
    assert either.get_status(past["run_id"]) == past
    assert pids_of(past) == [pid]
    assert either.kill()["survivors"] == []
    assert alive(pid)
    keepers = keepers_of(past)
    os.kill(pid, signal.SIGKILL)
    after = wait_until(lambda: not (now := either.get_status(past["run_id"]))["daemons"] and now)
    assert after == {**past, "daemons": [], "reason": None}
    wait_until(lambda: not any(map(alive, keepers)))
    assert record_of(past).state.ended


def test_a_past_daemon_s_run_survives_its_shim(pm: ProcessManager) -> None:
    """The understudy keeps a past run whose shim is killed: its daemon is named, and ended with the service."""
    past, pid = leave(pm)
    pm.start(Spec("sleep 1000", cwd="/"))
    shim = shim_of(past)
    send(signal.SIGKILL, shim)
    wait_until(lambda: shim_of(past) != shim)
    assert pids_of(pm.get_status(past["run_id"])) == [pid]
    pm.shut_down(0.0)
    assert not alive(pid)


def start_another(manager: ProcessManager) -> dict[str, Any]:
    """Run a command that ends at once; retention, which spares a run whose shim is yet to exit, looks after each."""
    manager.start(Spec("true", cwd="/"))
    return ended(manager.get_status)


def test_retention_keeps_the_run_of_a_daemon(tmp_path: Path) -> None:
    """The files of a past run stay as long as a daemon of it lives, and are removed like others afterwards."""
    manager = manage(tmp_path / "logs", Policy(log_keep=1))
    try:
        past, pid = leave(manager)
        later = Path(start_another(manager)["log_file"])
        wait_until(lambda: start_another(manager) and not later.exists())
        assert pids_of(manager.get_status(past["run_id"])) == [pid]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: record_of(past).state.ended)
        wait_until(lambda: start_another(manager) and not Path(past["log_file"]).exists())
    finally:
        manager.shut_down(0.0)
        manager.close()


def test_a_leftover_that_becomes_a_daemon_lets_a_start_through(pm: ProcessManager) -> None:
    """A start that waits for a leftover comes soon after that has closed the output, which nothing announces."""
    status, pid = leave(pm, "late")
    assert status["leftover_pids"] == [pid]
    with ThreadPoolExecutor(1) as caller:
        began = time.monotonic()
        start = caller.submit(pm.start, Spec("true", cwd="/"))
        os.kill(pid, signal.SIGUSR1)
        assert start.result()["status"] == "running"
    assert time.monotonic() - began < LEFTOVER_TIMEOUT
    assert pids_of(pm.get_status(status["run_id"])) == [pid]


def end_by(pm: ProcessManager, way: str) -> None:
    """End the current run by a start that replaces it, or a restart."""
    if way == "restart":
        pm.restart(5.0)
    elif way == "restart at once":
        pm.restart(0.0)
    else:
        pm.start(Spec("true", cwd="/"), if_running="replace")


@pytest.mark.parametrize("way", ["replace", "restart", "restart at once"])
def test_a_run_that_is_replaced_keeps_its_daemon(either: ProcessManager, way: str) -> None:
    """The old tree is ended without its daemon, which was not even signalled; no time is lost on it."""
    before, pid = run_beside(either)
    began = time.monotonic()
    end_by(either, way)
    assert time.monotonic() - began < 1
    past = either.get_status(before["run_id"])
    assert (past["status"], past["leftover_pids"], pids_of(past)) == ("killed", [], [pid])
    assert alive(pid)
    assert not alive(before["process_pid"])
    assert past["reason"].startswith("Ended by")
    assert record_of(past).intent is None


def test_a_daemon_survives_the_end_of_a_stubborn_tree(either: ProcessManager) -> None:
    """SIGKILL after the grace, and the signals before it, go to all but the daemon."""
    before, pid = run_beside(either, then="trap '' TERM; while :; do sleep 1; done")
    either.restart(0.4)
    past = either.get_status(before["run_id"])
    assert (past["exit_code"], pids_of(past)) == (-signal.SIGKILL, [pid])
    assert "SIGKILL followed" in past["reason"]
    assert alive(pid)
    either.kill("SIGKILL")


def test_leftovers_are_replaced_without_daemons(either: ProcessManager) -> None:
    """A start with replace ends leftovers, and lets the daemon beside them be."""
    either.start(Spec(f"{DAEMON}; nohup sleep 1001 & exit 3", cwd="/"))
    ended(either.get_status)
    wait_until(sleepers)
    status = wait_until(lambda: (now := either.get_status())["daemons"] and now)
    either.start(Spec("true", cwd="/"), if_running="replace")
    assert sleepers() == []
    past = either.get_status(status["run_id"])
    assert (past["status"], past["leftover_pids"], past["daemons"]) == ("exited", [], status["daemons"])


def test_what_a_script_has_detached_is_ended_with_it(pm: ProcessManager) -> None:
    """A child without session and output is its live parent's, as a browser is a script's: replace ends both."""
    pm.start(Spec(f"sh -c 'setsid sleep 1001 {QUIET}; true'; true", cwd="/"))
    (pid,) = wait_until(sleepers)
    pm.start(Spec("true", cwd="/"), if_running="replace")
    assert not alive(pid)


def test_a_daemon_s_child_that_holds_the_output_is_a_leftover(pm: ProcessManager) -> None:
    """Of a daemon and its child in the same process group, replace ends the one that prints, and that alone."""
    status, pid = leave(pm, "child stubborn")
    (child,) = status["leftover_pids"]
    assert pids_of(status) == [pid]
    pm.restart(0.3)
    assert not alive(child)
    assert alive(pid)


def test_a_kill_joins_a_replacement_and_ends_daemons_too(pm: ProcessManager) -> None:
    """A /kill in the middle of a replacement, which spares the daemon, ends that as well, and nothing is started."""
    before, pid = run_beside(pm, then="trap 'echo hears' TERM; while :; do sleep 0.05; done")
    with ThreadPoolExecutor(1) as caller:
        start = caller.submit(pm.start, Spec("true", cwd="/"), if_running="replace")
        printed(pm, "hears")
        assert alive(pid)
        answer = pm.kill("SIGTERM", 0.5)
        assert (answer["survivors"], answer["status"]) == ([], "killed")
        with pytest.raises(ConflictError, match="cancelled"):
            start.result()
    assert not alive(pid)
    assert pm.get_status()["run_id"] == before["run_id"]


@pytest.mark.parametrize("joined", [False, True], ids=["alone", "joined by a kill"])
def test_an_understudy_goes_on_sparing(either: ProcessManager, joined: bool) -> None:
    """A shim killed in the middle of a stop that spares daemons leaves an understudy that does so, and a kill's none.

    What a live script has detached is no daemon for the understudy either, although its parent has ended since.
    """
    then = f"sh -c 'setsid sh -c \"trap : TERM; while :; do sleep 0.05; done\" {QUIET}; true'; true"
    before, pid = run_beside(either, then=f"sleep 1001 & {then}")
    detached = wait_until(lambda: [one for one in descendants() if command_line(one).startswith("sh -c trap : TERM")])
    shim = shim_of(before)
    with ThreadPoolExecutor(2) as caller:
        calls = [caller.submit(either.restart, 2.0)]
        wait_until(lambda: not alive(before["process_pid"]))
        if joined:
            calls.append(caller.submit(either.kill, "SIGTERM", 1.5))
            wait_until(lambda: not alive(pid))
        send(signal.SIGKILL, shim)
        if joined:
            assert calls[1].result()["survivors"] == []
            with pytest.raises(ConflictError, match="cancelled"):
                calls[0].result()
        else:
            assert calls[0].result()["status"] == "running"
            # A sleep that the killed loop had just begun passes for a daemon, too, until it ends.
            wait_until(lambda: pids_of(either.get_status(before["run_id"])) == [pid])
    assert alive(pid) is not joined
    assert not any(map(alive, detached))


@pytest.mark.usefixtures("orphans_reaped")
@pytest.mark.parametrize("run_as", [None, "nobody"], ids=["own user", "another user"])
def test_a_run_without_keepers_is_replaced_without_its_daemon(tmp_path: Path, run_as: str | None) -> None:
    """Where shim and understudy are both dead the daemon is left alone by a replacement, and ended by a kill."""
    require(run_as is None or os.geteuid() == 0, "root, to start commands as another user")
    with managers_in(tmp_path, run_as) as managers:
        run = managers.run("one")
        run.start(f"{DAEMON}; echo ready; sleep 1000")
        wait_until(lambda: "ready" in run.content())
        before, pid = run.status(), int(run.content().splitlines()[0])
        send(signal.SIGKILL, *keepers_of(before))
        wait_until(lambda: "are gone" in (run.status()["reason"] or ""))
        run.start(f"{DAEMON}; echo ready; sleep 1000", replace=True)
        assert not alive(before["process_pid"])
        past = managers.call("one", "get_status", run_id=before["run_id"])
        assert (past["leftover_pids"], pids_of(past)) == ([], [pid])

        wait_until(lambda: "ready" in run.content())
        before, other = run.status(), int(run.content().splitlines()[0])
        send(signal.SIGKILL, *keepers_of(before))
        wait_until(lambda: "are gone" in (run.status()["reason"] or ""))
        assert run.kill()["survivors"] == []
        assert not alive(other)
        send(signal.SIGKILL, pid)


def test_a_tree_that_is_held_has_its_daemon_run_on(pm: ProcessManager) -> None:
    """Where a tree that is to be ended is stopped first, its daemon is not, unless that is to be ended, too."""
    before, pid = run_beside(pm)
    record = record_of(before)
    assert stop_below_keepers(record, daemons=False)
    assert (state_of(before["process_pid"]), state_of(pid)) == ("T", "S")
    assert stop_below_keepers(record, daemons=True)
    assert state_of(pid) == "T"


def state_of(pid: int) -> str:
    """Return the letter of a process's state."""
    return status_fields(pid)["State"][0]


def test_leftovers_can_be_ended_by_a_start(either: ProcessManager) -> None:
    """With `end` a start ends what the last process left, but neither its daemons nor a process that runs."""
    either.start(Spec(f"{DAEMON}; sleep 1001 & exit 3", cwd="/"))
    ended(either.get_status)
    past = either.get_status()
    began = time.monotonic()
    started = either.start(Spec("sleep 1000", cwd="/"), leftovers="end")
    assert time.monotonic() - began < 1
    assert sleepers() == []
    after = either.get_status(past["run_id"])
    assert (after["status"], after["exit_code"], after["daemons"]) == ("exited", 3, past["daemons"])
    with pytest.raises(ConflictError, match="already running"):
        either.start(Spec("true", cwd="/"), leftovers="end")
    assert either.get_status() == started


def test_leftovers_can_be_left_by_a_start(either: ProcessManager) -> None:
    """With `leave` a start comes at once; the old run goes on as a past one, with its log and leftovers."""
    either.start(Spec("(while :; do echo more; sleep 0.01; done) & exit 3", cwd="/"))
    ended(either.get_status)
    past = either.get_status()
    began = time.monotonic()
    started = either.start(Spec("sleep 1000", cwd="/"), leftovers="leave")
    assert time.monotonic() - began < LEFTOVER_TIMEOUT / 2
    assert past["leftover_pids"][0] in either.get_status(past["run_id"])["leftover_pids"]
    size = Path(past["log_file"]).stat().st_size
    wait_until(lambda: Path(past["log_file"]).stat().st_size > size)
    with pytest.raises(ConflictError, match="already running"):
        either.start(Spec("true", cwd="/"), leftovers="leave")
    assert either.get_status() == started
    either.kill()
    assert alive(past["leftover_pids"][0])


def test_a_kill_by_run_id_ends_a_past_daemon(pm: ProcessManager) -> None:
    """A /kill of a past run ends its daemon, and a kill of all ends those of all runs."""
    left = [leave(pm) for _ in range(3)]
    (first, pid), *_ = left
    answer = pm.kill(run_id=first["run_id"])
    assert (answer["status"], answer["survivors"], alive(pid)) == ("exited", [], False)
    assert all(alive(pid) for _status, pid in left[1:])
    assert pm.kill_all()["survivors"] == []
    assert not any(alive(pid) for _status, pid in left)


def test_a_kill_of_what_has_ended_names_the_earlier_run_that_lives(pm: ProcessManager) -> None:
    """The refusal of a /kill by name gives the call that ends an earlier run's daemon, as long as that lives."""
    (past, pid), (newer, other) = leave(pm), leave(pm)
    pm.start(Spec("true", cwd="/"))
    ended(pm.get_status)
    with pytest.raises(BadRequestError, match=rf"kill\?run_id={newer['run_id']} ends it \(1 more"):
        pm.kill()
    send(signal.SIGKILL, other)
    wait_until(lambda: not alive(other))
    with pytest.raises(BadRequestError, match=rf"earlier run lives on: POST /kill\?run_id={past['run_id']} ends it\.$"):
        pm.kill()
    pm.kill(run_id=past["run_id"])
    assert not alive(pid)
    with pytest.raises(BadRequestError, match="there is nothing to kill"):
        pm.kill()


def test_a_kill_of_a_past_run_that_has_ended_speaks_of_that_run(pm: ProcessManager) -> None:
    """The refusal names its own log, and proposes no restart: that would end what runs under the name today."""
    past = pm.start(Spec("exit 3", cwd="/"))
    ended(pm.get_status)
    pm.start(Spec("sleep 1000", cwd="/"))
    with pytest.raises(BadRequestError, match=rf"exit code 3 .*GET /logs\?run_id={past['run_id']}\.$") as caught:
        pm.kill(run_id=past["run_id"])
    assert "restart" not in caught.value.detail


def test_a_later_kill_of_a_daemon_does_not_change_how_its_process_ended(pm: ProcessManager) -> None:
    """A daemon that needs SIGKILL does not make its run one whose process needed it."""
    past, pid = run_beside(pm, "stubborn")
    pm.start(Spec("true", cwd="/"), if_running="replace")
    assert pm.kill("SIGTERM", 0.2, run_id=past["run_id"])["escalated"] is True
    assert not alive(pid)
    assert pm.get_status(past["run_id"])["reason"] == "Ended by a /start with replace."


def test_names_with_daemons_alone_are_not_counted(tmp_path: Path) -> None:
    """A name that has only daemons left takes no place of those that may live."""
    manager = manage(tmp_path / "logs", Policy(max_processes=1))
    try:
        _past, pid = leave(manager)
        assert manager.start(Spec("sleep 1000", cwd="/"), name="other")["status"] == "running"
        assert alive(pid)
        with pytest.raises(ConflictError):
            manager.start(Spec("true", cwd="/"))
    finally:
        manager.shut_down(0.0)
        manager.close()
