"""Ownership is exact: whichever processes are killed, a run has its own processes and output, and no other's."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.kit.actors import record_of, shim_of, understudy_of, worker_of, zygote_of
from tests.kit.counter import assert_whole, counter, start_counter
from tests.kit.leftovers import nothing_left_behind
from tests.kit.managers import CallError, ManagedRun, Managers, managers_in
from tests.kit.pairs import Stage, kill_and_check, stage
from tests.kit.places import PROGRAMS
from tests.kit.processes import alive, send
from tests.kit.requiring import require
from tests.kit.service import Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until

# Every order of two, but those that differ from another only in the names of the runs.
PAIRS = [
    pair
    for pair in itertools.permutations(["worker", "zygote", "understudy-a", "shim-a", "understudy-b", "shim-b"], 2)
    if next((victim for victim in pair if victim[-2:] in {"-a", "-b"}), "-a").endswith("-a")
]
COUNTING = " ".join(f"'{word}'" for word in counter(interval=0.001)).replace("'exec'", "exec")
# A member that nothing proves to be the run's: no session, pipe, environment or parent of it.
UNPROVEN = "env -i setsid sh -c 'sleep 1000 > /dev/null 2>&1 < /dev/null & echo member $!'"


@pytest.fixture(scope="module")
def one_user() -> Iterator[Stage]:
    """Return the stage that the pairs share."""
    with stage(None) as made:
        yield made


@pytest.fixture(scope="module")
def two_users() -> Iterator[Stage]:
    """Return a stage whose commands run as another user."""
    require(os.geteuid() == 0, "root, to start commands as another user")
    with stage("nobody") as made:
        yield made


@pytest.fixture
def managers(tmp_path: Path) -> Iterator[Managers]:
    """Return a process with managers."""
    with nothing_left_behind(), managers_in(tmp_path) as managers:
        yield managers


@pytest.mark.parametrize("victims", PAIRS, ids=" ".join)
def test_two_killed(one_user: Stage, victims: Sequence[str]) -> None:
    """Exit code, output and tree of either run are true, and no bystander ends."""
    kill_and_check(one_user, victims)


@pytest.mark.parametrize("victims", [("shim-a", "understudy-a"), ("worker", "shim-a"), ("zygote", "shim-b")])
def test_two_killed_with_another_user_s_commands(two_users: Stage, victims: Sequence[str]) -> None:
    """So they are where the commands run as another user."""
    kill_and_check(two_users, victims)


def start_counting(run: ManagedRun) -> dict[str, Any]:
    """Start a run that prints a number each millisecond, and return its status once it does."""
    status = run.start(COUNTING)
    wait_until(lambda: "\n10\n" in run.content())
    return status


@pytest.mark.parametrize("kind", ["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize(
    "victims", [("shim",), ("shim", "understudy"), ("understudy", "shim"), ("understudy",)], ids=" ".join
)
def test_the_other_run_is_untouched(managers: Managers, victims: Sequence[str], kind: str) -> None:
    """Of two runs of one process one loses its shim, or its whole pair, and is killed: the other goes on as before."""
    one, other = managers.run("a"), managers.run("b")
    lost, kept = one.start("exec sleep 1000"), start_counting(other)
    pids = {"shim": shim_of(lost), "understudy": understudy_of(lost)}
    pair = shim_of(kept), understudy_of(kept)
    for victim in victims:
        send(signal.SIGKILL, pids[victim])
    answer = one.kill(kind)
    assert (answer["survivors"], alive(lost["process_pid"])) == ([], False)
    assert {*answer} >= {"exit_code", "reason"}
    assert answer["exit_code"] in {-15, -9} or (answer["exit_code"] is None and answer["reason"])
    status = other.status()
    assert (status["status"], status["process_pid"], status["leftover_pids"]) == ("running", kept["process_pid"], [])
    assert (shim_of(kept), understudy_of(kept), status["reason"]) == (*pair, None)
    members = {member.pid for member in record_of(lost).members}
    assert not members & {*pair, kept["process_pid"]}
    assert other.kill()["exit_code"] == -15
    assert_whole(other.content())


def test_the_run_of_another_service_is_untouched(serve: Services) -> None:
    """So it is where the two runs belong to two services of one user."""
    one, other = serve(), serve()
    start_counter(one, interval=0.001)
    kept = start_counter(other, interval=0.001)
    status = other.status()
    actors = shim_of(status), understudy_of(status), zygote_of(worker_of(other))
    send(signal.SIGKILL, shim_of(one.status()))
    assert one.post("/kill").body["survivors"] == []
    send(signal.SIGKILL, zygote_of(worker_of(one)))
    assert one.start("exec sleep 1000")["status"] == "running"
    assert one.post("/kill").body["survivors"] == []
    assert other.status() == status
    assert (shim_of(status), understudy_of(status), zygote_of(worker_of(other))) == actors
    assert alive(kept)
    assert other.post("/kill").body["exit_code"] == -15
    assert_whole(other.content())


SERVICE_PAIRS = list(itertools.permutations(["worker", "zygote", "understudy", "shim"], 2))


@pytest.mark.parametrize("victims", SERVICE_PAIRS, ids=" ".join)
def test_two_killed_in_a_service(service: Service, victims: Sequence[str]) -> None:
    """Under gunicorn the next worker tells the truth about the run, and /kill leaves nothing of it."""
    pid = start_counter(service, pause_at=100, count=200, exit_code=7)
    status, worker = service.status(), worker_of(service)
    pids = {"worker": worker, "zygote": zygote_of(worker), "shim": shim_of(status), "understudy": understudy_of(status)}
    for victim in victims:
        if alive(pids[victim]):  # a zygote ends with its worker
            send(signal.SIGKILL, pids[victim])
    wait_until(service.answers, 20)
    assert service.status()["process_pid"] == pid
    os.kill(pid, signal.SIGUSR1)
    if set(victims) == {"shim", "understudy"}:  # it may end by SIGPIPE: its exit code is not known
        now = wait_until(lambda: now if (now := service.status())["status"] != "running" else {})
        assert now["exit_code"] is None
        assert now["reason"]
        assert_whole(service.content(), 100)
        return
    now = service.wait_for_exit(10)
    assert (now["status"], now["exit_code"], bool(now["reason"])) == ("exited", 7, "shim" in victims)
    assert_whole(service.content(), 200)


def member_of(run: ManagedRun) -> int:
    """Wait for a command to print the pid of its member, and return that."""
    return int(wait_until(lambda: re.search(r"^member (\d+)$", run.content(), re.MULTILINE))[1])


@pytest.mark.parametrize("kind", ["SIGTERM", "SIGKILL"])
def test_what_nothing_proves_is_named_or_ended(managers: Managers, kind: str) -> None:
    """A member of a run without shim and understudy that has hidden every sign of that is ended, or named."""
    run = managers.run("a")
    stray = managers.call("", "stray", command="exec setsid sleep 1000")
    status = run.start(f"{UNPROVEN}; exec sleep 1000")
    member = member_of(run)
    for pid in (shim_of(status), understudy_of(status)):
        send(signal.SIGKILL, pid)
    answer = run.kill(kind, 1.0)
    assert not alive(status["process_pid"])
    assert alive(stray)
    if alive(member):
        told = f"{answer['survivors']} {answer['reason']}"
        assert re.search(rf"\b{member}\b", told), told
        send(signal.SIGKILL, member)
    send(signal.SIGKILL, stray)


def test_no_bystander_is_signalled(managers: Managers, tmp_path: Path) -> None:
    """Neither a process beside the runs nor one that came to the worker gets a signal while runs are lost and ended."""
    program = f"{sys.executable} {PROGRAMS / 'hears.py'}"
    beside = subprocess.Popen([*program.split(), tmp_path / "beside"], stdout=subprocess.DEVNULL)
    stray = managers.call("", "stray", command=f"exec setsid {program} {tmp_path / 'stray'}")
    reports = [tmp_path / "beside", tmp_path / "stray"]
    wait_until(lambda: all(report.exists() and report.read_text().endswith("\n") for report in reports))
    one, other = managers.run("a"), managers.run("b")
    for victims in (("shim",), ("understudy", "shim"), ("shim", "understudy")):
        began = one.start("setsid sleep 1000 & exec sleep 1000"), other.start("exec sleep 1000")
        pids = {"shim": shim_of(began[0]), "understudy": understudy_of(began[0])}
        send(signal.SIGKILL, *(pids[victim] for victim in victims))
        for run, kind in ((one, "SIGTERM"), (other, "SIGKILL")):
            assert run.kill(kind, 0.5)["survivors"] == []
    for pid, report in zip((beside.pid, stray), reports, strict=True):
        assert alive(pid)
        assert report.read_text() == f"ready {pid}\n"
        send(signal.SIGKILL, pid)
    beside.wait()


def test_an_ended_run_has_nothing_to_kill(managers: Managers) -> None:
    """A /kill of a run that ended and left nothing is refused, whatever else lives below the same worker."""
    one, other = managers.run("a"), managers.run("b")
    kept = other.start("exec sleep 1000")
    status = one.start("echo done")
    wait_until(lambda: record_of(status).state.ended)
    with pytest.raises(CallError, match="BadRequestError"):
        one.kill()
    assert other.status()["process_pid"] == kept["process_pid"]
    assert alive(kept["process_pid"])
