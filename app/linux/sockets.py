"""Runs in every process of ours: packet sockets with abstract names, their peers' credentials, passed descriptors."""

import array
import contextlib
import os
import socket
import struct
from collections.abc import Sequence

PACKET_SIZE = 64 * 1024
_CREDENTIALS = struct.Struct("3i")


def listen(name: str) -> socket.socket:
    """Listen on an abstract name; raises `OSError` when it is in use.

    The shim that gets the listener raises its backlog.
    """
    with contextlib.ExitStack() as on_failure:
        listener = on_failure.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(f"\0{name}")
        listener.listen()
        on_failure.pop_all()
    return listener


def peer_is_ours(connection: socket.socket) -> bool:
    """Tell whether the other end belongs to our user or to root."""
    return _credentials(connection)[1] in (0, os.geteuid())


def peer_pid(connection: socket.socket) -> int:
    """Return the pid that connected, or called listen(2) last, at the other end; 0 in a pid namespace we can't see."""
    return _credentials(connection)[0]


def _credentials(connection: socket.socket) -> tuple[int, int, int]:
    """Return pid, user and group of the other end (SO_PEERCRED, unix(7))."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, uid, gid


def send_with_fds(connection: socket.socket, packet: bytes, fds: Sequence[int]) -> None:
    """Send a packet and duplicates of descriptors (SCM_RIGHTS, unix(7))."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    connection.sendmsg([packet], rights, socket.MSG_NOSIGNAL)


def _receive(connection: socket.socket, most: int) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    room = socket.CMSG_SPACE(4 * most)
    packet, ancillary, _flags, _address = connection.recvmsg(PACKET_SIZE, room, socket.MSG_CMSG_CLOEXEC)
    return packet, ancillary


def receive(connection: socket.socket, most: int = 1) -> tuple[bytes, list[int]]:
    """Wait for one packet and the descriptors that came with it; `b""` at the end of the connection.

    The kernel drops descriptors beyond `most`, and those for which this process has no room.

    A peer that closed with packets unread is reported first, once, though its own packets are still queued here
    (unix_release_sock(), net/unix/af_unix.c; sock_error() in __skb_try_recv_datagram(), net/core/datagram.c).
    """
    try:
        packet, ancillary = _receive(connection, most)
    except ConnectionResetError:
        packet, ancillary = _receive(connection, most)
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return packet, list(fds)
