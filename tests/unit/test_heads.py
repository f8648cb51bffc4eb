"""What the worker's main loop does when the kernel does not let it watch, or take, one more connection."""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from gunicorn.config import Config
from gunicorn.workers.gthread import TConn

from app.server.worker import GONE
from app.web.heads import Heads
from app.web.lingering import Connection, Lingering


class FullPoller(selectors.EpollSelector):
    """Be a selector whose user watches as much as epoll_ctl(2) allows already."""

    def register(self, *_arguments: object, **_named: object) -> selectors.SelectorKey:
        """Fail as epoll does."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return both ends of a connection."""
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        yield ours, theirs


def test_a_connection_that_cannot_be_watched_is_given_up(pair: tuple[socket.socket, socket.socket]) -> None:
    """It is closed, and nothing is raised into the main loop."""
    ours, theirs = pair
    gone: list[TConn] = []
    with closing(FullPoller()) as poller:

        def give_up(conn: TConn) -> None:
            gone.append(conn)
            conn.close()

        heads = Heads(poller, gone.append, gone.append, give_up)
        heads.add(Connection(Config(), ours, "", "", Lingering(poller)))
        assert len(gone) == 1
        assert not heads.drop_oldest()
    theirs.settimeout(5)
    assert theirs.recv(1) == b""


def test_an_answered_connection_that_cannot_be_watched_is_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    """It is closed at once, and nothing is raised into the main loop."""
    ours, _theirs = pair
    with closing(FullPoller()) as poller:
        lingering = Lingering(poller)
        lingering.add(ours)
        assert ours.fileno() == -1
        assert not lingering.drop_oldest()


@pytest.mark.parametrize(
    "name",
    [
        "ENETDOWN",
        "EPROTO",
        "ENOPROTOOPT",
        "EHOSTDOWN",
        "ENONET",
        "EHOSTUNREACH",
        "EOPNOTSUPP",
        "ENETUNREACH",
        "EPERM",
        "ECONNABORTED",
    ],
)
def test_errors_of_the_network_are_no_errors_of_accept(name: str) -> None:
    """What accept(2) says to treat like EAGAIN is treated so."""
    assert getattr(errno, name) in GONE
