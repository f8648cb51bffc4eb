"""Connections, and how they are closed: a client is listened to for a moment after its answer.

Runs in the worker's main loop, which never waits for a single client.
"""

import errno
import socket
import time
from contextlib import suppress
from selectors import EVENT_READ, BaseSelector
from typing import Any

from gunicorn.config import Config
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import TConn

# A shorter answer is taken by the kernel whole, so that no client can hold a thread by reading slowly. Linux grants
# this much to whoever asks (net.core.wmem_max is 208 KiB unless set otherwise), twice over for its own bookkeeping
# (socket(7)); unasked it may give as little as 16 KiB (tcp(7), tcp_wmem).
LONG_ANSWER_BYTES = 192 * 1024
# Seconds for one that is not, or for a refusal.
ANSWER_TIMEOUT = 10.0
# Seconds, bytes and connections: how long a client is listened to after its answer, so that what it still sends does
# not take the answer with it (RFC 9112, 9.6).
LINGER_TIMEOUT = 2.0
LINGER_BYTES = 16 * 1024 * 1024
MAX_LINGERING = 256
# What epoll_ctl(2) says when this user watches too much, or the kernel has no memory.
UNWATCHABLE = frozenset({errno.ENOSPC, errno.ENOMEM})
_PIECE = 64 * 1024


class Connection(TConn):
    """Be gunicorn's connection, but never wait for a client in the main loop."""

    # Whether the request at hand came with its whole body, so that the next one begins where it ends.
    whole = True

    def __init__(self, cfg: Config, client: socket.socket, address: Any, server: Any, lingering: "Lingering") -> None:
        super().__init__(cfg, client, address, server)
        self._lingering = lingering
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONG_ANSWER_BYTES)

    def init(self) -> None:
        """Bound what is written before the application bounds it; called before each request."""
        super().init()
        self.sock.settimeout(ANSWER_TIMEOUT)

    def close(self, graceful: bool = False) -> None:
        """Close it, with `graceful` once the client has had its answer."""
        if graceful and not self.cfg.is_ssl:
            self._lingering.add(self.sock)
        else:
            super().close(graceful)


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
        try:
            self._poller.register(connection, EVENT_READ, self._on_readable)
        except OSError as error:
            connection.close()
            if error.errno not in UNWATCHABLE:
                raise
            return
        self._left[connection] = (time.monotonic() + LINGER_TIMEOUT, LINGER_BYTES)

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
