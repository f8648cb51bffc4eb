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
from app.linux.permit import is_taken
from app.linux.proc import Identity, children, own_identity
from app.protocol import BACKLOG, NAME, UNDERSTUDY_NAME, Failed, StartFds
from app.runs.record import load_record, record_path
from app.shim import main
from app.shim.keeper import Keeper
from app.shim.owned import OwnedTree

# So many stops of the shim within a second are no accident: it could do no work.
MAX_STOPS = 10


def begin(fds: StartFds) -> NoReturn:
    """Keep the run of one start, through a shim and in its place, until nothing of it is left.

    Should the shim be killed, all that it is the parent of comes to this process, as the next subreaper above
    (PR_SET_CHILD_SUBREAPER, prctl(2)), zombies included (exit_notify(), kernel/exit.c). So this process can reap the
    command as the shim would have, and no stranger can be among its children.
    """
    os.setsid()
    prctl(PR_SET_NAME, UNDERSTUDY_NAME)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        shim = _fork_shim(fds)
        for fd in (fds.connection, fds.write_end):
            os.close(fd)
        if not _ends_well(shim):
            _take_over(fds)
    finally:
        os._exit(0)


def _fork_shim(fds: StartFds) -> int:
    understudy = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(fds.connection, protocol.encode(Failed("spawn", error.errno or 0)))
        os._exit(0)
    if pid == 0:
        main.run(fds, understudy)
    return pid


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


def _take_over(fds: StartFds) -> None:
    """Be the run's shim from now on."""
    prctl(PR_SET_NAME, NAME)
    if not is_taken(fds.permit):
        return  # the shim did not come as far as the spawn, and the service will know that by the permit
    given = main.read_start(fds.request).record
    record = load_record(record_path(given.log_file)) or given
    record.process = record.process or _find_process()
    if record.process is None or record.state.ended:
        return
    record.shim, record.understudy = own_identity(), None
    listener = socket.socket(fileno=fds.listener)
    listener.listen(BACKLOG)
    keeper = Keeper(record, record.process, OwnedTree(), fds.pipe, listener)
    keeper.resume()
    keeper.run()


def _find_process() -> Identity | None:
    """Find the process of a shim that was killed before it had recorded it: the first of all that it is the parent of.

    A session leader comes before others, which only it can have started; and the process is none for a moment.
    """
    found = sorted(children(), key=lambda one: (one.session != one.pid, one.start_ticks, one.pid))
    return found[0].identity if found else None
