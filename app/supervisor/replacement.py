"""Runs in the master and the worker: start a replacement shim for a run whose shim died."""

import contextlib
import errno
import os
import socket
from pathlib import Path

import msgspec

from app.linux import sockets
from app.linux.proc import boot_id
from app.protocol.messages import Takeover
from app.protocol.startup import PIDFD_FD, PIPE_FD
from app.runs.record import RecordFile, RunRecord, State, record_path
from app.supervisor.boot import boot, request_file
from app.supervisor.orphans import subreapers
from app.supervisor.status import ended_unseen


def claim_name(name: str) -> socket.socket | None:
    """Bind the name of a run's control socket, which is free when its shim is dead; None when it is in use."""
    try:
        return sockets.listen(name)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return None


def plan_takeover(record: RunRecord, pipe: int | None, pidfd: int | None) -> Takeover | State:
    """Return a replacement shim's request, or the last state of a run of which nothing is left to take over.

    An end that no shim saw is written to the record, with an unknown exit code.
    """
    if record.state.ended:
        return record.state
    if record.process is None or record.boot_id != boot_id():
        record.state = ended_unseen(record)
        with contextlib.suppress(OSError):
            RecordFile(record_path(record.log_file), record.log_mode).write(record)
        return record.state
    parents, not_ours = subreapers(), [os.getsid(0)]
    return Takeover(record=record, process=record.process, parents=parents, not_ours=not_ours, pipe=pipe, pidfd=pidfd)


def launch_takeover(takeover: Takeover, listener: socket.socket) -> tuple[int, socket.socket]:
    """Start a replacement shim; return its pid and the connection to it. Raises `OSError`."""
    given = (takeover.pipe, PIPE_FD), (takeover.pidfd, PIDFD_FD)
    pipe, pidfd = (None if fd is None else place for fd, place in given)
    request = msgspec.json.encode(msgspec.structs.replace(takeover, pipe=pipe, pidfd=pidfd))
    with Path(os.devnull).open("rb") as nothing, request_file(request) as file:
        # /dev/null takes the place of a descriptor that is not there.
        fds = [nothing.fileno() if fd is None else fd for fd, _place in given]
        return boot("take_over", takeover.record.run_id, [file.fileno(), listener.fileno(), *fds])
