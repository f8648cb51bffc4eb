"""Shim, understudy and worker are gone, or the whole machine was: only the record is left, and it may be outdated."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.linux.proc import Identity, read_member
from app.runs.record import RecordFile, RunRecord, record_path
from tests.faults.test_shim_killed import ABANDONED, TAKEN_OVER
from tests.kit.actors import keepers_of, record_of, shim_of, worker_of
from tests.kit.counter import assert_whole, start_counter
from tests.kit.processes import alive, send, stopped
from tests.kit.service import Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until

UNKNOWN = "The processes that kept it are gone: its output since then is lost, and its exit code is not known."
# Leaves an orphan, whose pid it prints, when SIGUSR1 ends it.
WITH_LEFTOVER = "(setsid sleep 1000 & echo $!); trap 'exit 4' USR1; echo ready; while :; do sleep 0.02; done"


@pytest.fixture
def stranger() -> Iterator[Identity]:
    """Return a process that has nothing to do with the service; it must be there, unhurt, in the end."""
    process = subprocess.Popen(["sleep", "1000"])  # noqa: S607  wherever the system has it
    member = read_member(process.pid)
    assert member is not None
    yield member.identity
    assert process.poll() is None
    process.kill()
    process.wait()


def start_and_keep(serve: Services, command: str) -> tuple[Service, dict[str, Any]]:
    """Run a command under a service that would leave it to the next one; return that and the run's status."""
    service = serve(settings={"LLM_SHELL_ON_SHUTDOWN": "keep"})
    service.start(command)
    service.wait_for_output("ready")
    return service, service.status()


def stop_and_kill(service: Service, *pids: int) -> None:
    """Stop the service, then kill what it has left."""
    service.stop()
    send(signal.SIGKILL, *pids)


def next_service(serve: Services, service: Service) -> Service:
    """Start another service on the same log directory."""
    return serve(settings={"LLM_SHELL_LOG_DIR": str(service.log_dir)})


def test_worker_and_shim_killed_under_output(service: Service) -> None:
    """The understudy keeps what the process prints while there is no worker: no line is lost, the code is true."""
    pid = start_counter(service, pause_at=100, count=40_000, exit_code=7)
    with stopped(service.pid):
        send(signal.SIGKILL, worker_of(service), shim_of(service.status()))
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: not alive(pid))
    status = service.wait_for_exit(10)
    assert (status["status"], status["exit_code"]) == ("exited", 7)
    assert TAKEN_OVER.format(1) in status["reason"]
    assert_whole(service.content(), 40_000)


def test_worker_and_keepers_killed_together(service: Service) -> None:
    """The next worker keeps a silent process, says what is lost, and ends its whole tree when asked to."""
    service.start(WITH_LEFTOVER)
    orphan = int(service.wait_for_output("ready").split("\n")[0])
    status = service.status()
    with stopped(service.pid):
        send(signal.SIGKILL, worker_of(service), *keepers_of(status))
    now = service.status()
    assert (now["status"], now["process_pid"]) == ("running", status["process_pid"])
    assert (now["reason"], now["output_open"]) == (ABANDONED, False)
    answer = service.post("/kill").body
    assert (answer["status"], answer["survivors"]) == ("killed", [])
    assert not alive(orphan)
    assert not alive(status["process_pid"])
    service.start("true")


def test_worker_and_keepers_killed_under_output(service: Service) -> None:
    """A process that prints then gets SIGPIPE, as nobody is left to read: that is told, its code never invented."""
    start_counter(service, interval=0.001)
    with stopped(service.pid):
        status = service.status()
        send(signal.SIGKILL, worker_of(service), *keepers_of(status))
        wait_until(lambda: not alive(status["process_pid"]))
    now = wait_until(lambda: seen if (seen := service.status())["stopped_at"] else {})
    assert now["status"] == "exited"
    assert now["exit_code"] is None
    assert now["reason"] == UNKNOWN


