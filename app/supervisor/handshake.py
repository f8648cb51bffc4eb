"""Runs in the master and the worker: connect to a shim by its name, check its user, and wake it if it was stopped."""

import contextlib
import errno
import logging
import os
import signal
import socket
import struct

from app import protocol
from app.linux import sockets
from app.linux.pidfd import send
from app.linux.proc import read_beginning, read_member
from app.protocol import NAME, UNDERSTUDY_NAME, ZYGOTE_NAME, Handshake
from app.runs.record import UNDECODABLE, State

logger = logging.getLogger(__name__)
_WOKEN = "The process %d (%s) had been stopped (SIGSTOP) and was sent SIGCONT."
_TIMEVAL = struct.Struct("@ll")
_NO_TIMEOUT = _TIMEVAL.pack(0, 0)


def connect(name: str, timeout: float) -> socket.socket:
    """Connect to a shim by its name, and wake it if it was stopped.

    Waits for room in a full queue, to which any user may connect, `timeout` seconds at most. Raises
    `ConnectionRefusedError` when no process of our user listens there, and other kinds of `OSError`.
    """
    with contextlib.ExitStack() as on_failure:
        connection = on_failure.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        # connect(2) waits its turn for room in the queue as long as a send may take (unix_stream_connect(),
        # net/unix/af_unix.c); a non-blocking one would fail at once in a flood.
        seconds, rest = divmod(timeout, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(seconds), int(rest * 1e6) or 1))
        connection.connect(f"\0{name}")
        if not sockets.peer_is_ours(connection):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "another user's process listens there")
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
        return isinstance(protocol.decode_from_shim(packet), Handshake | State)
    except TimeoutError:
        raise
    except (OSError, *UNDECODABLE):
        return False


def request_handshake(name: str, timeout: float) -> bool:
    """Connect to a shim only to have it write its record anew; False when that does not happen in time."""
    with contextlib.suppress(OSError), connect(name, timeout) as connection:
        return await_handshake(connection, timeout)
    return False


def wake(pid: int) -> None:
    """Send SIGCONT to a process that keeps runs and was stopped, as by `kill -STOP $PPID`, and to no other process."""
    member = read_member(pid)
    if member is None or member.state != "T" or (name := name_of(pid)) not in (NAME, UNDERSTUDY_NAME, ZYGOTE_NAME):
        return
    if send(member.identity, signal.SIGCONT):
        logger.warning(_WOKEN, pid, name.decode())


def wake_zygote(pid: int) -> None:
    """Wake this process's own like `wake`, but without a descriptor, of which none may be free to read `/proc`."""
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        if os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None:
            os.kill(pid, signal.SIGCONT)
            logger.warning(_WOKEN, pid, ZYGOTE_NAME.decode())


def name_of(pid: int) -> bytes:
    """Return the name of a process (proc_pid_comm(5)), which it may change; empty when it has gone."""
    return read_beginning(f"/proc/{pid}/comm").removesuffix(b"\n")
