"""What supervisor and shim say to each other: one JSON object per packet of a Unix `SOCK_SEQPACKET` socket.

The supervisor sends `Kill`; the shim sends `Started` or `Failed` once, then `State` whenever something changed and
`Killed` in answer to each `Kill`. The listening end has an abstract name (unix(7)): it needs no path, so it survives
the removal of the log directory and is gone with the shim. Everybody may connect to an abstract name, so both ends
check the peer's user with `SO_PEERCRED`.
"""

import array
import contextlib
import os
import socket
import struct
from typing import Literal

import msgspec

PACKET_SIZE = 64 * 1024
Cause = Literal["kill", "restart", "replace", "shutdown"]
# These mean that nothing is to be started afterwards, whatever the operation that they join had in mind.
OVERTAKING: frozenset[Cause] = frozenset({"kill", "shutdown"})


class Started(msgspec.Struct, tag="started"):
    """Tell that the process runs."""

    pid: int
    start_ticks: int


class Failed(msgspec.Struct, tag="failed"):
    """Tell that the process could not be started: which step failed, and the system's errno."""

    step: Literal["cwd", "spawn"]
    errno: int


class State(msgspec.Struct, tag="state", frozen=True, kw_only=True, omit_defaults=True):
    """Hold everything about a run that changes, in one value that is replaced as a whole.

    `killed_by` is set with the first signal that found the process alive. `ended` is set when the tree is gone, the
    output is closed and nothing will change any more. `orders` counts the requests for the tree's end after which
    nothing is to be started. `trouble` counts what went wrong, by kind.
    """

    stopped_at: str | None = None
    exit_code: int | None = None
    killed_by: Cause | None = None
    escalated: bool = False
    unknown: str | None = None
    output_open: bool = True
    ended: bool = False
    orders: int = 0
    trouble: dict[str, int] = {}


class Kill(msgspec.Struct, tag="kill"):
    """Ask for the end of the tree: `signal` first, SIGKILL after `timeout` seconds."""

    id: int
    signal: Literal["SIGTERM", "SIGKILL"]
    timeout: float
    cause: Cause


class Killed(msgspec.Struct, tag="killed"):
    """Answer a `Kill`.

    `found` tells whether anything was alive to be signalled, `overtaken` whether a `/kill` or the service's stop joined
    in and what was to follow must not. `refused` are the survivors that the system does not let us signal.
    """

    id: int
    found: bool
    escalated: bool = False
    survivors: list[int] = []
    overtaken: bool = False
    refused: list[int] = []


class Crashed(msgspec.Struct, tag="crashed"):
    """Carry the shim's last words: the traceback of a fault in its own code."""

    traceback: str


FromShim = Started | Failed | State | Killed | Crashed

_encoder = msgspec.json.Encoder()
_from_shim: msgspec.json.Decoder[FromShim] = msgspec.json.Decoder(FromShim)
_from_supervisor = msgspec.json.Decoder(Kill)
_CREDENTIALS = struct.Struct("3i")


def encode(message: FromShim | Kill) -> bytes:
    """Turn a message into one packet."""
    return _encoder.encode(message)


def decode_from_shim(packet: bytes) -> FromShim:
    """Read a packet of the shim's; raises `msgspec.MsgspecError` for anything else."""
    return _from_shim.decode(packet)


def decode_from_supervisor(packet: bytes) -> Kill:
    """Read a packet of the supervisor's; raises `msgspec.MsgspecError` for anything else."""
    return _from_supervisor.decode(packet)


def listen(name: str) -> socket.socket:
    """Open the listening end under an abstract name; raises `OSError` when somebody has it.

    The shim that it is passed to makes room there for more connections.
    """
    with contextlib.ExitStack() as on_failure:
        listener = on_failure.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(f"\0{name}")
        listener.listen()
        on_failure.pop_all()
    return listener


def peer_is_ours(link: socket.socket) -> bool:
    """Tell whether the other end belongs to our user or to root."""
    return _credentials(link)[1] in (0, os.geteuid())


def peer_pid(link: socket.socket) -> int:
    """Return the pid of the other end: of who connected, or of who called listen(2) last; 0 for one out of sight."""
    return _credentials(link)[0]


def _credentials(link: socket.socket) -> tuple[int, int, int]:
    """Return pid, user and group of the other end (SO_PEERCRED, unix(7))."""
    raw = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, uid, gid


def send_with_fd(link: socket.socket, message: FromShim, fd: int) -> None:
    """Send a message and a duplicate of `fd` (SCM_RIGHTS, unix(7))."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    link.sendmsg([encode(message)], rights, socket.MSG_NOSIGNAL)


def _receive(link: socket.socket) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    packet, ancillary, _flags, _address = link.recvmsg(PACKET_SIZE, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    return packet, ancillary


def receive(link: socket.socket) -> tuple[bytes, list[int]]:
    """Wait for one packet and the descriptors that came with it; `b""` at the end of the connection.

    A peer that closed without reading everything is reported first, once, though packets of its own still wait here
    (unix_release_sock(), net/unix/af_unix.c; sock_error() in __skb_try_recv_datagram(), net/core/datagram.c).
    """
    try:
        packet, ancillary = _receive(link)
    except ConnectionResetError:
        packet, ancillary = _receive(link)
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return packet, list(fds)
