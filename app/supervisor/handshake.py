"""The way in to a shim by its name: connect to it, see that it is ours, and have it go on where it was stopped."""

import contextlib
import logging
import os
import signal
import socket
import struct
from pathlib import Path

import msgspec

from app.linux import sockets
from app.linux.pidfd import send
from app.linux.proc import read_member
from app.protocol import messages
from app.protocol.messages import Handshake
from app.protocol.startup import NAME
from app.runs.record import State

logger = logging.getLogger(__name__)
_TIMEVAL = struct.Struct("@ll")
_NO_TIMEOUT = _TIMEVAL.pack(0, 0)


def connect(name: str, timeout: float) -> socket.socket | None:
    """Connect to a shim, which goes on if it was stopped; None when nobody of ours listens there.

    A queue full of strangers is waited for, `timeout` seconds at the most.
    """
    with contextlib.ExitStack() as on_failure:
        connection = on_failure.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        # connect(2) waits for room in the queue, in line with others, for as long as it might send
        # (unix_stream_connect(), net/unix/af_unix.c); a non-blocking one would fail at once, and again, in a flood.
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
    """Have a shim write its record anew, as it does before it greets; False when it has gone.

    Raises `TimeoutError` when it stays silent.
    """
    connection.settimeout(timeout)
    try:
        packet, fds = sockets.receive(connection)
        for fd in fds:
            os.close(fd)
        return isinstance(messages.decode_from_shim(packet), Handshake | State)
    except TimeoutError:
        raise
    except (OSError, msgspec.MsgspecError):
        return False


def request_handshake(name: str, timeout: float) -> bool:
    """Connect to a shim only to have it write its record anew; False when none of ours does in time."""
    connection = connect(name, timeout)
    if connection is None:
        return False
    with connection, contextlib.suppress(TimeoutError):
        return await_handshake(connection, timeout)
    return False


def wake(pid: int) -> None:
    """Have a shim go on that somebody stopped, as a command does by `kill -STOP $PPID`; nobody else is touched."""
    member = read_member(pid)
    if member is None or member.state != "T" or _name(pid) != NAME:
        return
    if send(member.identity, signal.SIGCONT):
        logger.warning("The shim %d had been stopped (SIGSTOP); it was told to go on.", pid)


def _name(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_bytes().rstrip(b"\n")
    return b""
