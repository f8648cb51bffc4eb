"""The zygote and those that it forks are stopped, killed or short of something: a start is executed once, or never."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.kit.actors import Request, worker_of
from tests.kit.executions import Executions, lose_zygotes, started
from tests.kit.machine import AS_LONELY_USER, LONELY_USER, limited, tasks_of
from tests.kit.processes import alive, descriptors_of, send, watch_for_child
from tests.kit.requiring import require
from tests.kit.service import GUNICORN, Service
from tests.kit.services import Services, successor_of
from tests.kit.waiting import wait_until

# Seconds in which a start is answered although something in its course was stopped.
SOON = 5.0


@pytest.fixture
def executions(service: Service, tmp_path: Path) -> Iterator[Executions]:
    """Return the starts of a test: in the end another one works, and each was executed as often as it had to be."""
    made = Executions(service, tmp_path / "executions")
    started(made)
    yield made
    started(made)
    made.check()


def logs(service: Service) -> set[Path]:
    """Return the logs there are: one is made before its start goes to the zygote."""
    return set(service.log_dir.glob("*.log"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_zygote_hinders_no_start(executions: Executions, number: signal.Signals) -> None:
    """After whatever signal to the zygote a command starts soon."""
    send(number, executions.zygote)
    began = time.monotonic()
    assert executions.start().status == 201
    assert time.monotonic() - began < SOON


def test_a_zygote_killed_before_it_forks(executions: Executions) -> None:
    """A start that waits for a stopped zygote is made by the next one when that is killed."""
    pid, before = executions.zygote, logs(executions.service)
    send(signal.SIGSTOP, pid)

    def kill() -> None:
        wait_until(lambda: logs(executions.service) - before)
        send(signal.SIGKILL, pid)

    assert executions.start(kill).status == 201


def strike(executions: Executions, number: signal.Signals, *, whom: str) -> Callable[[], None]:
    """Return what stops the understudy of a start as soon as there is one, and then sends a signal.

    `whom` is the zygote, which is killed beside a stopped understudy, or the understudy itself.
    """
    parent = executions.zygote
    next_child = watch_for_child(parent)

    def act() -> None:
        child = next_child()
        assert child is not None
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGSTOP)
            os.kill(parent if whom == "zygote" else child, number)
            if whom == "zygote":
                os.kill(child, signal.SIGCONT)

    return act


@pytest.mark.parametrize(
    ("whom", "number"),
    [("zygote", signal.SIGKILL), ("understudy", signal.SIGKILL), ("understudy", signal.SIGSTOP)],
    ids=["zygote killed", "understudy killed", "understudy stopped"],
)
def test_a_start_is_disturbed_right_after_the_fork(executions: Executions, whom: str, number: signal.Signals) -> None:
    """Between fork and spawn the zygote may die, the understudy may die or be stopped: once is still once."""
    for _ in range(5):
        began = time.monotonic()
        executions.start(strike(executions, number, whom=whom))
        assert time.monotonic() - began < SOON
        started(executions)


def test_a_zygote_killed_at_any_moment(executions: Executions) -> None:
    """At whatever moment of a start its zygote dies, the command starts, once."""
    lose_zygotes(executions, 10)


@contextmanager
def kept_stopped(pid: int) -> Iterator[None]:
    """Stop a process again and again for the time."""
    over = threading.Event()

    def stop() -> None:
        with suppress(ProcessLookupError):
            while not over.wait(0.001):
                os.kill(pid, signal.SIGSTOP)

    stopper = threading.Thread(target=stop)
    stopper.start()
    yield
    over.set()
    stopper.join()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def test_a_zygote_that_is_stopped_without_end(executions: Executions) -> None:
    """A start succeeds all the same or fails with a reason, and then nothing is executed later."""
    with kept_stopped(executions.zygote):
        executions.start()


def test_a_zygote_without_descriptors(executions: Executions) -> None:
    """Whichever descriptor the zygote lacks, a start works or fails with a reason, and costs none for good."""
    pid = executions.zygote
    before = len(descriptors_of(pid))
    answers = set()
    for limit in range(4, before + 12):
        with limited(pid, resource.RLIMIT_NOFILE, limit):
            answer = executions.start()
        answers.add(answer.status)
        assert answer.status == 201 or os.strerror(errno.EMFILE) in answer.body["detail"], answer.body
        if not alive(pid):  # it may give up, and another takes its place
            started(executions)
            pid = executions.zygote
    assert 201 in answers
    started(executions)
    wait_until(lambda: len(descriptors_of(executions.zygote)) <= before)


@pytest.fixture
def lonely_service(serve: Services, tmp_path: Path) -> Service:
    """Return a service of a user who has no other process, whom RLIMIT_NPROC binds."""
    require(os.geteuid() == 0, "the right to become an unprivileged user, whom RLIMIT_NPROC binds")
    logs = tmp_path / "logs"
    logs.mkdir()
    os.chown(logs, LONELY_USER, LONELY_USER)
    rights = [f"--{kind}-caps=+dac_override" for kind in ("inh", "ambient")]  # the interpreter may lie in root's home
    command = [*AS_LONELY_USER, *rights, *GUNICORN, "wsgi:app"]
    return serve(command=command, cwd=Path("/"), settings={"LLM_SHELL_LOG_DIR": str(logs), "LLM_SHELL_THREADS": "4"})


@contextmanager
def processes_left(pid: int, more: int) -> Iterator[None]:
    """Let a process fork so many times more, counted with all of its user, who alone may say so (prlimit(2))."""
    limit = [*AS_LONELY_USER, "prlimit", f"--pid={pid}"]
    subprocess.run([*limit, f"--nproc={tasks_of(LONELY_USER) + more}:"], check=True)
    yield
    if alive(pid):
        subprocess.run([*limit, "--nproc=1000:"], check=True)


def test_a_zygote_without_processes(lonely_service: Service, tmp_path: Path) -> None:
    """Whether understudy, shim or command can't be had, a start fails with the system's words; the next one works."""
    executions = Executions(lonely_service, tmp_path / "executions")
    (tmp_path / "executions").chmod(0o666)
    for _ in range(5):  # by then the worker has made the threads that it makes in the course of calls
        started(executions)
    lonely_service.wait_until_alone()
    answers = []
    for more in range(5):
        with processes_left(executions.zygote, more):
            answers.append(executions.start())
        lonely_service.wait_until_alone()
    refused = [answer.body["detail"] for answer in answers if answer.status == 500]
    assert refused
    assert all("Resource temporarily unavailable" in detail for detail in refused), refused
    started(executions)
    executions.check()


def test_two_services_have_a_zygote_each(serve: Services, tmp_path: Path) -> None:
    """Of two services of one user neither starts by the other's zygote, or ends it."""
    starts = [Executions(serve(), tmp_path / name) for name in ("one", "other")]
    for each in starts:
        started(each)
    first, second = (each.zygote for each in starts)
    send(signal.SIGKILL, first)
    assert starts[1].zygote == second
    for each in starts:
        started(each)
    assert starts[1].zygote == second
    last = starts[0].zygote
    assert last not in {first, second}
    starts[0].check()
    assert starts[0].service.stop() == 0
    assert not alive(last)
    assert starts[1].zygote == second
    started(starts[1])
    starts[1].check()


def test_a_start_whose_service_has_gone(serve: Services, tmp_path: Path) -> None:
    """A start that waits for a stopped zygote while the service dies is kept for the next one, or never executed."""
    executions = Executions(serve(), tmp_path / "executions")
    started(executions)
    service, pid = executions.service, executions.zygote
    worker, before = worker_of(service), logs(service)
    send(signal.SIGSTOP, pid)
    command = f"{executions.next_command()}; exec sleep 1000"
    request = Request(lambda: service.post("/start", {"command": command}))
    wait_until(lambda: logs(service) - before)
    send(signal.SIGKILL, service.pid, worker)
    assert request.answer() is None
    with suppress(ProcessLookupError):  # it may be made to end with its worker
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not alive(pid))
    successor = successor_of(service, serve)
    status = successor.status()
    if executions.counts[1]:
        assert (status["status"], status["command"]) == ("running", command)
        assert alive(status["process_pid"])
        assert successor.post("/kill").body["survivors"] == []
    else:
        assert status["status"] != "running"
    assert successor.stop() == 0
    assert executions.counts[1] <= 1
