"""The supervisor's end of a connection takes in all that a shim has sent, and keeps nothing of what comes too late."""

import socket
import threading
from collections.abc import Iterator

import pytest

from app.exceptions import InternalError
from app.protocol import (
    VERSION,
    Handshake,
    Kill,
    Killed,
    Reply,
    Request,
    Unsupported,
    decode_from_supervisor,
    encode,
)
from app.runs.record import State
from app.supervisor.connection import ConnectionLostError, ShimConnection
from tests.kit.waiting import wait_until

KILL = Kill("SIGKILL", 0.0, "kill")


def do_nothing() -> Kill:
    """Ask for the same again where a reply is overdue."""
    return KILL


class End:
    """Be a shim: one end of a connection whose other end a thread follows."""

    def __init__(self) -> None:
        ours, self.shim = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection = ShimConnection(ours, State())
        self.follower = threading.Thread(target=self.connection.follow, args=[None])
        self.follower.start()

    def send(self, message: Handshake | State | Reply) -> None:
        """Send a message to the supervisor's end."""
        self.shim.send(encode(message))

    def receive(self) -> Request:
        """Wait for the next request."""
        return decode_from_supervisor(self.shim.recv(65536))


@pytest.fixture
def end() -> Iterator[End]:
    """Return the shim's end of a connection that a thread follows."""
    end = End()
    yield end
    end.connection.close()
    end.follower.join()
    end.shim.close()


def test_a_state_that_was_sent_is_seen_by_the_next_look(end: End) -> None:
    """Whichever thread reads: a look is never older than a reply that another worker got after that state."""
    for number in range(300):
        end.send(State(cancellations=number))
        end.connection.catch_up()
        assert end.connection.state.cancellations == number


def test_a_look_at_a_lost_connection_returns(end: End) -> None:
    """The last state is kept when the shim has gone."""
    end.send(State(exit_code=7))
    end.shim.close()
    wait_until(lambda: end.connection.lost)
    end.connection.catch_up()
    assert end.connection.state.exit_code == 7


def test_a_reply_that_comes_too_late_is_not_kept(end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request gets its own reply, and nothing grows with those that nobody waits for any more."""
    end.send(Handshake(VERSION, State()))
    monkeypatch.setattr("app.supervisor.connection.REPLY_MARGIN", 0.05)
    with pytest.raises(ConnectionLostError) as caught:
        end.connection.request(KILL, do_nothing)
    assert caught.value.asked
    late = end.receive()
    end.send(Reply(late.id, Killed(found=True)))
    monkeypatch.setattr("app.supervisor.connection.REPLY_MARGIN", 10.0)
    answering = threading.Thread(target=lambda: end.send(Reply(end.receive().id, Killed(found=False))))
    answering.start()
    assert end.connection.request(KILL, do_nothing) == Killed(found=False)
    answering.join()
    assert end.connection._results == {}


def test_an_overdue_operation_is_hastened(end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment after its own time, by further requests; the reply to the first one is the result."""
    end.send(Handshake(VERSION, State()))
    monkeypatch.setattr("app.supervisor.connection.OVERDUE", 0.01)
    first: list[Request] = []

    def hasten() -> Kill:
        if not first:
            first.append(end.receive())
            answering.start()
        return Kill("SIGKILL", 0.0, "restart")

    def reply() -> None:
        assert end.receive().op.cause == "restart"  # type: ignore[union-attr]  # it is a Kill
        end.send(Reply(first[0].id, Killed(found=True)))

    answering = threading.Thread(target=reply)
    assert end.connection.request(KILL, hasten) == Killed(found=True)
    answering.join()


def test_an_operation_that_the_shim_does_not_know_is_told(end: End) -> None:
    """The caller learns what to do about a shim of another version."""
    end.send(Handshake(VERSION, State()))
    answering = threading.Thread(target=lambda: end.send(Reply(end.receive().id, Unsupported())))
    answering.start()
    with pytest.raises(InternalError, match="restart the command"):
        end.connection.request(KILL, do_nothing)
    answering.join()


def test_no_handshake_is_no_request(end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the shim's version is not known nothing is sent to it, and so nothing was asked."""
    monkeypatch.setattr("app.supervisor.connection.REPLY_MARGIN", 0.05)
    with pytest.raises(ConnectionLostError) as caught:
        end.connection.request(KILL, do_nothing)
    assert not caught.value.asked
    end.shim.setblocking(False)
    with pytest.raises(BlockingIOError):
        end.shim.recv(1)
