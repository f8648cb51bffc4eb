"""The supervisor's end of the conversation with one shim."""

import contextlib
import itertools
import logging
import select
import socket
import threading
import time
from collections.abc import Callable

import msgspec

from app.exceptions import InternalError
from app.linux import sockets
from app.protocol import messages
from app.protocol.messages import (
    Crashed,
    Handshake,
    KilledV1,
    Operation,
    Reply,
    Request,
    Result,
    Unsupported,
)
from app.runs.record import State

# Beyond the grace: two seconds after SIGKILL, and what a loaded machine may need.
ANSWER_MARGIN = 5.0
logger = logging.getLogger(__name__)


class ConnectionLostError(Exception):
    """Say that the shim is gone; `asked` tells whether it got the request before that, and did not answer."""

    def __init__(self, *, asked: bool) -> None:
        super().__init__()
        self.asked = asked


class ShimConnection:
    """Follow one shim: its latest state, its answers, its end. Thread-safe, and in need of no thread of its own.

    Whoever waits for something reads the connection, one thread at a time, and the others wait for what that one hears.
    `on_pipe` gets each read end of the output pipe that the shim sends.
    """

    def __init__(self, connection: socket.socket, state: State, on_pipe: Callable[[int], None]) -> None:
        self._connection = connection
        self._changed = threading.Condition()
        self._state = state
        self._results: dict[int, Result] = {}
        self._ids = itertools.count(1)
        self._reading = False
        self._lost = False
        self._version: int | None = None  # not known before the handshake
        self._on_pipe = on_pipe

    @property
    def state(self) -> State:
        """Return the last state that the shim told."""
        return self._state

    @property
    def lost(self) -> bool:
        """Tell whether the connection has ended."""
        return self._lost

    def request(self, operation: Operation) -> Result:
        """Ask the shim for an operation and wait for its reply, its `timeout` plus a few seconds at the most.

        Raises `ConnectionLostError` when the shim ends or does not reply in time, `InternalError` when it is of a
        version that does not know the operation.
        """
        request = Request(next(self._ids), operation)
        deadline = time.monotonic() + operation.timeout + ANSWER_MARGIN
        if not self.wait_for_handshake(operation.timeout + ANSWER_MARGIN):
            raise ConnectionLostError(asked=False)
        try:
            self._connection.send(messages.encode_v1(request) if self._version == 1 else messages.encode(request))
        except OSError as error:
            raise ConnectionLostError(asked=False) from error
        self._wait(lambda: request.id in self._results, deadline - time.monotonic())
        with self._changed:
            result = self._results.pop(request.id, None)
        if result is None:
            raise ConnectionLostError(asked=True)
        if isinstance(result, Unsupported):
            raise InternalError("The run's shim is of an older version and can't do that: restart the command.")
        return result

    def wait_for_handshake(self, timeout: float) -> bool:
        """Wait until the shim has told its state, which it does first of all; False after `timeout` seconds."""
        return self._wait(lambda: self._version is not None, timeout)

    def follow(self, timeout: float | None) -> None:
        """Keep the state up to date until the connection ends, or for `timeout` seconds."""
        self._wait(lambda: False, timeout)

    def catch_up(self) -> None:
        """Take in what the shim has said already, unless another thread is at it."""
        while self._read(0.0):
            pass

    def wait_for_end(self, timeout: float) -> None:
        """Wait until the run has ended or the connection is lost, `timeout` seconds at the most."""
        self._wait(lambda: self._state.ended, timeout)

    def close(self) -> None:
        """Hang up; the shim goes on without us."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # an end of file for whoever reads, this thread if nobody does
        self._wait(lambda: False, None)

    def _wait(self, over: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `over`, the end of the connection or `timeout`; return what `over` says then."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            with self._changed:
                if over() or self._lost or (left is not None and left <= 0):
                    return over()
                if self._reading:
                    self._changed.wait(left)
                    continue
            self._read(left)

    def _read(self, timeout: float | None) -> bool:
        """Hear one packet; False when none came in time, the connection has ended, or another thread reads."""
        with self._changed:
            if self._reading or self._lost:
                return False
            self._reading = True
        heard = False
        try:
            heard = _readable(self._connection, timeout) and self._hear()
        finally:
            with self._changed:
                self._reading = False
                self._changed.notify_all()
        return heard

    def _hear(self) -> bool:
        try:
            packet, fds = sockets.receive(self._connection)
            for fd in fds:
                self._on_pipe(fd)
            if packet:
                self._take(messages.decode_from_shim(packet))
                return True
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("The connection to a shim broke: %s", error)
        self._lost = True
        self._connection.close()
        return False

    def _take(self, message: messages.FromShim) -> None:
        if isinstance(message, Crashed):
            logger.error("A shim crashed:\n%s", message.traceback)
            return
        with self._changed:
            if isinstance(message, Handshake):
                self._version, self._state = message.version, message.state
            elif isinstance(message, State):
                self._version = self._version or 1  # a later version's first message is the handshake
                self._state = message
            elif isinstance(message, Reply):
                self._results[message.id] = message.result
            elif isinstance(message, KilledV1):
                self._results[message.id] = message
            self._changed.notify_all()


def _readable(connection: socket.socket, timeout: float | None) -> bool:
    """Wait for something to be received, the end of the connection included; False after `timeout` seconds."""
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    return bool(poller.poll(None if timeout is None else max(0.0, timeout) * 1000))
