"""A zygote, or a pair, that does not answer: a start ends in bounded time, and never in an execution after an error."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from app.exceptions import InternalError
from app.linux.permit import is_taken, new_permit, take
from app.protocol import Failed, StartFds, encode
from app.shim import understudy
from app.supervisor import launch, zygote
from app.supervisor.manager import ProcessManager
from tests.kit.actors import zygote_of
from tests.kit.leftovers import ZYGOTE, reap
from tests.kit.processes import alive, children, descendants, name_of, send, watch_for_child
from tests.kit.requiring import require
from tests.kit.waiting import ended, wait_until

pytestmark = pytest.mark.usefixtures("orphans_reaped")
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207


@pytest.fixture
def ready(pm: ProcessManager) -> int:
    """Return the pid of the zygote of this process, once it has made a start."""
    pm.start("true")
    ended(pm.get_status)
    return zygote_of(os.getpid())


def test_an_interrupted_start(pm: ProcessManager, ready: int, tmp_path: Path) -> None:
    """A start that an exception ends while it waits for the zygote is never executed; the next ones are."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    send(signal.SIGSTOP, ready)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            pm.start(f"echo > {tmp_path}/never")
    finally:
        signal.signal(signal.SIGALRM, before)
    wait_until(lambda: not alive(ready))
    for code in (3, 4):
        pm.start(f"exit {code}")
        assert ended(pm.get_status)["exit_code"] == code
    assert not (tmp_path / "never").exists()


@contextmanager
def traced(pid: int) -> Iterator[None]:
    """Keep a process where neither SIGCONT nor SIGKILL has an end that its parent could see: in a tracer's hands."""
    read_end, write_end = os.pipe()
    tracer = os.fork()
    if tracer == 0:
        ptrace = ctypes.CDLL(None).ptrace
        done = ptrace(PTRACE_SEIZE, pid, None, None) == 0 and ptrace(PTRACE_INTERRUPT, pid, None, None) == 0
        os.write(write_end, b"1" if done else b"0")
        signal.pause()
        os._exit(0)
    try:
        require(os.read(read_end, 1) == b"1", "the right to trace a child (ptrace(2))")
        yield
    finally:
        os.kill(tracer, signal.SIGKILL)
        os.waitpid(tracer, 0)
        os.close(read_end)
        os.close(write_end)


def test_a_zygote_that_cannot_be_reaped(pm: ProcessManager, ready: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zygote that neither answers nor ends is replaced; it is reaped when it ends in the end."""
    monkeypatch.setattr(zygote, "TIMEOUT", 0.3)
    with traced(ready):
        began = time.monotonic()
        pm.start("exit 3")
        assert time.monotonic() - began < 5
        assert ended(pm.get_status)["exit_code"] == 3
    wait_until(lambda: not alive(ready))
    zygote.own.renew()
    assert ready not in descendants()


def test_a_zygote_that_cannot_run(pm: ProcessManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no zygote can run, a start says so and leaves nothing; the next one works when that is mended."""
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(7)\n")
    with monkeypatch.context() as broken_service:
        broken_service.setattr(zygote, "PROGRAM", broken)
        broken_service.setattr(zygote, "own", zygote.Zygote())
        with pytest.raises(InternalError, match="ended before it answered"):
            pm.start("true")
    assert list(pm.logs.log_dir.glob("*.log")) == []
    pm.start("exit 3")
    assert ended(pm.get_status)["exit_code"] == 3


@contextmanager
def pair_stopped(parent: int, delay: float) -> Iterator[None]:
    """Stop the next child of a zygote, and the child of that, so long after it was forked; continue them then."""
    next_child = watch_for_child(parent)
    pair: list[int] = []

    def stop() -> None:
        if (understudy := next_child()) is None:
            return
        time.sleep(delay)  # the moments between fork and execution are what this is about
        with suppress(ProcessLookupError):
            os.kill(understudy, signal.SIGSTOP)
            pair.append(understudy)
            pair.extend(children(understudy))
            os.kill(pair[-1], signal.SIGSTOP)

    stopper = threading.Thread(target=stop)
    stopper.start()
    yield
    stopper.join()
    for pid in pair:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_a_start_is_not_executed_after_its_error(
    pm: ProcessManager, ready: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever shim and understudy are held when a start is given up, the command is not executed later, nor left."""
    monkeypatch.setattr(launch, "START_TIMEOUT", 0.3)
    monkeypatch.setattr(launch, "wake_keepers", lambda _record: None)
    errors = 0
    for number in range(12):
        mark, before = tmp_path / str(number), set(descendants())
        with pair_stopped(ready, number * 0.0002):
            try:
                pm.start(f"echo > {mark}; exec sleep 1000")
            except InternalError:
                errors += 1
            executed = mark.exists()
        if pm._get("default").live:
            pm.kill("SIGKILL")
        else:
            reap([pid for pid in set(descendants()) - before if name_of(pid) != ZYGOTE])
            assert mark.exists() == executed
    assert errors


class ZygoteThatDies(zygote.Zygote):
    """A zygote whose answer is lost with it, though it has forked: its start must find its keepers by itself."""

    def fork(self, fds: StartFds) -> None:
        """Fork, and report that the connection broke."""
        super().fork(fds)
        raise ConnectionResetError(errno.ECONNRESET, "the answer was lost")


def test_a_lost_answer_of_the_zygote(
    pm: ProcessManager, ready: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start whose zygote died after its fork was executed where it succeeds, and never where it fails."""
    assert ready
    monkeypatch.setattr(zygote, "own", ZygoteThatDies())
    executed = []
    for number in range(20):
        mark, before = tmp_path / str(number), set(descendants())
        try:
            pm.start(f"echo > {mark}; exec sleep 1000")
        except InternalError:
            reap([pid for pid in set(descendants()) - before if name_of(pid) != ZYGOTE])
            executed.append(mark.exists())
        else:
            wait_until(mark.exists)
            assert pm.kill("SIGKILL")["exit_code"] == -signal.SIGKILL
    assert not any(executed)
    zygote.own.disown()


def test_an_understudy_that_can_not_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reports that only where nobody has executed the command, nor can any more."""
    for taken in (False, True):
        permit = new_permit()
        assert not taken or take(permit)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            if (pid := os.fork()) == 0:
                monkeypatch.setattr(os, "fork", refused)
                understudy.begin(StartFds(theirs.fileno(), -1, -1, -1, theirs.fileno(), -1, permit))
            theirs.close()
            assert os.waitpid(pid, 0)[1] == 0
            packet = ours.recv(65536)
        assert packet == (b"" if taken else encode(Failed("spawn", errno.EAGAIN)))
        assert is_taken(permit)
        os.close(permit)


def refused() -> int:
    """Fail as fork(2) does where there is no room for another process."""
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
