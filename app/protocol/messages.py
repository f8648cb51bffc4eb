"""Runs in every process of ours: the messages between supervisor and shim, one JSON object per packet.

The sockets are Unix sockets of type `SOCK_SEQPACKET`. A supervisor sends each `Operation` in a `Request`. The shim that
starts a command sends `Started` or `Failed` first; on every connection it sends a `Handshake`, then a `State` whenever
something changed, and a `Reply` to each request. The listening socket has an abstract name (unix(7)), which needs no
path: it survives the removal of the log directory and disappears with the shim. Any user may connect to an abstract
name, so both ends check the peer's user with `SO_PEERCRED`.
"""

from typing import Annotated, Literal

import msgspec

from app.linux.proc import Identity
from app.runs.record import OVERTAKING, Cause, RunRecord, State

# The version of these messages. A shim goes on when its service is upgraded, and must understand the next version.
VERSION = 2
# Seconds: no clock of the shim overflows.
MAX_TIMEOUT = 86_400


class Started(msgspec.Struct, tag="started"):
    """Report that the process runs."""

    pid: int
    start_ticks: int


class Failed(msgspec.Struct, tag="failed"):
    """Report that the process could not be started: which step failed, and the system's errno."""

    step: Literal["cwd", "spawn"]
    errno: int


class Handshake(msgspec.Struct, tag="handshake"):
    """Open a connection: the shim's version and its run's state. The record on disk is current then."""

    version: int
    state: State


class Kill(msgspec.Struct, tag="kill", frozen=True):
    """Ask for the end of the tree: `signal` first, SIGKILL after `timeout` seconds."""

    signal: Literal["SIGTERM", "SIGKILL"]
    timeout: Annotated[float, msgspec.Meta(ge=0, le=MAX_TIMEOUT)]
    cause: Cause

    def result_when_repeated(self, result: "Result | None", state: State) -> "Killed":
        """Return the result where the shim was killed; `result` is its replacement's, None where the run had ended."""
        if isinstance(result, Killed) and result.found:
            return result
        overtaken = state.killed_by in OVERTAKING and self.cause not in OVERTAKING
        return Killed(found=True, escalated=state.escalated, overtaken=overtaken)


class Killed(msgspec.Struct, tag="killed"):
    """Report how a `Kill` went.

    `found` says whether anything was alive to be signalled, `overtaken` whether a `/kill` or the service's stop joined,
    after which nothing is to be started. `refused` are the survivors that the system does not let us signal.
    """

    found: bool
    escalated: bool = False
    survivors: list[int] = []
    overtaken: bool = False
    refused: list[int] = []


class Unsupported(msgspec.Struct, tag="unsupported"):
    """Replace an operation that the shim's version does not know, in the request and as its result."""


Operation = Kill
Result = Killed | Unsupported


class Request(msgspec.Struct):
    """Ask for an operation."""

    id: int
    op: Operation | Unsupported


class Reply(msgspec.Struct, tag="reply"):
    """Carry the result of the request with this id."""

    id: int
    result: Result


class KilledV1(Killed, tag="killed", kw_only=True):
    """Report how a `Kill` went in version 1, where request and reply were no messages of their own."""

    id: int


class Crashed(msgspec.Struct, tag="crashed"):
    """Report a fault in the shim's own code by its traceback."""

    traceback: str


class Takeover(msgspec.Struct, kw_only=True):
    """Ask a replacement shim to keep a run whose shim died.

    `parents` are the subreapers that the orphans came to, `not_ours` the sessions that never belong to the tree.
    `pipe`, a read end of the output, and `pidfd`, the process's, are descriptors of the process that reads this.
    """

    record: RunRecord
    process: Identity
    parents: list[int]
    not_ours: list[int]
    pipe: int | None = None
    pidfd: int | None = None


FromShim = Started | Failed | Handshake | State | Reply | KilledV1 | Crashed

encode = msgspec.json.Encoder().encode
_from_shim: msgspec.json.Decoder[FromShim] = msgspec.json.Decoder(FromShim)
# As `decode_from_supervisor` does, it raises one of `UNDECODABLE` for anything else.
decode_from_shim = _from_shim.decode
_from_supervisor = msgspec.json.Decoder(Request)


def encode_v1(request: Request) -> bytes:
    """Turn a request into a packet for a shim of version 1."""
    return encode({**msgspec.to_builtins(request.op), "id": request.id})


def decode_from_supervisor(packet: bytes) -> Request:
    """Read a packet of the supervisor's; raises one of `UNDECODABLE` for what is no request.

    A request for an operation that this version does not know is one for `Unsupported`.
    """
    try:
        return _from_supervisor.decode(packet)
    except msgspec.ValidationError:
        fields = msgspec.json.decode(packet, type=dict[str, msgspec.Raw])
        return Request(msgspec.json.decode(fields.get("id", b""), type=int), Unsupported())
