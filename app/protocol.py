"""Runs in every process of ours: the messages between supervisor and shim, one JSON object per packet.

The sockets are Unix sockets of type `SOCK_SEQPACKET`. A start goes to the zygote, as descriptors (`StartFds`). The shim
that executes it sends `Started` or `Failed` first. On every connection a shim sends a `Handshake`, then a `State`
whenever something changed, and a `Reply` to each `Request`, in which a supervisor sends an `Operation`. The listening
socket has an abstract name (unix(7)), which needs no path: it survives the removal of the log directory and disappears
with the last process that holds it, shim or understudy. Any user may connect to an abstract name, so both ends check
the peer's user with `SO_PEERCRED`.
"""

from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from app.linux.proc import Identity
from app.runs.record import OVERTAKING, Cause, RunRecord, State

# The names of the processes that keep runs, and of the zygote that forks them, as `ps -o comm` shows them.
NAME = b"llm-shell-shim"
UNDERSTUDY_NAME = b"llm-understudy"
ZYGOTE_NAME = b"llm-zygote"
# The zygote's descriptor of its connection to the service.
CONNECTION_FD = 3
# Connections that may wait to be accepted; the system's own bound, net.core.somaxconn, is the same since Linux 5.4
# (listen(2)). Any user may connect, and would easily fill a short queue.
BACKLOG = 4096
# The version of these messages. A shim goes on when its service is upgraded, and must understand the next version.
VERSION = 3
# Seconds: no clock of the shim overflows.
MAX_TIMEOUT = 86_400


class StartFds(NamedTuple):
    """Name the descriptors of a start, in the order in which the zygote gets them.

    `connection` is the shim's end of the run's first one, `request` a file that holds a `Start`, `listener` is bound to
    the run's name, `pipe` and `write_end` are the output's; `ready` is announced before `permit` may be taken, as
    `linux/permit.py` describes. `stdin` and `stdin_writer` are the two ends of the pipe that is the process's standard
    input, -1, and not sent, where that is none.
    """

    connection: int
    request: int
    listener: int
    pipe: int
    write_end: int
    ready: int
    permit: int
    stdin: int = -1
    stdin_writer: int = -1

    def sent(self) -> list[int]:
        """Return the descriptors that there are. The packet with them holds their number, as one byte."""
        return [fd for fd in self if fd >= 0]


class Start(msgspec.Struct):
    """Ask for a command: the record, the program, its environment (`NAME=value`), and how many descriptors it may open.

    `spec` is the record's, its texts encoded, without the fields that have their defaults.
    """

    record: RunRecord
    spec: dict[str, Any]
    arguments: list[bytes]
    environment: list[bytes]
    descriptors: int


class Forked(msgspec.Struct, tag="forked"):
    """Report that the understudy of a start was forked, or the errno of why not."""

    errno: int = 0


class Started(msgspec.Struct, tag="started"):
    """Report that the process runs, and which processes keep it."""

    process: Identity
    shim: Identity | None
    understudy: Identity | None


class Failed(msgspec.Struct, tag="failed"):
    """Report that the process could not be started: which step failed, and the system's errno."""

    step: Literal["cwd", "spawn"]
    errno: int


class Handshake(msgspec.Struct, tag="handshake"):
    """Open a connection: the shim's version and its run's state. The record on disk is current then."""

    version: int
    state: State


class Kill(msgspec.Struct, tag="kill", frozen=True, omit_defaults=True):
    """Ask for the end of the tree: `signal` first, SIGKILL after `timeout` seconds.

    `until_ns` is the same instant by CLOCK_BOOTTIME, for a shim that was stopped while the request waited; 0 is none.
    Without `daemons` these are left alone (`stopping/daemons.py`), which a shim of an older version does not know.
    """

    signal: Literal["SIGTERM", "SIGKILL"]
    timeout: Annotated[float, msgspec.Meta(ge=0, le=MAX_TIMEOUT)]
    cause: Cause
    until_ns: int = 0
    daemons: bool = True

    def result_when_repeated(self, result: "Result | None", state: State) -> "Killed":
        """Return the result where the shim was killed; `result` is its understudy's, None where the run had ended."""
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


FromShim = Started | Failed | Handshake | State | Reply | KilledV1 | Crashed

encode = msgspec.json.Encoder().encode
_from_shim: msgspec.json.Decoder[FromShim] = msgspec.json.Decoder(FromShim)
# As `decode_from_supervisor` does, it raises one of `UNDECODABLE` for anything else.
decode_from_shim = _from_shim.decode
encode_start = msgspec.msgpack.Encoder().encode  # unlike JSON it has bytes
decode_start = msgspec.msgpack.Decoder(Start).decode
decode_forked = msgspec.json.Decoder(Forked).decode
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
