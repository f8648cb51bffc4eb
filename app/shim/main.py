"""Runs in the shim: its program, which starts one command and stays its parent until the run has ended."""

import contextlib
import os
import resource
import signal
import socket
import traceback
from typing import NoReturn

from app import protocol
from app.linux.libc import PR_SET_CHILD_SUBREAPER, PR_SET_NAME, prctl
from app.linux.permit import take, was_announced
from app.linux.proc import Identity, identity_of, own_identity, read_member
from app.protocol import BACKLOG, NAME, Crashed, Failed, Start, Started, StartFds
from app.runs.record import RunRecord
from app.shim.keeper import Keeper
from app.shim.record_copy import RecordCopy
from app.shim.spawn import Program, StepError, spawn


def run(fds: StartFds, copy: RecordCopy, understudy: int) -> NoReturn:
    """Start the command, report that, and keep the run until nothing of it is left; exit with 0 then.

    Any other end makes the understudy, this process's parent, keep the run.
    """
    code = 1
    try:
        prctl(PR_SET_NAME, NAME)
        # A process that double-forks or calls setsid becomes the shim's child and can be found. Children don't inherit
        # the attribute (prctl(2)). It is set before the spawn, so that no orphan comes before it.
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        execute(fds, copy, understudy)
        code = 0
        if os.getppid() == understudy:
            os.kill(understudy, signal.SIGCONT)  # where the command has stopped it: it ends when this process has
    except Exception:  # whatever it is, it is raised again, and reported, since only a worker can log it
        if copy.read() is None:  # or the keeper has reported it
            os.write(fds.connection, protocol.encode(Crashed(traceback.format_exc())))
        raise
    finally:
        os._exit(code)


def read_start(request: int) -> Start:
    """Read a start from its file, which understudy and shim share."""
    return protocol.decode_start(os.pread(request, os.fstat(request).st_size, 0))


def execute(fds: StartFds, copy: RecordCopy, understudy: int) -> None:
    """Execute the command if that is permitted, and keep its run; or report why it could not be executed."""
    connection = socket.socket(fileno=fds.connection)
    try:  # while the worker still writes the record
        start = read_start(fds.request)
        record = start.record
        record.shim, record.understudy = own_identity(), _parent_identity(understudy)
        _limit_descriptors(start.descriptors)
    except OSError as error:
        if take(fds.permit):
            _report(connection, Failed("spawn", error.errno or 0))
        return
    if not (was_announced(fds.ready, connection) and take(fds.permit)):
        return
    try:
        pid = spawn(Program(start.arguments, start.environment, start.spec, fds.write_end, fds.stdin))
    except StepError as error:
        _report(connection, Failed(error.step, error.errno))
        return
    keep(fds, copy, connection, record, pid)


def keep(fds: StartFds, copy: RecordCopy, connection: socket.socket, record: RunRecord, pid: int) -> None:
    """Keep the run of a process that was just executed until nothing of it is left."""
    listener = socket.socket(fileno=fds.listener)
    # A peer that connects gets the pid of the last caller of listen(2) (unix_listen(), net/unix/af_unix.c).
    listener.listen(BACKLOG)
    record.process = identity_of(pid)  # it is there even if the process has ended, as it is not reaped yet
    record.members = [record.process]
    # First, as a caller waits for this. Until the copy has it too, the understudy knows the process as its child.
    _report(connection, Started(record.process, record.shim, record.understudy))
    copy.write(record)
    os.ftruncate(fds.request, 0)  # nobody needs it any more, and it may be large and hold secrets
    for fd in (fds.write_end, fds.request, fds.ready, fds.permit):
        os.close(fd)
    keeper = Keeper(record, record.process, copy, fds.pipe, listener)
    keeper.begin(connection)
    keeper.run()


def _report(connection: socket.socket, message: Started | Failed) -> None:
    with contextlib.suppress(OSError):  # the worker has gone
        connection.send(protocol.encode(message))


def _limit_descriptors(soft: int) -> None:
    """Give the command the limit that the service was started with, which the worker has raised for itself."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY:
        soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _parent_identity(pid: int) -> Identity | None:
    """Return the identity of the understudy; None where it was killed, and its pid may be another process's."""
    member = read_member(pid)
    return member.identity if member is not None and os.getppid() == pid else None
