"""Runs in the master and the worker: connect to a shim by its name, check its user, and wake it if it was stopped."""

import contextlib
import logging
import os
import signal
import socket
import struct
from pathlib import Path

from app.linux import sockets
from app.linux.pidfd import send
from app.linux.proc import read_member
from app.protocol import messages
from app.protocol.messages import Handshake
from app.protocol.startup import NAME
from app.runs.record import UNDECODABLE, State

logger = logging.getLogger(__name__)
_TIMEVAL = struct.Struct("@ll")
_NO_TIMEOUT = _TIMEVAL.pack(0, 0)


def connect(name: str, timeout: float) -> socket.socket | None:
    """Connect to a shim, and wake it if it was stopped; None when no process of our user listens there.

    Waits for room in a full queue, to which any user may connect, `timeout` seconds at most.
    """
    with contextlib.ExitStack() as on_failure:
        connection = on_failure.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        # connect(2) waits its turn for room in the queue as long as a send may take (unix_stream_connect(),
        # net/unix/af_unix.c); a non-blocking one would fail at once in a flood.
        seconds, rest = divmod(timeout, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(seconds), int(rest * 1e6) or 1))
        try:
            connection.connect(f"\0{name}")
        except OSError:
            return None
        if not sockets.peer_is_ours(connection):
            return None
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _NO_TIMEOUT)
        wake(sockets.peer_pid(connection))
        on_failure.pop_all()
    return connection


def await_handshake(connection: socket.socket, timeout: float) -> bool:
    """Wait for a shim's handshake, before which it writes its record anew; False when it has gone.

    Raises `TimeoutError` when none comes.
    """
    connection.settimeout(timeout)
    try:
        packet, fds = sockets.receive(connection)
        for fd in fds:
            os.close(fd)
        return isinstance(messages.decode_from_shim(packet), Handshake | State)
    except TimeoutError:
        raise
    except (OSError, *UNDECODABLE):
        return False


def request_handshake(name: str, timeout: float) -> bool:
    """Connect to a shim only to have it write its record anew; False when that does not happen in time."""
    with contextlib.suppress(TimeoutError):
        if (connection := connect(name, timeout)) is not None:
            with connection:
                return await_handshake(connection, timeout)
    return False


def wake(pid: int) -> None:
    """Send SIGCONT to a shim that was stopped, as by a command's `kill -STOP $PPID`, and to no other process."""
    member = read_member(pid)
    if member is None or member.state != "T" or _name(pid) != NAME:
        return
    if send(member.identity, signal.SIGCONT):
        logger.warning("The shim %d had been stopped (SIGSTOP) and was sent SIGCONT.", pid)


def _name(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_bytes().rstrip(b"\n")
    return b""
