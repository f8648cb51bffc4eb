"""The service is upgraded under a command: a new build watches, answers for and ends what an old build's shim runs."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from tests.faults.test_reboot import UNKNOWN
from tests.faults.test_shim_killed import ABANDONED
from tests.faults.upgrade import GAINED, Upgrade, kill_old_shim, old_build, upgrade
from tests.kit.actors import Request, worker_of
from tests.kit.counter import assert_whole, start_counter
from tests.kit.leftovers import reap
from tests.kit.places import PROGRAMS
from tests.kit.processes import alive, send
from tests.kit.service import Service
from tests.kit.waiting import wait_until

__all__ = ["old_build", "upgrade"]
# Counts, a line every few milliseconds, until SIGUSR1; its exit code is then 7.
COUNTS = "trap 'exit 7' USR1; echo ready; n=0; while :; do n=$((n+1)); echo $n; sleep 0.005; done"
# Leaves a child in a session of its own, whose pid it prints, and waits; at SIGUSR1 it exits with 4.
WITH_ESCAPEE = "(setsid sleep 1000 & echo $!); trap 'exit 4' USR1; echo ready; while :; do sleep 0.02; done"
# What is another in the status object of a run that has exited with 7, but the time.
EXITED_WITH_7 = {"status": "exited", "exit_code": 7, "output_open": False}


def start_with_escapee(service: Service) -> tuple[int, int]:
    """Start a command that leaves a child in a session of its own; return its pid and the child's."""
    pid = int(service.start(WITH_ESCAPEE)["process_pid"])
    escapee, _ready = service.wait_for_output("ready").split("\n")
    return pid, int(escapee)


def end_by_itself(pid: int) -> None:
    """Have a command end with its own exit code."""
    os.kill(pid, signal.SIGUSR1)
    wait_until(lambda: not alive(pid))


def assert_true_or_unknown(status: dict[str, Any], code: int) -> None:
    """Fail unless the exit code is the true one, or none is told and the reason says that it is not known."""
    if status["exit_code"] is None:
        assert "not known" in status["reason"]
    else:
        assert status["exit_code"] == code


def wait_for_more_output(service: Service) -> None:
    """Wait until the log has twenty lines more than now."""
    seen = service.get("/logs?lines=1").body["total_lines"]
    wait_until(lambda: service.get("/logs?lines=1").body["total_lines"] > seen + 20)


def test_it_is_the_same_run_and_its_output_has_no_hole(upgrade: Upgrade) -> None:
    """The new service tells of the run what the old one told; no line is lost, and its end and true code are told.

    That holds across a SIGKILL of the new service's worker too.
    """
    before = upgrade.old.start(COUNTS, cwd="/", env={"A": "1"}) | GAINED
    upgrade.old.wait_for_output("\n1")
    new = upgrade.complete()
    assert new.status() == before
    assert new.get(f"/status?run_id={before['run_id']}").body == before
    assert new.post("/start", {"command": "true"}).status == 409
    wait_for_more_output(new)
    send(signal.SIGKILL, worker_of(new))
    assert new.status() == before
    wait_for_more_output(new)
    end_by_itself(before["process_pid"])
    after = new.wait_for_exit()
    assert after == {**before, **EXITED_WITH_7, "stopped_at": after["stopped_at"]}
    assert_whole(new.content())
    assert new.content(f"?run_id={before['run_id']}") == new.content()


def test_a_kill_of_a_tree_that_resists(upgrade: Upgrade) -> None:
    """A tree that ignores SIGTERM and has scattered over sessions is gone when /kill answers, and its shim goes too."""
    pid = upgrade.old.start(["exec", sys.executable, PROGRAMS / "nest.py", "stubborn"])["process_pid"]
    members = [int(line) for line in upgrade.old.wait_for_output("ready").split("\n")[:-1]]
    shim = upgrade.shim_of(pid)
    new = upgrade.complete()
    assert len(members) == 7
    assert all(map(alive, members))
    code, killed = new.post("/kill?timeout=0.3")
    assert (code, killed["status"], killed["exit_code"], killed["signal"]) == (200, "killed", -9, "SIGKILL")
    assert (killed["survivors"], killed["escalated"]) == ([], True)
    assert killed["reason"] == "Ended by /kill. SIGKILL followed."
    assert not any(map(alive, members))
    assert new.post("/kill").status == 400
    wait_until(lambda: not alive(shim))


