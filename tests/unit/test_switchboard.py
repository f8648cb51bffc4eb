"""The shim's connections come and go in any order."""

import socket

from app.process import control
from app.process.control import Kill, State
from app.process.switchboard import Switchboard


def test_two_that_go_at_once_are_dropped_once_each() -> None:
    """A supervisor that hangs up while another's request is served does no harm to the shim."""
    listener = control.listen("llm-shell-test-of-the-switchboard")
    board: Switchboard

    def on_kill(link: socket.socket, request: Kill) -> None:
        del link, request
        board.tell_all(State())

    board = Switchboard(listener, on_kill, lambda: (State(), None))
    ends = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    for _ours, theirs in ends:
        board.add(theirs)
    ends[0][0].send(control.encode(Kill(1, "SIGTERM", 1.0, "kill")))
    ends[1][0].close()
    board.serve()
    assert board.busy
    ends[0][0].close()
    board.serve()
    assert not board.busy
    board.close()
