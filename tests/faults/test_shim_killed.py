"""The shim is killed: the process does not notice, its understudy takes over, and what is not known is not invented."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from tests.kit.actors import Request, keepers_of, kill_shim, shim_of, understudy_of, worker_of
from tests.kit.counter import assert_whole, start_counter
from tests.kit.places import PROGRAMS
from tests.kit.processes import alive, descendants, name_of, send, stopped
from tests.kit.service import Service
from tests.kit.waiting import wait_until

TAKEN_OVER = "killed shims whose understudies took over, losing at most what they had read and not yet written: {}"
ABANDONED = "The processes that kept it are gone: its output since then is lost."
# Two orphans in sessions of their own, whose pids are printed; exits with 4 at SIGUSR1.
WITH_ORPHANS = """
(setsid sleep 1000 & echo $!); (setsid sleep 1000 & echo $!)
trap 'exit 4' USR1; echo ready; while :; do sleep 0.02; done
"""


def start_with_orphans(service: Service) -> tuple[int, list[int]]:
    """Start a process whose two orphans are out of its reach; return its pid and theirs."""
    pid = int(service.start(WITH_ORPHANS)["process_pid"])
    *orphans, _ready = service.wait_for_output("ready").split("\n")
    return pid, [int(orphan) for orphan in orphans]


def wait_until_told(service: Service, words: str) -> dict[str, Any]:
    """Wait, 2 s at the most, until the status object gives this reason; the record may do so before."""
    return wait_until(lambda: now if words in ((now := service.status())["reason"] or "") else {}, timeout=2)


def test_the_understudy_takes_over_and_the_output_is_whole(service: Service) -> None:
    """Within 2 s it keeps the same process; only what was in flight can be lost, and status and log say so."""
    pid = start_counter(service, pause_at=1000, count=2000, exit_code=7)
    understudy = understudy_of(service.status())
    kill_shim(service)
    status = wait_until_told(service, TAKEN_OVER.format(1))
    assert (status["status"], status["process_pid"]) == ("running", pid)
    assert (shim_of(status), name_of(understudy)) == (understudy, "llm-shell-shim")
    wait_until(lambda: f"The shim of run {status['run_id']} was killed: its understudy keeps it." in service.text)
    os.kill(pid, signal.SIGUSR1)
    status = service.wait_for_exit(10)
    assert (status["status"], status["exit_code"]) == ("exited", 7)
    assert TAKEN_OVER.format(1) in status["reason"]
    assert_whole(service.content(), 2000)


def test_there_is_one_understudy_and_no_second(service: Service) -> None:
    """When it is killed as well the output since then is lost, which is told; the tree is still named and ended."""
    pid, orphans = start_with_orphans(service)
    kill_shim(service)
    send(signal.SIGKILL, shim_of(service.status()))
    status = wait_until_told(service, ABANDONED)
    assert (status["status"], status["process_pid"], status["output_open"]) == ("running", pid, False)
    assert TAKEN_OVER.format(1) in status["reason"]
    answer = service.post("/kill").body
    assert (answer["status"], answer["exit_code"], answer["survivors"]) == ("killed", None, [])
    assert not any(alive(member) for member in (pid, *orphans))


def test_under_a_flood_one_stretch_is_missing_at_the_most(service: Service) -> None:
    """Before and after the lines that a shim killed under a flood had not yet written, all are there and in order."""
    start_counter(service)
    kill_shim(service)
    before = service.get("/logs?lines=1").body["total_lines"]
    wait_until(lambda: service.get("/logs?lines=1").body["total_lines"] > before + 1000)
    assert service.post("/kill").body["exit_code"] == -15
    numbers = [int(line or 0) for line in service.content().split("\n")[1:-1]]
    breaks = [place for place, (one, next_one) in enumerate(itertools.pairwise(numbers)) if next_one != one + 1]
    # The first line after the gap may have lost its beginning, or all but its end.
    assert len(breaks) <= 1 or breaks == [breaks[0], breaks[0] + 1]


def test_an_end_before_the_understudy_takes_over(service: Service) -> None:
    """What a process prints while it has no shim, and how it ends, is known all the same; it gets no SIGPIPE."""
    pid = start_counter(service, pause_at=1000, count=2000, exit_code=7)
    understudy, shim = keepers_of(service.status())
    with stopped(worker_of(service)), stopped(understudy):  # the worker would wake it
        send(signal.SIGKILL, shim)
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: not alive(pid))
    status = service.wait_for_exit(10)
    assert (status["status"], status["exit_code"]) == ("exited", 7)
    assert TAKEN_OVER.format(1) in status["reason"]
    assert_whole(service.content(), 2000)


def test_orphans_stay_in_the_tree(service: Service) -> None:
    """What had escaped from the process before its shim died is still named as left over, and still ended."""
    pid, orphans = start_with_orphans(service)
    kill_shim(service)
    os.kill(pid, signal.SIGUSR1)
    status = wait_until(lambda: now if (now := service.status())["status"] == "exited" else {})
    assert status["exit_code"] == 4
    assert status["leftover_pids"] == sorted(orphans)
    refusal = service.post("/start", {"command": "true"})
    assert refusal.status == 409
    assert sorted(left["pid"] for left in refusal.body["leftovers"]) == sorted(orphans)
    answer = service.post("/kill").body
    assert (answer["status"], answer["exit_code"], answer["survivors"]) == ("exited", 4, [])
    assert not any(alive(orphan) for orphan in orphans)


def test_orphans_that_end_after_the_shim_leave_no_zombies(service: Service) -> None:
    """What goes on ending in a tree whose shim died is reaped: the understudy is its parent now."""
    pid, orphans = start_with_orphans(service)
    kill_shim(service)
    for orphan in orphans:
        os.kill(orphan, signal.SIGKILL)
    wait_until(lambda: not set(orphans) & descendants(service.pid).keys(), timeout=5)
    assert service.status()["status"] == "running"
    assert alive(pid)


def test_orphans_of_a_retiring_workers_shim_stay_in_the_tree(service: Service) -> None:
    """A shim may die while the worker that started it retires at a reload: its orphans are still the tree's."""
    pid, orphans = start_with_orphans(service)
    shim = shim_of(service.status())
    old = worker_of(service)
    with stopped(old):
        os.kill(service.pid, signal.SIGHUP)
        wait_until(lambda: set(service.workers) - {old})
        assert service.status()["process_pid"] == pid
        send(signal.SIGKILL, shim)
        wait_until_told(service, TAKEN_OVER.format(1))
        assert service.post("/kill").body["survivors"] == []
        assert not any(alive(member) for member in (pid, *orphans))


