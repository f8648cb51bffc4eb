"""Runs in the worker's main loop: receive requests without a thread or a blocking call, until each is complete."""

import math
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from fcntl import ioctl
from functools import partial
from http import HTTPStatus
from selectors import EVENT_READ, BaseSelector
from termios import TIOCOUTQ

from gunicorn.http import get_parser
from gunicorn.workers.gthread import TConn

from app.web.bodies import Body, Came, body_after
from app.web.lingering import UNWATCHABLE, Connection
from app.web.problems import whole_answer

# Seconds from a connection's start, or the first byte of a further request, to the end of that request's head, and
# from there to the end of its body.
HEAD_TIMEOUT = 10.0
BODY_TIMEOUT = 10.0
# Bytes of one head: nginx's default (large_client_header_buffers); most have less than a kilobyte.
MAX_HEAD = 32 * 1024
# Bytes of all requests received in part, and of the bodies that threads have or wait for.
MAX_HELD = 32 * 1024 * 1024
# A client that sends further requests with more than this of earlier answers unread is disconnected.
MAX_UNTAKEN = 64 * 1024
_PIECE = 8192
_PIECE_OF_BODY = 64 * 1024
_END = b"\r\n\r\n"
# The first byte of a TLS record that begins a connection (RFC 8446, 5.1); no method begins with it (RFC 9110, 5.6.2).
_HANDSHAKE = b"\x16"


@dataclass(slots=True)
class _Incoming:
    """Hold the bytes received of a request, and the kind of its body once its head is complete."""

    data: bytearray = field(default_factory=bytearray)
    body: Body | None = None


