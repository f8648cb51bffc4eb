"""What one end has sent reaches the other, whichever version that is of."""

import json
import socket

import pytest

from app.linux.sockets import receive
from app.protocol import (
    VERSION,
    FromShim,
    Handshake,
    Kill,
    Killed,
    KilledV1,
    Reply,
    Request,
    Unsupported,
    decode_from_shim,
    decode_from_supervisor,
    encode,
    encode_v1,
)
from app.runs.record import UNDECODABLE, State

KILL = Kill("SIGTERM", 2.5, "restart")


def test_the_last_message_of_an_end_that_hung_up_is_received() -> None:
    """What a shim sent before it ended is received, although it had not read all that it was sent."""
    supervisor, shim = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    last = State(ended=True)
    shim.send(encode(last))
    supervisor.send(b"not read any more")
    shim.close()
    packet, _fds = receive(supervisor)
    assert decode_from_shim(packet) == last
    assert receive(supervisor) == (b"", [])
    supervisor.close()


def test_a_request_arrives_as_it_was_sent() -> None:
    """Number and operation, with everything in it, are the same at the other end."""
    assert decode_from_supervisor(encode(Request(7, KILL))) == Request(7, KILL)


@pytest.mark.parametrize(
    "message",
    [
        Handshake(VERSION, State(stopped_at="then", exit_code=-15, killed_by="kill", incidents={"takeovers": 2})),
        State(output_open=False, ended=True, unknown="why", cancellations=3, escalated=True),
        Reply(3, Killed(found=True, escalated=True, survivors=[4], overtaken=True, refused=[4])),
        Reply(4, Unsupported()),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_of_the_shim_arrives_as_it_was_sent(message: FromShim) -> None:
    """Whatever a shim sends is the same at the other end."""
    assert decode_from_shim(encode(message)) == message


UNKNOWN = [
    {"type": "resize", "rows": 40},
    {"type": "kill", "signal": "SIGHUP"},
    {"type": "kill", "signal": "SIGTERM", "timeout": 1e308, "cause": "kill"},
    {"type": "kill", "signal": "SIGTERM", "timeout": -1, "cause": "kill"},
    {},
    None,
]


@pytest.mark.parametrize("operation", UNKNOWN)
def test_an_unknown_operation_is_a_request_all_the_same(operation: object) -> None:
    """A newer supervisor's request keeps its number, so that the shim can reply that it does not know the operation."""
    packet = json.dumps({"id": 9, "op": operation}).encode()
    assert decode_from_supervisor(packet) == Request(9, Unsupported())


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"x",
        b"[]",
        b"{}",
        b'{"id":"9"}',
        b'{"op":{"type":"unsupported"}}',
        b"\xff",
        b'{"\xff":1,"id":1}',
        b'{"id":1,"op":' + b"[" * 20_000,
    ],
)
def test_what_is_no_request_is_refused(packet: bytes) -> None:
    """A packet without a number can't be replied to."""
    with pytest.raises(UNDECODABLE):
        decode_from_supervisor(packet)


def test_version_1_is_spoken_to_in_its_own_form() -> None:
    """Shims of version 1 had the number in the operation, and in its answer."""
    sent = {"type": "kill", "id": 5, "signal": "SIGTERM", "timeout": 2.5, "cause": "restart"}
    assert json.loads(encode_v1(Request(5, KILL))) == sent
    told = decode_from_shim(b'{"type":"killed","id":5,"found":true,"survivors":[8]}')
    assert told == KilledV1(id=5, found=True, survivors=[8])
    assert decode_from_shim(b'{"type":"state","trouble":{"takeovers":1}}') == State(incidents={"takeovers": 1})
