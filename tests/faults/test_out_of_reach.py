"""A process of another user below the command, which the service may not signal, is told at once and delays nothing."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.machine import AS_LONELY_USER, LONELY_USER
from tests.kit.processes import alive, command_line, descendants, send
from tests.kit.requiring import require
from tests.kit.service import GUNICORN, Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until

# Neither needs a second: 7 s were lost to those whom no signal reached.
AT_ONCE = 2.0
# With root's way into files, since the interpreter may lie in root's home.
RIGHTS = [f"--{kind}-caps=+dac_override" for kind in ("inh", "ambient")]
COMMAND = [*AS_LONELY_USER, *RIGHTS, *GUNICORN, "wsgi:app"]


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a command that runs another as root, whoever calls it, as sudo does: root may signal it alone."""
    require(os.geteuid() == 0 and shutil.which("setpriv"), "root and setpriv, to make a program that becomes root")
    program = tmp_path_factory.mktemp("bin") / "become"
    shutil.copy(str(shutil.which("setpriv")), program)
    program.chmod(0o4755)
    return f"{program} --reuid=0 --regid=0 --clear-groups --inh-caps=-all"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Return a log directory that belongs to the service's user."""
    folder = tmp_path / "logs"
    folder.mkdir()
    os.chown(folder, LONELY_USER, LONELY_USER)
    return folder


@pytest.fixture
def service(serve: Services, logs: Path, helper: str) -> Iterator[Service]:
    """Return a service of a user without privileges; those whom it may not end are ended by root afterwards."""
    service = launch(serve, logs)
    yield service
    end_all()
    assert helper


def launch(serve: Services, logs: Path) -> Service:
    """Start a service of a user without privileges."""
    service = serve(command=COMMAND, cwd=Path("/"), settings={"LLM_SHELL_LOG_DIR": str(logs)})
    service.log_dir = logs
    return service


def sleepers() -> list[int]:
    """Return the pids of those that the service may not signal."""
    return [pid for pid in descendants() if command_line(pid).strip() == "sleep 1001"]


def end_all() -> None:
    """End them as root."""
    for pid in sleepers():
        send(signal.SIGKILL, pid)
    wait_until(lambda: not sleepers())


def survivor() -> int:
    """Wait for the one that the service may not signal, and return its pid."""
    return wait_until(sleepers)[0]


def named(pid: int) -> str:
    """Return how it is to be named."""
    return f"{pid} (user root: sleep 1001)"


@pytest.mark.parametrize("kind", ["SIGTERM", "SIGKILL"])
def test_a_kill_tells_whom_it_could_not_signal(service: Service, helper: str, kind: str) -> None:
    """The others end, and the answer comes at once, by pid, user and command line; so does the next one."""
    service.start(f"sleep 1000 & {helper} setsid sleep 1001 & echo ready; wait")
    pid = survivor()
    for _ in range(2):
        began = time.monotonic()
        status, answer = service.post(f"/kill?timeout=30&type={kind}")
        assert time.monotonic() - began < AT_ONCE
        assert (status, answer["status"], answer["signal"]) == (200, "killed", kind)
        assert (answer["survivors"], answer["escalated"]) == ([pid], False)
        assert answer["reason"] == f"Ended by /kill. The service may not signal, so did not end: {named(pid)}."
    assert alive(pid)


def test_what_it_started_is_ended(service: Service, helper: str) -> None:
    """Nobody waits for the end of one that can't be signalled: its children get the signal at once."""
    # As sudo -u does: a child with the user's own rights, of a parent with root's.
    service.start(f"{helper} sh -c 'setpriv --reuid={LONELY_USER} --clear-groups sleep 1000; exec sleep 1001' & wait")
    wait_until(lambda: any(command_line(pid).strip() == "sleep 1000" for pid in descendants()))
    began = time.monotonic()
    answer = service.post("/kill?timeout=30").body
    assert time.monotonic() - began < AT_ONCE
    assert len(answer["survivors"]) == 1
    survivor()
    assert not any(command_line(pid).strip() == "sleep 1000" for pid in descendants())