class Heads:
    """Receive requests, heads and bodies, from many connections at a time.

    `on_complete` gets each connection whose request is complete, to be read from its parser without blocking;
    `on_refused` each that was answered already, `on_gone` each that is dropped. Above `MAX_HELD` the oldest is refused.
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
        self._polled: set[Connection] = set()
        # In the order of their deadlines, since each has the same timeout, for its head as for its body.
        self._incoming: dict[Connection, _Incoming] = {}
        self._handed_on: dict[TConn, int] = {}
        self._bytes = 0
        self._latest = math.inf

    def add(self, conn: Connection, begun: bytes = b"") -> None:
        """Wait for a request that begins with these bytes; `on_complete` is called at once where it is complete.

        The socket must be non-blocking.
        """
        conn.timeout = min(time.monotonic() + HEAD_TIMEOUT, self._latest)
        self._incoming[conn] = _Incoming()
        if begun:
            self._take(conn, begun)
        else:
            self._read(conn)
        if conn in self._incoming:
            self._watch(conn)

    def release(self, conn: TConn) -> None:
        """Stop counting the body of a request that has been answered."""
        self._bytes -= self._handed_on.pop(conn, 0)

    def drop_oldest(self) -> bool:
        """Drop the connection that has waited longest; False when none waits."""
        conn = next(iter(self._incoming), None)
        if conn is None:
            return False
        self._drop(conn)
        return True

    def expire(self) -> None:
        """Drop connections past their deadline, with a 408 where a request has begun."""
        now = time.monotonic()
        while (conn := next(iter(self._incoming), None)) is not None and (conn.timeout or 0.0) <= now:
            incoming = self._incoming[conn]
            if not incoming.data:
                self._drop(conn)
                continue
            part, seconds = ("head", HEAD_TIMEOUT) if incoming.body is None else ("whole body", BODY_TIMEOUT)
            self._refuse(conn, HTTPStatus.REQUEST_TIMEOUT, f"Send the {part} of a request within {seconds:.0f} s.")

    def hasten(self, deadline: float) -> None:
        """Let no connection wait beyond this deadline."""
        self._latest = deadline
        for conn in self._incoming:
            conn.timeout = min(conn.timeout or deadline, deadline)

    def _watch(self, conn: Connection) -> None:
        try:
            self._poller.register(conn.sock, EVENT_READ, partial(self._on_readable, conn))
        except OSError as error:
            if error.errno not in UNWATCHABLE:
                raise
            self._drop(conn)
        else:
            self._polled.add(conn)

    def _on_readable(self, conn: Connection, _client: socket.socket) -> None:
        if conn in self._incoming:  # an earlier event of the same poll may have dropped it
            self._read(conn)

    def _read(self, conn: Connection) -> None:
        incoming = self._incoming[conn]
        body = incoming.body
        try:
            data = conn.sock.recv(_PIECE if body is None else _PIECE_OF_BODY)
        except BlockingIOError:
            return
        except OSError:
            self._drop(conn)
            return
        if data:
            self._take(conn, data)
        elif body is not None:
            self._refuse(conn, HTTPStatus.BAD_REQUEST, body.cut_short(incoming.data))
        else:
            self._drop(conn)

    def _take(self, conn: Connection, data: bytes) -> None:
        incoming = self._incoming[conn]
        head = incoming.data
        before = len(head)
        head += data
        if incoming.body is None:
            while head.startswith(b"\r\n"):  # empty lines before a request mean nothing (RFC 9112, 2.2)
                del head[:2]
        self._bytes += len(head) - before
        if incoming.body is not None:
            self._look(conn, incoming.body)
        elif head.startswith(_HANDSHAKE):
            words = "This port speaks plain HTTP, not TLS: call it by http:// instead of https://."
            self._refuse(conn, HTTPStatus.BAD_REQUEST, words)
        elif (end := head.find(_END, max(0, before - len(_END)))) >= 0:
            self._take_head(conn, end + len(_END))
        elif len(head) > MAX_HEAD:
            words = f"The head of a request may have {MAX_HEAD // 1024} KiB; send less in its path and headers."
            self._refuse(conn, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, words)
        self._make_room()

    def _take_head(self, conn: Connection, end: int) -> None:
        incoming = self._incoming[conn]
        awaited = body_after(incoming.data, end)
        if awaited is None:
            self._complete(conn, Came.WHOLE)
            return
        incoming.body = awaited.body
        self._look(conn, awaited.body)
        if conn not in self._incoming:
            return
        conn.timeout = min(time.monotonic() + BODY_TIMEOUT, self._latest)
        self._incoming[conn] = self._incoming.pop(conn)
        if awaited.on_request:
            with suppress(OSError):  # buffer full, or client gone: the deadline ends it
                conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _look(self, conn: Connection, body: Body) -> None:
        came = body.look(self._incoming[conn].data)
        if came is not Came.PART:
            self._complete(conn, came)

    def _complete(self, conn: Connection, came: Came) -> None:
        incoming = self._remove(conn)
        if conn.parser is not None and _untaken(conn.sock) > MAX_UNTAKEN:
            self._on_refused(conn)
            return
        if incoming.body is not None:
            self._handed_on[conn] = len(incoming.data)
            self._bytes += len(incoming.data)
        conn.whole = came is Came.WHOLE
        # The parser has no socket to read, only these bytes: no thread waits for a client to send.
        conn.parser = conn.parser or get_parser(conn.cfg, (), conn.client)
        conn.parser.unreader.unread(bytes(incoming.data))  # type: ignore[union-attr]  # HTTP/2 is off
        conn.data_ready = True
        self._on_complete(conn)

    def _make_room(self) -> None:
        """Refuse the oldest connections with data until the total is below the limit."""
        while self._bytes > MAX_HELD:
            conn = next((conn for conn, incoming in self._incoming.items() if incoming.data), None)
            if conn is None:
                return
            words = "Too much is being sent to this service at once; try again in a second."
            self._refuse(conn, HTTPStatus.SERVICE_UNAVAILABLE, words)

    def _refuse(self, conn: Connection, status: HTTPStatus, detail: str) -> None:
        """Answer without blocking the main loop: a client whose buffer has no room for that gets nothing."""
        self._remove(conn)
        with suppress(OSError):
            conn.sock.send(whole_answer(status, detail))
        self._on_refused(conn)

    def _drop(self, conn: Connection) -> None:
        self._remove(conn)
        self._on_gone(conn)

    def _remove(self, conn: Connection) -> _Incoming:
        incoming = self._incoming.pop(conn)
        self._bytes -= len(incoming.data)
        if conn in self._polled:
            self._polled.remove(conn)
            self._poller.unregister(conn.sock)
        return incoming


def _untaken(connection: socket.socket) -> int:
    """Return how many bytes of answers the client has not received yet (SIOCOUTQ, tcp(7))."""
    with suppress(OSError):
        return int(struct.unpack("i", ioctl(connection, TIOCOUTQ, b"\0" * 4))[0])
    return 0