def test_a_stopped_shim_is_woken(upgrade: Upgrade) -> None:
    """An old shim that was stopped goes on when the new service comes, and again for a /kill, which is obeyed."""
    pid = start_counter(upgrade.old, pause_at=100, interval=0.001)
    shim = upgrade.shim_of(pid)
    upgrade.stop()
    send(signal.SIGSTOP, shim)
    new = upgrade.follow()
    os.kill(pid, signal.SIGUSR1)
    wait_for_more_output(new)
    send(signal.SIGSTOP, shim)
    code, killed = new.post("/kill?timeout=5")
    assert (code, killed["status"], killed["exit_code"], killed["signal"]) == (200, "killed", -15, "SIGTERM")
    assert (killed["survivors"], killed["escalated"], killed["reason"]) == ([], False, "Ended by /kill.")
    assert not alive(pid)
    assert_whole(new.content())


def test_a_stop_of_the_new_service_ends_the_tree(upgrade: Upgrade) -> None:
    """A new service that does not keep its command ends the old build's, its escapee and its shim when it stops."""
    pid, escapee = start_with_escapee(upgrade.old)
    shim = upgrade.shim_of(pid)
    new = upgrade.complete()
    assert new.stop() == 0
    assert not any(alive(member) for member in (pid, escapee, shim))


def test_a_restart_has_what_the_old_start_gave(upgrade: Upgrade) -> None:
    """/restart runs the old build's command again, by the same shell, in the same directory, with what env added.

    The directory is the one below the old service's own, where the new one does not run.
    """
    place = upgrade.old.cwd / "below"
    place.mkdir()
    command = """trap 'exit 4' USR1; echo "$0 $PWD $WORD"; echo ready; while :; do sleep 0.02; done"""
    before = upgrade.old.start(command, cwd="below", env={"WORD": "ä 'b'\n\\"})
    printed = upgrade.old.wait_for_output("ready")
    assert printed == f"/bin/sh {place} ä 'b'\n\\\nready"
    new = upgrade.complete()
    for past in (before, None):  # the second is by what the new build has written down
        code, after = new.post("/restart")
        assert (code, after["status"], after["command"], after["reason"]) == (200, "running", command, None)
        assert new.wait_for_output("ready") == printed
        assert Path(f"/proc/{after['process_pid']}/cwd").readlink() == place
        if past is not None:
            told = new.get(f"/status?run_id={past['run_id']}").body
            assert (told["status"], told["exit_code"], told["reason"]) == ("killed", -15, "Ended by /restart.")
            assert not alive(past["process_pid"])


def test_a_start_with_replace(upgrade: Upgrade) -> None:
    """/start with replace ends the old build's tree, whose outcome is told by its run_id, and runs the new command."""
    pid, escapee = start_with_escapee(upgrade.old)
    before = upgrade.old.status() | GAINED
    new = upgrade.complete()
    after = new.start("echo new; exec sleep 1000", replace=True)
    assert (after["status"], after["reason"]) == ("running", None)
    assert not any(map(alive, (pid, escapee)))
    assert new.wait_for_output("new") == "new"
    past = new.get(f"/status?run_id={before['run_id']}").body
    assert past == {
        **before,
        "status": "killed",
        "exit_code": -15,
        "signal": "SIGTERM",
        "stopped_at": past["stopped_at"],
        "reason": "Ended by a /start with replace.",
        "output_open": False,
    }
    assert new.content(f"?run_id={before['run_id']}").startswith(f"{escapee}\nready")