def reboot(record: RunRecord, stranger: Identity) -> None:
    """Let the record come from another boot, at which a process with the very numbers of the stranger ran."""
    record.boot_id = "00000000-0000-4000-8000-000000000000"
    record.process = record.shim = record.understudy = stranger
    record.members = [stranger]


def reuse_pid(record: RunRecord, stranger: Identity) -> None:
    """Let the stranger have the pid of everybody whom the record knows, but not the start time."""
    record.process = record.shim = record.understudy = Identity(stranger.pid, stranger.start_ticks - 1)
    record.members = [record.process]


@pytest.mark.parametrize(
    ("happen", "reason"),
    [
        (reboot, "The machine was restarted before its end was seen, so its exit code is not known."),
        (reuse_pid, UNKNOWN),
    ],
)
def test_a_stranger_with_the_same_pid_is_never_signalled(
    serve: Services, stranger: Identity, happen: Callable[[RunRecord, Identity], None], reason: str
) -> None:
    """After a restart of the machine, or when a pid was reused, the run has ended somehow, and no stranger is hurt."""
    service, status = start_and_keep(serve, "echo ready; exec sleep 1000")
    stop_and_kill(service, *keepers_of(status), status["process_pid"])
    record = record_of(status)
    happen(record, stranger)
    RecordFile(record_path(record.log_file)).write(record)

    service = next_service(serve, service)
    now = wait_until(lambda: seen if (seen := service.status())["stopped_at"] else {})
    assert (now["status"], now["exit_code"], now["signal"], now["leftover_pids"]) == ("exited", None, None, [])
    assert now["reason"].startswith(reason)
    assert service.content() == "ready"
    wait_until(lambda: service.post("/kill").status == 400)
    service.start("true", replace=True)


@pytest.mark.parametrize(("path", "body"), [("/kill", None), ("/start", {"command": "true", "replace": True})])
def test_leftovers_that_can_be_identified_are_ended(serve: Services, path: str, body: dict[str, object] | None) -> None:
    """What a process had left behind is known from the record to a service that finds no keeper, and ended."""
    service, status = start_and_keep(serve, WITH_LEFTOVER)
    orphan = int(service.content().split("\n")[0])
    os.kill(status["process_pid"], signal.SIGUSR1)
    wait_until(lambda: service.status()["stopped_at"])
    stop_and_kill(service, *keepers_of(status))

    service = next_service(serve, service)
    now = service.status()
    assert (now["status"], now["exit_code"], now["leftover_pids"]) == ("exited", 4, [orphan])
    assert service.post("/start", {"command": "true"}).status == 409
    assert service.post(path, body).status in {200, 201}
    assert not alive(orphan)


def test_a_process_that_lost_its_shim_between_two_services(serve: Services) -> None:
    """A process whose shim died while no service ran has lost nothing: its understudy keeps it for the next one."""
    service = serve(settings={"LLM_SHELL_ON_SHUTDOWN": "keep"})
    pid = start_counter(service, pause_at=100, count=200, exit_code=7)
    stop_and_kill(service, shim_of(service.status()))
    os.kill(pid, signal.SIGUSR1)
    status = next_service(serve, service).wait_for_exit(10)
    assert (status["process_pid"], status["exit_code"]) == (pid, 7)
    assert TAKEN_OVER.format(1) in status["reason"]
    assert_whole(serve.started[-1].content(), 200)


def test_a_process_that_lost_its_keepers_between_two_services(serve: Services) -> None:
    """A process whose shim and understudy died while no service ran is told of as such, and ended when asked."""
    service, status = start_and_keep(serve, "echo ready; exec sleep 1000")
    stop_and_kill(service, *keepers_of(status))
    service = next_service(serve, service)
    now = service.status()
    assert (now["status"], now["process_pid"], now["output_open"]) == ("running", status["process_pid"], False)
    assert now["reason"] == ABANDONED
    answer = service.post("/kill").body
    assert (answer["status"], answer["exit_code"], answer["survivors"]) == ("killed", None, [])
