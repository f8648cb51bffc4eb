"""What one end has said reaches the other."""

import socket

from app.linux.sockets import receive
from app.protocol.messages import decode_from_shim, encode
from app.runs.record import State


def test_the_last_words_of_an_end_that_hung_up_are_heard() -> None:
    """What a shim told before it went is received, although it had not read all that it was sent."""
    supervisor, shim = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    last = State(ended=True)
    shim.send(encode(last))
    supervisor.send(b"not read any more")
    shim.close()
    packet, _fds = receive(supervisor)
    assert decode_from_shim(packet) == last
    assert receive(supervisor) == (b"", [])
    supervisor.close()
