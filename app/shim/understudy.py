"""Runs in the understudy: fork the shim of one run, wait for its end, and become the shim where that was killed."""

import contextlib
import os
import signal
import socket
import time
from collections import deque
from typing import NoReturn

from app import protocol
from app.linux.libc import PR_SET_CHILD_SUBREAPER, PR_SET_NAME, prctl
from app.linux.permit import is_taken, take
from app.linux.proc import Identity, children, has_executed, own_identity
from app.protocol import BACKLOG, NAME, UNDERSTUDY_NAME, Failed, StartFds
from app.runs.record import RecordFile, record_path
from app.shim import main
from app.shim.keeper import Keeper
from app.shim.record_copy import RecordCopy

# So many stops of the shim within a second are no accident: it could do no work.
MAX_STOPS = 10


def begin(fds: StartFds) -> NoReturn:
    """Keep the run of one start, through a shim and in its place, until nothing of it is left.

    Should the shim be killed, all that it is the parent of comes to this process, as the next subreaper above
    (PR_SET_CHILD_SUBREAPER, prctl(2)), zombies included (exit_notify(), kernel/exit.c). So this process can reap the
    command as the shim would have, and no stranger can be among its children.
    """
    os.setsid()
    signal.signal(signal.SIGCHLD, _note_child)  # the zygote ignores it, and its children are reaped by the kernel
    prctl(PR_SET_NAME, UNDERSTUDY_NAME)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        shim, copy = _fork_shim(fds)
        os.close(fds.connection)
        os.close(fds.write_end)
        if fds.stdin >= 0:  # its other end stays open here, too: one keeper's death must not end the process's input
            os.close(fds.stdin)
        if not _ends_well(shim):
            _take_over(fds, copy)
    finally:
        os._exit(0)


def _note_child(_number: int, _frame: object) -> None:
    """Do nothing: what waits is woken by the signal itself, or by `signal.set_wakeup_fd`, which takes a handler."""


def _fork_shim(fds: StartFds) -> tuple[int, RecordCopy]:
    """Return the shim's pid and what it writes its record to; report a failure, unless another shim has the permit."""
    understudy = os.getpid()
    try:
        copy = RecordCopy()
        pid = os.fork()
    except OSError as error:
        if take(fds.permit):
            with contextlib.suppress(OSError):  # the worker has gone
                os.write(fds.connection, protocol.encode(Failed("spawn", error.errno or 0)))
        os._exit(0)
    if pid == 0:
        main.run(fds, copy, understudy)
    return pid, copy


def _ends_well(shim: int) -> bool:
    """Wait for the shim's end; False when it was killed, or crashed, and its run may go on.

    One that is stopped (SIGSTOP) is continued at once. A command that stops it again and again could keep it from ever
    doing its work: it is killed then.
    """
    stops: deque[float] = deque(maxlen=MAX_STOPS)
    while True:
        info = os.waitid(os.P_PID, shim, os.WEXITED | os.WSTOPPED)
        if info is None or info.si_code != os.CLD_STOPPED:
            return info is not None and (info.si_code, info.si_status) == (os.CLD_EXITED, 0)
        stops.append(time.monotonic())
        often = len(stops) == MAX_STOPS and stops[-1] - stops[0] < 1.0
        os.kill(shim, signal.SIGKILL if often else signal.SIGCONT)


def _take_over(fds: StartFds, copy: RecordCopy) -> None:
    """Be the run's shim from now on."""
    prctl(PR_SET_NAME, NAME)
    if not is_taken(fds.permit):
        return  # the shim did not come as far as the spawn, and the service will know that by the permit
    record = copy.read()
    if record is None:
        record = main.read_start(fds.request).record
        record.process = _find_process()
    if record.process is None:
        return
    if record.state.ended:
        with contextlib.suppress(OSError):  # the shim may have been killed before it wrote this
            RecordFile(record_path(record.log_file), record.log_mode).replace(record)
        return
    record.shim, record.understudy = own_identity(), None
    listener = socket.socket(fileno=fds.listener)
    listener.listen(BACKLOG)
    keeper = Keeper(record, record.process, copy, fds.pipe, listener)
    keeper.resume()
    keeper.run()


def _find_process() -> Identity | None:
    """Find the process of a shim that was killed before it had recorded it; None where that has not executed it.

    It is the first of the shim's children: a session leader, or a fork that is to become one and has not executed
    anything yet. That is stopped for the look: either it has executed the command then, and goes on, or it never will.
    """
    for child in sorted(children(), key=lambda one: (one.session != one.pid, one.start_ticks, one.pid)):
        if has_executed(child.pid) or _executes_after_all(child.pid):
            return child.identity
        os.kill(child.pid, signal.SIGKILL)
    return None


def _executes_after_all(pid: int) -> bool:
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    executed = has_executed(pid)
    if executed:
        os.kill(pid, signal.SIGCONT)
    return executed
