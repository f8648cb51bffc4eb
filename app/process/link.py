"""The supervisor's end of the conversation with one shim."""

import contextlib
import errno
import itertools
import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Literal

import msgspec

from app.process import control
from app.process.control import Cause, Crashed, Kill, Killed, State

# Beyond the grace: two seconds after SIGKILL, and what a loaded machine may need.
ANSWER_MARGIN = 5.0
logger = logging.getLogger(__name__)


class LinkLostError(Exception):
    """Say that the shim is gone; `asked` tells whether it got the request before that, and did not answer."""

    def __init__(self, *, asked: bool) -> None:
        super().__init__()
        self.asked = asked


class ShimLink:
    """Follow one shim: its latest state, its answers, its end. Thread-safe.

    A thread of its own reads the connection. `on_pipe` gets each read end of the output pipe that the shim sends, and
    `on_lost` is called by that thread when the connection has ended.
    """

    def __init__(
        self,
        connection: socket.socket,
        state: State,
        on_pipe: Callable[[int], None],
        on_lost: Callable[["ShimLink"], None],
    ) -> None:
        self._connection = connection
        self._changed = threading.Condition()
        self._state = state
        self._answers: dict[int, Killed] = {}
        self._ids = itertools.count(1)
        self._lost = False
        self._greeted = False
        self._on_pipe = on_pipe
        self._on_lost = on_lost
        self._thread = threading.Thread(target=self._listen, name="shim-link", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # all that CPython tells of pthread_create(3)'s EAGAIN
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error

    @property
    def state(self) -> State:
        """Return the last state that the shim told."""
        return self._state

    @property
    def lost(self) -> bool:
        """Tell whether the connection has ended."""
        return self._lost

    def kill(self, signal: Literal["SIGTERM", "SIGKILL"], timeout: float, cause: Cause) -> Killed:
        """Ask the shim to end the tree and wait for its answer, `timeout` plus about two seconds at the most.

        Raises `LinkLostError` when the shim goes, or does not answer in time.
        """
        request = Kill(next(self._ids), signal, timeout, cause)
        try:
            self._connection.send(control.encode(request))
        except OSError as error:
            raise LinkLostError(asked=False) from error
        with self._changed:
            self._changed.wait_for(lambda: request.id in self._answers or self._lost, timeout + ANSWER_MARGIN)
            answer = self._answers.pop(request.id, None)
        if answer is None:
            raise LinkLostError(asked=True)
        return answer

    def wait_greeting(self, timeout: float) -> bool:
        """Wait until the shim has told its state, which it does first of all; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._greeted or self._lost, timeout) and self._greeted

    def wait_for_end(self, timeout: float) -> None:
        """Wait until the run has ended or the connection is lost, `timeout` seconds at the most."""
        with self._changed:
            self._changed.wait_for(lambda: self._state.ended or self._lost, timeout)

    def close(self) -> None:
        """Hang up; the shim goes on without us."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _listen(self) -> None:
        try:
            while True:
                packet, fds = control.receive(self._connection)
                for fd in fds:
                    self._on_pipe(fd)
                if not packet:
                    break
                self._take(control.decode_from_shim(packet))
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("The connection to a shim broke: %s", error)
        with self._changed:
            self._lost = True
            self._changed.notify_all()
        self._connection.close()
        self._on_lost(self)

    def _take(self, message: control.FromShim) -> None:
        if isinstance(message, Crashed):
            logger.error("A shim crashed:\n%s", message.traceback)
            return
        with self._changed:
            if isinstance(message, State):
                self._state = message
                self._greeted = True
            elif isinstance(message, Killed):
                self._answers[message.id] = message
            self._changed.notify_all()