def test_the_old_shim_is_killed(upgrade: Upgrade) -> None:
    """When the old shim dies under the new service nobody keeps the run: that is told, and no exit code is invented.

    What was printed before is whole.
    """
    pid = start_counter(upgrade.old, pause_at=100, count=200, exit_code=7)
    shim = upgrade.shim_of(pid)
    new = upgrade.complete()
    before = new.status()
    assert kill_old_shim(new, shim) == {**before, "output_open": False, "reason": ABANDONED}
    assert new.post("/start", {"command": "true"}).status == 409
    os.kill(pid, signal.SIGUSR1)
    assert reap([pid]) != [7]  # nobody reads what it prints
    status = new.wait_for_exit()
    assert (status["status"], status["exit_code"], status["reason"]) == ("exited", None, UNKNOWN)
    assert_whole(new.content(), 100)
    assert new.post("/restart").body["status"] == "running"


def test_a_kill_after_the_old_shim(upgrade: Upgrade) -> None:
    """/kill ends the tree of a dead old shim, what had escaped from it before included."""
    pid, escapee = start_with_escapee(upgrade.old)
    shim = upgrade.shim_of(pid)
    new = upgrade.complete()
    kill_old_shim(new, shim)
    code, killed = new.post("/kill?timeout=5")
    assert (code, killed["status"], killed["survivors"], killed["escalated"]) == (200, "killed", [], False)
    assert_true_or_unknown(killed, -15)
    assert not any(map(alive, (pid, escapee)))


def test_the_old_shim_is_killed_between_the_services(upgrade: Upgrade) -> None:
    """A command whose shim died while no service ran is known to the new one, which says so and can end it."""
    pid, escapee = start_with_escapee(upgrade.old)
    shim = upgrade.shim_of(pid)
    upgrade.stop()
    send(signal.SIGKILL, shim)
    new = upgrade.follow()
    status = new.status()
    assert (status["status"], status["process_pid"]) == ("running", pid)
    assert status["reason"] == ABANDONED
    assert new.post("/kill").body["survivors"] == []
    assert not any(map(alive, (pid, escapee)))


def runs_that_ended(service: Service) -> list[dict[str, Any]]:
    """Run commands that exit, are killed and crash; return their status objects."""
    service.start("echo one; exit 3")
    told = [service.wait_for_exit()]
    service.start("trap '' TERM; echo two; while :; do sleep 1000; done")
    service.wait_for_output("two")
    service.post("/kill?timeout=0.1")
    told.append(service.wait_for_exit())
    service.start("echo three; kill -SEGV $$")
    told.append(service.wait_for_exit())
    outcomes = [("exited", 3), ("killed", -9), ("exited", -11)]
    assert [(status["status"], status["exit_code"]) for status in told] == outcomes
    return told


def test_ends_before_the_new_service(upgrade: Upgrade) -> None:
    """What ended under the old service is told as that told it, and so is what ended while no service ran.

    That one, the last, can be restarted, and is a past run then.
    """
    past = runs_that_ended(upgrade.old)
    pid = start_counter(upgrade.old, pause_at=100, count=200, exit_code=7)
    shim = upgrade.shim_of(pid)
    before = upgrade.old.status() | GAINED
    upgrade.stop()
    end_by_itself(pid)
    wait_until(lambda: not alive(shim))
    new = upgrade.follow()
    last = new.status()
    assert last == {**before, **EXITED_WITH_7, "stopped_at": last["stopped_at"]}
    assert last["stopped_at"]
    assert_whole(new.content(), 200)
    again = new.post("/restart").body
    assert (again["status"], again["command"]) == ("running", before["command"])
    assert new.wait_for_output("\n100").startswith("ready\n1\n")
    told = [*(status | GAINED for status in past), last]
    assert [new.get(f"/status?run_id={status['run_id']}").body for status in told] == told
    assert [new.content(f"?run_id={status['run_id']}") for status in past] == ["one", "two", "three"]
    assert_whole(new.content(f"?run_id={last['run_id']}"), 200)


