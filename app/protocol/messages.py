"""What supervisor and shim say to each other: one JSON object per packet of a Unix `SOCK_SEQPACKET` socket.

The supervisor sends `Kill`; the shim sends `Started` or `Failed` once, then `State` whenever something changed and
`Killed` in answer to each `Kill`. The listening end has an abstract name (unix(7)): it needs no path, so it survives
the removal of the log directory and is gone with the shim. Everybody may connect to an abstract name, so both ends
check the peer's user with `SO_PEERCRED`.
"""

from typing import Literal

import msgspec

from app.linux.proc import Identity
from app.runs.record import Cause, RunRecord, State


class Started(msgspec.Struct, tag="started"):
    """Tell that the process runs."""

    pid: int
    start_ticks: int


class Failed(msgspec.Struct, tag="failed"):
    """Tell that the process could not be started: which step failed, and the system's errno."""

    step: Literal["cwd", "spawn"]
    errno: int


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


class Takeover(msgspec.Struct, kw_only=True):
    """Ask a new shim to keep a run whose shim died: what is known of it, and what came along with the request.

    `parents` are the subreapers that the orphans came to, `not_ours` the sessions that never belong to the tree.
    """

    record: RunRecord
    process: Identity
    parents: list[int]
    not_ours: list[int]
    has_pipe: bool
    has_pidfd: bool


FromShim = Started | Failed | State | Killed | Crashed

_encoder = msgspec.json.Encoder()
_from_shim: msgspec.json.Decoder[FromShim] = msgspec.json.Decoder(FromShim)
_from_supervisor = msgspec.json.Decoder(Kill)


def encode(message: FromShim | Kill) -> bytes:
    """Turn a message into one packet."""
    return _encoder.encode(message)


def decode_from_shim(packet: bytes) -> FromShim:
    """Read a packet of the shim's; raises `msgspec.MsgspecError` for anything else."""
    return _from_shim.decode(packet)


def decode_from_supervisor(packet: bytes) -> Kill:
    """Read a packet of the supervisor's; raises `msgspec.MsgspecError` for anything else."""
    return _from_supervisor.decode(packet)