def test_a_kill_is_finished_by_the_understudy(service: Service) -> None:
    """When the shim dies during the grace of a /kill, its understudy keeps to the deadline, and the caller is told."""
    pid = start_counter(service, stubborn=True, pause_at=1000)
    shim = shim_of(service.status())
    request = Request(lambda: service.post("/kill?timeout=1"))
    wait_until(lambda: service.status()["reason"])
    send(signal.SIGKILL, shim)
    answer = request.answer()
    assert answer is not None
    assert (answer.status, answer.body["exit_code"], answer.body["escalated"]) == (200, -9, True)
    assert answer.body["reason"].startswith("Ended by /kill. SIGKILL followed.")
    assert not alive(pid)
    assert_whole(service.content(), 1000)


def test_a_kill_that_the_shim_never_heard_is_done_by_the_understudy(service: Service) -> None:
    """A /kill on its way to a shim that dies is carried out by its understudy, and the caller is answered."""
    pid = start_counter(service, stubborn=True, pause_at=1000)
    understudy, shim = keepers_of(service.status())
    send(signal.SIGSTOP, understudy, shim)  # the understudy first, or it would continue the shim
    request = Request(lambda: service.post("/kill?type=SIGKILL"))
    with suppress(ProcessLookupError):  # it heard it after all, woken by the worker, and was quick
        send(signal.SIGKILL, shim)
    answer = request.answer()
    assert answer is not None
    assert (answer.status, answer.body["status"], answer.body["exit_code"]) == (200, "killed", -9)
    assert not alive(pid)
    assert_whole(service.content(), 1000)


def test_a_kill_that_worked_is_no_error_because_the_shim_died(service: Service) -> None:
    """A /kill that has ended the process is answered as such, although the shim died before it could say so."""
    pid = service.start(["exec", sys.executable, PROGRAMS / "stubborn.py"])["process_pid"]
    service.wait_for_output("ready")
    shim = shim_of(service.status())
    request = Request(lambda: service.post("/kill?timeout=60"))
    service.wait_for_output("SIGTERM")
    with stopped(worker_of(service)):
        send(signal.SIGKILL, shim)
        send(signal.SIGKILL, pid)
    answer = request.answer()
    assert answer is not None
    assert (answer.status, answer.body["status"], answer.body["exit_code"]) == (200, "killed", -9)
    assert (answer.body["survivors"], answer.body["escalated"]) == ([], False)