def test_an_order_of_the_old_service_goes_on(upgrade: Upgrade) -> None:
    """A /restart of the old service that died goes on as an end, which a /kill joins; nothing is started after it."""
    pid = start_counter(upgrade.old, stubborn=True, pause_at=100, count=200, exit_code=5)
    upgrade.cut_short("/restart?timeout=60")
    new = upgrade.follow()
    status = new.status()
    assert (status["status"], status["process_pid"]) == ("running", pid)
    assert status["reason"] == "It was asked to end and is still alive."
    record = Path(status["log_file"]).with_suffix(".json")  # as the old shim writes it
    request = Request(lambda: new.post("/kill?timeout=60"))
    wait_until(lambda: '"orders":1' in record.read_text())
    end_by_itself(pid)
    answer = request.answer()
    assert answer is not None
    killed = answer.body
    assert (answer.status, killed["status"], killed["exit_code"]) == (200, "killed", 5)
    assert (killed["escalated"], killed["survivors"]) == (False, [])
    assert killed["reason"] == "Ended by /kill."
    assert_whole(new.content(), 200)
    assert len(list(new.log_dir.glob("*.log"))) == 1


def test_an_order_of_the_old_service_without_its_shim(upgrade: Upgrade) -> None:
    """What the dead old service and its dead shim had begun is told by the new one, which ends it when asked again."""
    pid = start_counter(upgrade.old, stubborn=True, pause_at=100)
    upgrade.cut_short("/kill?timeout=1.5", upgrade.shim_of(pid))
    new = upgrade.follow()
    status = new.status()
    assert (status["status"], status["process_pid"]) == ("running", pid)
    assert status["reason"] == f"It was asked to end and is still alive. {ABANDONED}"
    killed = new.post("/kill?timeout=0.2").body
    assert (killed["status"], killed["survivors"]) == ("killed", [])
    assert killed["reason"].startswith("Ended by /kill. SIGKILL followed.")
    assert_true_or_unknown(killed, -9)
    assert not alive(pid)


def test_leftovers_keep_a_start_from_coming(upgrade: Upgrade) -> None:
    """What the old build's command left behind is named in a 409, and /kill ends it; then there is room."""
    pid, escapee = start_with_escapee(upgrade.old)
    end_by_itself(pid)
    before = GAINED | wait_until(lambda: now if (now := upgrade.old.status())["status"] == "exited" else {})
    assert (before["exit_code"], before["leftover_pids"], before["output_open"]) == (4, [escapee], True)
    new = upgrade.complete()
    assert new.status() == before
    refusal = new.post("/start", {"command": "true"})
    assert (refusal.status, [left["pid"] for left in refusal.body["leftovers"]]) == (409, [escapee])
    code, killed = new.post("/kill")
    assert (code, killed["status"], killed["exit_code"], killed["survivors"]) == (200, "exited", 4, [])
    assert not alive(escapee)
    assert new.wait_for_exit()["leftover_pids"] == []
    new.start("true")


def test_a_run_of_which_no_file_tells(upgrade: Upgrade) -> None:
    """An old shim whose log directory was removed between the services is found by its socket all the same."""
    pid = start_counter(upgrade.old, pause_at=100, count=200, exit_code=7)
    before = upgrade.old.status() | GAINED
    shim = upgrade.shim_of(pid)
    upgrade.stop()
    shutil.rmtree(upgrade.old.log_dir)
    new = upgrade.follow()
    assert new.status() == before
    end_by_itself(pid)
    status = new.wait_for_exit()
    assert (status["exit_code"], status["reason"]) == (7, None)
    assert new.content() == "\n".join(map(str, range(101, 201)))
    wait_until(lambda: not alive(shim))
