"""Runs in the worker's main loop: close connections without losing their answers, and without a blocking call."""

import errno
import socket
import time
from contextlib import suppress
from selectors import EVENT_READ, BaseSelector
from typing import Any

from gunicorn.config import Config
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import TConn

# A shorter answer fits into the socket's send buffer, so that no client can hold a thread by reading slowly. Linux
# grants SO_SNDBUF up to net.core.wmem_max (208 KiB by default), doubled for its own bookkeeping (socket(7)); without
# it the buffer may be as small as 16 KiB (tcp(7), tcp_wmem).
LONG_ANSWER_BYTES = 192 * 1024
# Seconds for writing a longer one, or a refusal.
ANSWER_TIMEOUT = 10.0
# Seconds, bytes and connections: how long a client's data is read and discarded after its answer, since closing with
# unread data sends a reset, which may destroy the answer (RFC 9112, 9.6).
LINGER_TIMEOUT = 2.0
LINGER_BYTES = 16 * 1024 * 1024
MAX_LINGERING = 256
# epoll_ctl(2) at the user's limit of watches, or without kernel memory.
UNWATCHABLE = frozenset({errno.ENOSPC, errno.ENOMEM})
_PIECE = 64 * 1024


class Connection(TConn):
    """Extend gunicorn's connection: closing it never blocks the main loop."""

    # Whether the current request's whole body was received, so that the next one begins where it ends.
    whole = True

    def __init__(self, cfg: Config, client: socket.socket, address: Any, server: Any, lingering: "Lingering") -> None:
        super().__init__(cfg, client, address, server)
        self._lingering = lingering
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONG_ANSWER_BYTES)

    def init(self) -> None:
        """Bound writes that precede the application's own timeout. Runs in a request's thread, before each request."""
        super().init()
        self.sock.settimeout(ANSWER_TIMEOUT)

    def close(self, graceful: bool = False) -> None:
        """Close it, with `graceful` once the client has read its answer."""
        if graceful and not self.cfg.is_ssl:
            self._lingering.add(self.sock)
        else:
            super().close(graceful)


class Lingering:
    """Read and discard data of answered clients for a moment before their connections are closed."""

    def __init__(self, poller: BaseSelector) -> None:
        self._poller = poller
        self._left: dict[socket.socket, tuple[float, int]] = {}

    def add(self, connection: socket.socket) -> None:
        """Shut down writing, and close the connection when the client does, or after two seconds."""
        try:
            connection.setblocking(False)
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # the client has closed it already
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
        """Close the connection that lingers longest; False when there is none."""
        connection = next(iter(self._left), None)
        if connection is None:
            return False
        self._close(connection)
        return True

    def expire(self) -> None:
        """Close connections past their deadline."""
        now = time.monotonic()
        while (connection := next(iter(self._left), None)) is not None and self._left[connection][0] <= now:
            self._close(connection)

    def finish(self) -> None:
        """Block until all are closed, two seconds at most, once the main loop has ended."""
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
