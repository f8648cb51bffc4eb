"""The shim's connections come and go in any order."""

import socket
import threading

import pytest

from app import protocol
from app.linux import sockets
from app.protocol import VERSION, Handshake, Kill, Request
from app.runs.record import State
from app.shim.listener import Listener
from app.supervisor.handshake import await_handshake, connect


def handshake() -> Handshake:
    """Return what a new connection is sent first."""
    return Handshake(VERSION, State())


def test_two_that_go_at_once_are_dropped_once_each() -> None:
    """A supervisor that hangs up while another's request is served does no harm to the shim."""
    listener = sockets.listen("llm-shell-test-of-a-listener")
    served: Listener

    def on_request(link: socket.socket, request: Request) -> None:
        del link, request
        served.broadcast(State())

    served = Listener(listener, on_request, handshake)
    ends = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    for _ours, theirs in ends:
        served.add(theirs, handshake())
    ends[0][0].send(protocol.encode(Request(1, Kill("SIGTERM", 1.0, "kill"))))
    ends[1][0].close()
    served.serve()
    assert ends[0][1].fileno() != -1
    ends[0][0].close()
    served.serve()
    assert [theirs.fileno() for _ours, theirs in ends] == [-1, -1]
    served.close()


def test_all_that_wait_are_greeted_at_once() -> None:
    """One event is enough for everybody in the queue: a supervisor need not wait for as many as came before it."""
    listener = sockets.listen("llm-shell-test-of-a-queue")
    served = Listener(listener, lambda _connection, _request: None, handshake)
    links = [connect("llm-shell-test-of-a-queue", 1.0) for _ in range(50)]
    served.serve()
    for link in links:
        with link:
            assert await_handshake(link, 1.0)
    served.close()


def test_a_full_queue_is_waited_for() -> None:
    """Who connects while strangers fill the queue has the connection as soon as there is room."""
    name = "llm-shell-test-of-a-full-queue"
    found: list[socket.socket] = []
    with sockets.listen(name) as listener:
        listener.listen(0)  # room for one
        first = connect(name, 1.0)
        with pytest.raises(BlockingIOError):
            connect(name, 0.05)
        waiting = threading.Thread(target=lambda: found.append(connect(name, 10.0)))
        waiting.start()
        accepted, _address = listener.accept()
        waiting.join()
    for link in (first, accepted, *found):
        link.close()


def test_a_fault_of_the_handler_is_not_taken_for_one_of_the_packet() -> None:
    """Only bytes that are no request are passed over: the shim's own fault ends it, and is reported."""

    def fail(_connection: socket.socket, _request: Request) -> None:
        raise ValueError("the handler's")

    listener = Listener(sockets.listen("llm-shell-test-of-a-fault"), fail, handshake)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        listener.add(theirs, handshake())
        ours.send(b"\xff")
        listener.serve()
        ours.send(protocol.encode(Request(1, Kill("SIGTERM", 1.0, "kill"))))
        with pytest.raises(ValueError, match="the handler's"):
            listener.serve()
    listener.close()
