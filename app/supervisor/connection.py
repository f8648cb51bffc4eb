"""Runs in the master and the worker: the supervisor's end of a connection to one shim."""

import contextlib
import itertools
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

from app import protocol
from app.exceptions import InternalError
from app.linux import sockets
from app.protocol import Crashed, Handshake, Kill, KilledV1, Operation, Reply, Request, Result, Unsupported
from app.runs.record import UNDECODABLE, State

# Seconds beyond an operation's timeout: two after SIGKILL, and the rest for a loaded machine.
REPLY_MARGIN = 5.0
# Seconds beyond it from which on the tree should be dead.
OVERDUE = 0.25
_TOO_OLD = "The run's shim is of an older version and can't do that: restart the command."
logger = logging.getLogger(__name__)


class ConnectionLostError(Exception):
    """Report that the shim is gone; `asked` is true when it was sent the request and did not reply."""

    def __init__(self, *, asked: bool) -> None:
        self.asked = asked


class ShimConnection:
    """Follow one shim: its latest state, its replies, its end. Thread-safe, without a thread of its own.

    One of the waiting threads reads the connection, and the other threads wait for what it receives. `state` is the
    last that the shim sent, and `lost` is set once the connection has ended.
    """

    def __init__(self, connection: socket.socket, state: State) -> None:
        self._connection = connection
        self._changed = threading.Condition()
        self.state = state
        self._results: dict[int, Result | None] = {}  # of each request that waits for one
        self._ids = itertools.count(1)
        self._reading = False
        self.lost = False
        self._version: int | None = None  # not known before the handshake

    def request(self, operation: Operation, do_overdue: Callable[[], Operation]) -> Result:
        """Ask the shim for an operation and wait for its reply, its `timeout` plus a few seconds at most.

        While the reply is overdue, `do_overdue` is called, and the shim is asked for what that returns as well. Raises
        `ConnectionLostError` when the shim ends or does not reply in time, `InternalError` when it is of a version that
        does not know the operation.
        """
        request = Request(next(self._ids), operation)
        deadline = time.monotonic() + operation.timeout + REPLY_MARGIN
        if not self.wait_for_handshake(operation.timeout + REPLY_MARGIN):
            raise ConnectionLostError(asked=False)
        if self._version == 1 and not isinstance(operation, Kill):
            raise InternalError(_TOO_OLD)
        self._results[request.id] = None
        asked = False
        try:
            self._send(request)
            asked = True
            patience = operation.timeout + OVERDUE
            while not self._wait(partial(self._has_result, request), patience) and not self.lost:
                if time.monotonic() > deadline:
                    break
                patience = OVERDUE
                self._send(Request(next(self._ids), do_overdue()))
        except OSError as error:
            raise ConnectionLostError(asked=asked) from error
        finally:
            with self._changed:
                result = self._results.pop(request.id)
        if result is None:
            raise ConnectionLostError(asked=True)
        if isinstance(result, Unsupported):
            raise InternalError(_TOO_OLD)
        return result

    def _send(self, request: Request) -> None:
        self._connection.send(protocol.encode_v1(request) if self._version == 1 else protocol.encode(request))

    def _has_result(self, request: Request) -> bool:
        return self._results[request.id] is not None

    def wait_for_handshake(self, timeout: float) -> bool:
        """Wait until the shim has sent its state, which comes first; False after `timeout` seconds."""
        return self._wait(lambda: self._version is not None, timeout)

    def follow(self, timeout: float | None) -> None:
        """Keep the state up to date until the connection ends, or for `timeout` seconds."""
        self._wait(lambda: False, timeout)

    def catch_up(self) -> None:
        """Read all that the shim has sent already, or wait some microseconds while another thread reads it."""
        while True:
            with self._changed:
                if self.lost or not _readable(self._connection, 0.0):
                    return
                if self._reading:
                    self._changed.wait()
                    continue
            self._read(0.0)

    def wait_for_end(self, timeout: float) -> None:
        """Wait until the run has ended or the connection is lost, `timeout` seconds at most."""
        self._wait(lambda: self.state.ended, timeout)

    def close(self) -> None:
        """Close the connection; the shim goes on."""
        with contextlib.suppress(OSError):
            # The reading thread, this one if there is no other, gets an end of file.
            self._connection.shutdown(socket.SHUT_RDWR)
        self._wait(lambda: False, None)

    def _wait(self, over: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `over`, the end of the connection or `timeout`; return the result of `over`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            with self._changed:
                if over() or self.lost or (left is not None and left <= 0):
                    return over()
                if self._reading:
                    self._changed.wait(left)
                    continue
            self._read(left)

    def _read(self, timeout: float | None) -> None:
        """Receive one packet, if one comes in time and no other thread reads."""
        with self._changed:
            if self._reading or self.lost:
                return
            self._reading = True
        try:
            if _readable(self._connection, timeout):
                self._receive()
        finally:
            with self._changed:
                self._reading = False
                self._changed.notify_all()

    def _receive(self) -> None:
        fault = ""
        with self._changed:  # so that `catch_up` can't return between receipt and handling
            try:
                packet, fds = sockets.receive(self._connection)
                for fd in fds:  # version 2 sends its pipe
                    os.close(fd)
                message = protocol.decode_from_shim(packet) if packet else None
            except (OSError, *UNDECODABLE) as error:
                message, fault = None, f"The connection to a shim broke: {error}"
            if message is None:
                self.lost = True
                self._connection.close()
            else:
                self._take(message)
        if isinstance(message, Crashed):
            fault = f"A shim crashed:\n{message.traceback}"
        if fault:  # only here: where the log is not read, no look at the state may wait for that
            logger.error("%s", fault)

    def _take(self, message: protocol.FromShim) -> None:
        if isinstance(message, Handshake):
            self._version, self.state = message.version, message.state
        elif isinstance(message, State):
            self._version = self._version or 1  # a later version's first message is the handshake
            self.state = message
        elif isinstance(message, Reply | KilledV1) and message.id in self._results:
            self._results[message.id] = message.result if isinstance(message, Reply) else message


def _readable(connection: socket.socket, timeout: float | None) -> bool:
    """Wait for something to be received, the end of the connection included; False after `timeout` seconds."""
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    return bool(poller.poll(None if timeout is None else max(0.0, timeout) * 1000))
