"""The shim's connections: any number of supervisors, none of which it ever waits for."""

import contextlib
import select
import socket
from collections.abc import Callable

import msgspec

from app.linux import sockets
from app.protocol import messages
from app.protocol.messages import Kill, Killed
from app.runs.record import State

# Some milliseconds' worth.
ACCEPTED_AT_ONCE = 512


class Switchboard:
    """Serve the supervisors that connect: greet them, hear their requests, tell them things.

    `on_kill` gets each request and the connection to answer on; `greet` tells what a new connection hears first, and
    gives a descriptor to send along or None.
    """

    def __init__(
        self,
        listener: socket.socket,
        on_kill: Callable[[socket.socket, Kill], None],
        greet: Callable[[], tuple[State, int | None]],
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._on_kill = on_kill
        self._greet = greet
        self._links: list[socket.socket] = []
        self._poller = select.epoll()
        self._poller.register(listener.fileno(), select.EPOLLIN)

    @property
    def fd(self) -> int:
        """Return the descriptor that is readable when `serve` has something to do."""
        return self._poller.fileno()

    def add(self, link: socket.socket) -> None:
        """Serve this connection from now on."""
        link.setblocking(False)
        self._poller.register(link.fileno(), select.EPOLLIN)
        self._links.append(link)
        state, fd = self._greet()
        if fd is None:
            self.send(link, state)
            return
        try:
            sockets.send_with_fd(link, messages.encode(state), fd)
        except OSError:
            self._drop(link)

    def serve(self) -> None:
        """Accept whoever waits and hear whoever spoke."""
        ready = {fd for fd, _events in self._poller.poll(0)}
        for link in [link for link in self._links if link.fileno() in ready]:
            if link in self._links:  # what another said may have had this one dropped
                self._hear(link)
        if self._listener.fileno() in ready:
            self._accept()

    def send(self, link: socket.socket, message: State | Killed) -> None:
        """Send without waiting: a supervisor that does not read is dropped, and can connect again."""
        if link not in self._links:
            return
        try:
            link.send(messages.encode(message))
        except OSError:
            self._drop(link)

    def tell_all(self, state: State) -> None:
        """Send the state to every supervisor."""
        for link in list(self._links):
            self.send(link, state)

    def close(self) -> None:
        """Hang up on everybody."""
        for link in list(self._links):
            self._drop(link)
        self._listener.close()
        self._poller.close()

    def _accept(self) -> None:
        """Accept all that wait, so that a flood of strangers keeps no supervisor out; not for ever, as output waits."""
        with contextlib.suppress(OSError):
            for _ in range(ACCEPTED_AT_ONCE):
                link, _address = self._listener.accept()
                if sockets.peer_is_ours(link):
                    self.add(link)
                else:
                    link.close()

    def _hear(self, link: socket.socket) -> None:
        try:
            packet, _fds = sockets.receive(link)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._drop(link)
            return
        with contextlib.suppress(msgspec.MsgspecError):
            self._on_kill(link, messages.decode_from_supervisor(packet))

    def _drop(self, link: socket.socket) -> None:
        if link not in self._links:
            return
        self._poller.unregister(link.fileno())
        self._links.remove(link)
        link.close()