def test_only_replace_starts_beside_a_leftover(service: Service, helper: str) -> None:
    """A start is refused by name; with replace, or a restart, the new run says beside whom it was started."""
    service.start(f"{helper} sleep 1001 & exit 3")
    pid = survivor()
    wait_until(lambda: service.status()["status"] == "exited")
    for _ in range(2):
        refusal = service.post("/start", {"command": "true"})
        assert (refusal.status, named(pid) in refusal.body["detail"]) == (409, True)
        assert "which the service may not signal" in refusal.body["detail"]
        service.post("/kill")
    began = time.monotonic()
    beside = f"Started beside processes that the service may not signal: {named(pid)}."
    assert service.start("echo new; exec sleep 1000", replace=True)["reason"] == beside
    assert time.monotonic() - began < AT_ONCE
    service.wait_for_output("new")
    assert service.status()["reason"] == beside
    assert service.post("/kill").body["survivors"] == []
    assert service.start("true")["reason"] is None
    assert alive(pid)


def test_a_past_run_names_what_is_left_of_it(service: Service, helper: str) -> None:
    """/status of a run beside which another was started has its outcome, and its leftover for as long as that lives."""
    run_id = service.start(f"{helper} sleep 1001 & exit 3")["run_id"]
    pid = survivor()
    wait_until(lambda: service.status()["leftover_pids"] == [pid])
    service.start("exec sleep 1000", replace=True)
    past = service.get(f"/status?run_id={run_id}").body
    assert (past["status"], past["exit_code"], past["leftover_pids"]) == ("exited", 3, [pid])
    assert service.status()["leftover_pids"] == []
    end_all()
    wait_until(lambda: service.get(f"/status?run_id={run_id}").body["leftover_pids"] == [])
    assert service.status()["status"] == "running"


def test_a_restart_starts_beside_a_leftover(service: Service, helper: str) -> None:
    """The process is ended and started again; what it left is named."""
    service.start(f"{helper} sleep 1001 & wait")
    pid = survivor()
    status, body = service.post("/restart?timeout=30")
    assert (status, body["reason"]) == (200, f"Started beside processes that the service may not signal: {named(pid)}.")
    wait_until(lambda: len(sleepers()) == 2)


def test_a_process_that_can_t_be_signalled(service: Service, helper: str) -> None:
    """It goes on running and says so; no start or restart replaces it, a start with replace stands beside it."""
    process = service.start(f"exec {helper} sleep 1001")["process_pid"]
    pid = survivor()
    assert pid == process
    answer = service.post("/kill?timeout=30").body
    assert (answer["status"], answer["survivors"]) == ("running", [pid])
    assert answer["reason"] == f"The service may not signal, so did not end: {named(pid)}."
    for path, body in (("/start", {"command": "true"}), ("/restart", None)):
        refusal = service.post(path, body)
        assert (refusal.status, named(pid) in refusal.body["detail"]) == (409, True)
    assert service.status()["status"] == "running"
    assert named(pid) in service.start("true", replace=True)["reason"]


def test_it_is_not_said_to_be_killed_when_it_ends(service: Service, helper: str) -> None:
    """A process whom no signal of ours reached, and that ends by itself, is `exited`."""
    service.start(f"exec {helper} sleep 1001")
    pid = survivor()
    service.post("/kill")
    send(signal.SIGTERM, pid)
    assert service.wait_for_exit()["status"] == "exited"


def test_a_stop_takes_no_longer_and_the_next_service_goes_on(serve: Services, logs: Path, helper: str) -> None:
    """The service stops at once, names who is left in its log, and the next one starts beside it where told to."""
    service = launch(serve, logs)
    try:
        service.start(f"echo ready; {helper} sleep 1001 & wait")
        pid = survivor()
        began = time.monotonic()
        service.stop()
        assert time.monotonic() - began < AT_ONCE + 1
        assert named(pid) in service.text
        service = launch(serve, logs)
        refusal = service.post("/start", {"command": "true"})
        assert (refusal.status, named(pid) in refusal.body["detail"]) == (409, True)
        assert named(pid) in service.start("exec sleep 1000", replace=True)["reason"]
        began = time.monotonic()
        service.stop()
        assert time.monotonic() - began < AT_ONCE + 1
    finally:
        end_all()
