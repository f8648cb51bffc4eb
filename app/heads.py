"""Connections that hold no thread: those whose next request has not come yet, and those that were answered.

Runs in the worker's main loop, which never waits for a single client.
"""

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from selectors import EVENT_READ, BaseSelector

from gunicorn.http import get_parser
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import TConn

from app.problems import whole_answer

# Seconds from a connection's beginning, or the first byte of a further request, to the end of that request's head.
HEAD_TIMEOUT = 10.0
# Of one head, and of all that are not complete: what nginx takes by default (large_client_header_buffers), and room for
# some hundreds of that kind; usual ones have less than a kilobyte.
MAX_HEAD = 32 * 1024
MAX_HEADS = 16 * 1024 * 1024
_PIECE = 8192
_END = b"\r\n\r\n"
# The first byte of a TLS record that begins a connection (RFC 8446, 5.1); no method begins with it (RFC 9110, 5.6.2).
_HANDSHAKE = b"\x16"
# Seconds, bytes and connections: how long a client is listened to after its answer, so that what it still sends does
# not take the answer with it (RFC 9112, 9.6).
LINGER_TIMEOUT = 2.0
LINGER_BYTES = 64 * 1024
MAX_LINGERING = 256


class Heads:
    """Gather the heads of requests, many at a time.

    `on_complete` gets each connection whose head is there, and can be read from its parser at once; `on_refused` each
    that was answered already, `on_gone` each that is given up. The oldest is given up when there is too much.
    """

    def __init__(
        self,
        poller: BaseSelector,
        on_complete: Callable[[TConn], None],
        on_refused: Callable[[TConn], None],
        on_gone: Callable[[TConn], None],
    ) -> None:
        self._poller = poller
        self._on_complete = on_complete
        self._on_refused = on_refused
        self._on_gone = on_gone
        self._polled: set[TConn] = set()
        # In the order of their deadlines, which are as far away for each.
        self._heads: dict[TConn, bytearray] = {}
        self._bytes = 0

    def add(self, conn: TConn, begun: bytes = b"") -> None:
        """Wait for a head, of which this much has come before; one that is there already is complete at once.

        The socket must not block.
        """
        conn.timeout = time.monotonic() + HEAD_TIMEOUT
        self._heads[conn] = bytearray()
        if begun:
            self._take(conn, begun)
        else:
            self._read(conn)
        if conn in self._heads:
            self._polled.add(conn)
            self._poller.register(conn.sock, EVENT_READ, partial(self._on_readable, conn))

    def drop_oldest(self) -> bool:
        """Give up the one that has waited longest; False when none waits."""
        conn = next(iter(self._heads), None)
        if conn is None:
            return False
        self._give_up(conn)
        return True

    def expire(self) -> None:
        """Give up those whose time is over; who has begun a head is told."""
        now = time.monotonic()
        while (conn := next(iter(self._heads), None)) is not None and (conn.timeout or 0.0) <= now:
            if self._heads[conn]:
                words = f"Send the head of a request within {HEAD_TIMEOUT:.0f} s."
                self._refuse(conn, HTTPStatus.REQUEST_TIMEOUT, words)
            else:
                self._give_up(conn)

    def hasten(self, deadline: float) -> None:
        """Let nobody wait longer than until then."""
        for conn in self._heads:
            conn.timeout = min(conn.timeout or deadline, deadline)

    def _on_readable(self, conn: TConn, _client: socket.socket) -> None:
        if conn in self._heads:  # an event of the same poll may have given it up
            self._read(conn)

    def _read(self, conn: TConn) -> None:
        try:
            data = conn.sock.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(conn, data)
        else:
            self._give_up(conn)

    def _take(self, conn: TConn, data: bytes) -> None:
        head = self._heads[conn]
        before = len(head)
        head += data
        while head.startswith(b"\r\n"):  # empty lines before a request mean nothing (RFC 9112, 2.2)
            del head[:2]
        self._bytes += len(head) - before
        if head.startswith(_HANDSHAKE):
            words = "This port speaks plain HTTP, not TLS: call it by http:// instead of https://."
            self._refuse(conn, HTTPStatus.BAD_REQUEST, words)
        elif head.find(_END, max(0, before - len(_END))) >= 0:
            self._remove(conn)
            # As gunicorn does itself with what it has read too early.
            conn.parser = conn.parser or get_parser(conn.cfg, conn.sock, conn.client)
            conn.parser.unreader.unread(bytes(head))  # type: ignore[union-attr]  # no HTTP/2, of which nothing is set
            conn.data_ready = True
            self._on_complete(conn)
        elif len(head) > MAX_HEAD:
            words = f"The head of a request may have {MAX_HEAD // 1024} KiB; send less in its path and headers."
            self._refuse(conn, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, words)
        elif self._bytes > MAX_HEADS:
            self.drop_oldest()

    def _refuse(self, conn: TConn, status: HTTPStatus, detail: str) -> None:
        """Answer in the main loop, which waits for nobody: a client with no room for so little gets nothing."""
        self._remove(conn)
        with suppress(OSError):
            conn.sock.send(whole_answer(status, detail))
        self._on_refused(conn)

    def _give_up(self, conn: TConn) -> None:
        self._remove(conn)
        self._on_gone(conn)

    def _remove(self, conn: TConn) -> None:
        self._bytes -= len(self._heads.pop(conn))
        if conn in self._polled:
            self._polled.remove(conn)
            self._poller.unregister(conn.sock)


class Lingering:
    """Listen for a moment to clients that were answered, before their connections are closed for good."""

    def __init__(self, poller: BaseSelector) -> None:
        self._poller = poller
        self._left: dict[socket.socket, tuple[float, int]] = {}

    def add(self, connection: socket.socket) -> None:
        """Say that nothing more comes, and close the connection when the client does, or after two seconds."""
        try:
            connection.setblocking(False)
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # the client was quicker
            connection.close()
            return
        if len(self._left) >= MAX_LINGERING:
            self.drop_oldest()
        self._left[connection] = (time.monotonic() + LINGER_TIMEOUT, LINGER_BYTES)
        self._poller.register(connection, EVENT_READ, self._on_readable)

    def drop_oldest(self) -> bool:
        """Close the one that has been listened to longest; False when there is none."""
        connection = next(iter(self._left), None)
        if connection is None:
            return False
        self._close(connection)
        return True

    def expire(self) -> None:
        """Close those whose time is over."""
        now = time.monotonic()
        while (connection := next(iter(self._left), None)) is not None and self._left[connection][0] <= now:
            self._close(connection)

    def finish(self) -> None:
        """Wait until all are closed, two seconds at the most; after that no event is looked at any more."""
        deadline = time.monotonic() + LINGER_TIMEOUT
        while self._left:
            connection, _bound = self._left.popitem()
            close_graceful(connection, max(0.0, deadline - time.monotonic()))

    def _on_readable(self, connection: socket.socket) -> None:
        if connection not in self._left:
            return
        deadline, left = self._left[connection]
        data = b""
        with suppress(OSError):
            data = connection.recv(_PIECE)
        self._left[connection] = (deadline, left - len(data))
        if not data or len(data) >= left:
            self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        del self._left[connection]
        self._poller.unregister(connection)
        connection.close()
