"""Runs in the shim: serve any number of supervisors, without waiting for any of them."""

import contextlib
import os
import select
import socket
from collections.abc import Callable

from app import protocol
from app.linux import sockets
from app.protocol import Crashed, Handshake, Reply, Request
from app.runs.record import UNDECODABLE, State

# Connections, some milliseconds' work.
ACCEPTED_AT_ONCE = 512


class Listener:
    """Serve the supervisors that connect: open with a handshake, take requests, send replies and states.

    `on_request` gets each request and the connection to reply on; `handshake` returns what a connection that was
    accepted is sent first.
    """

    def __init__(
        self,
        listener: socket.socket,
        on_request: Callable[[socket.socket, Request], None],
        handshake: Callable[[], Handshake],
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._on_request = on_request
        self._handshake = handshake
        self._connections: list[socket.socket] = []
        self._poller = select.epoll()
        self._poller.register(listener.fileno(), select.EPOLLIN)

    @property
    def fd(self) -> int:
        """Return the descriptor that is readable when `serve` has something to do."""
        return self._poller.fileno()

    def add(self, connection: socket.socket, handshake: Handshake) -> None:
        """Serve this connection from now on, and open it with a handshake."""
        connection.setblocking(False)
        self._poller.register(connection.fileno(), select.EPOLLIN)
        self._connections.append(connection)
        self.send(connection, handshake)

    def serve(self) -> None:
        """Accept waiting connections, and handle the requests received."""
        ready = {fd for fd, _events in self._poller.poll(0)}
        for connection in [connection for connection in self._connections if connection.fileno() in ready]:
            if connection in self._connections:  # an earlier request's handler may have dropped it
                self._receive(connection)
        if self._listener.fileno() in ready:
            self._accept()

    def send(self, connection: socket.socket, message: Handshake | State | Reply | Crashed) -> None:
        """Send without waiting: a supervisor that does not read is dropped, and can connect again."""
        if connection not in self._connections:
            return
        try:
            connection.send(protocol.encode(message))
        except OSError:
            self._drop(connection)

    def broadcast(self, message: State | Crashed) -> None:
        """Send the state, or the report of a crash, to every supervisor."""
        for connection in list(self._connections):
            self.send(connection, message)

    def close(self) -> None:
        """Close the listener and all connections."""
        for connection in list(self._connections):
            self._drop(connection)
        self._listener.close()
        self._poller.close()

    def _accept(self) -> None:
        """Accept all that wait, so that a flood keeps no supervisor out, up to a bound, since output waits too."""
        with contextlib.suppress(OSError):
            for _ in range(ACCEPTED_AT_ONCE):
                connection, _address = self._listener.accept()
                if sockets.peer_is_ours(connection):
                    self.add(connection, self._handshake())
                else:
                    connection.close()

    def _receive(self, connection: socket.socket) -> None:
        try:
            packet, fds = sockets.receive(connection)
        except BlockingIOError:
            return
        except OSError:
            packet, fds = b"", []
        for fd in fds:  # no request has any
            os.close(fd)
        if not packet:
            self._drop(connection)
            return
        try:
            request = protocol.decode_from_supervisor(packet)
        except UNDECODABLE:  # no request, so there is no number to reply to
            return
        self._on_request(connection, request)

    def _drop(self, connection: socket.socket) -> None:
        if connection not in self._connections:
            return
        self._poller.unregister(connection.fileno())
        self._connections.remove(connection)
        connection.close()
