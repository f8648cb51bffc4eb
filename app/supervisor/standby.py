"""Runs in the master and the worker: a shim started ahead, so that no start waits for its interpreter and imports."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from app.linux.proc import command_line, snapshot
from app.supervisor.boot import boot, end_unused
from app.supervisor.handshake import wake

# The first second of a command is its own: another shim's imports would compete with it for the processors.
RENEWAL_DELAY = 1.0
# One that was stopped would never reply.
WAKING_TIMEOUT = 0.5
# On its command line, by which the master finds those of its dead workers; it stays there when a run comes.
_WHAT_FOR = "stands-by"


class Standby:
    """Keep a shim ready. Thread-safe.

    Until it is handed a run it belongs to the service: it is in the service's session, and ends when the worker does,
    which closes the connection to it.
    """

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._shim: tuple[int, socket.socket] | None = None
        self._renewal: threading.Timer | None = None
        self._closed = False

    def prepare(self) -> None:
        """Start one if there is none; where none can be had now, the next start does without."""
        with self._changing:
            self._renewal = None
            if self._shim is None and not self._closed:
                # A start that needs what the system lacks now reports that: this is only about its speed.
                with contextlib.suppress(OSError), Path(os.devnull).open("rb") as nothing:
                    self._shim = boot("stand_by", _WHAT_FOR, [nothing.fileno()])

    def prepare_soon(self) -> None:
        """Start one a second from now, and no sooner."""
        with self._changing, contextlib.suppress(RuntimeError):  # no thread can be had now: the next start tries again
            if self._renewal is not None:
                self._renewal.cancel()
                self._renewal = None
            if not self._closed:
                timer = threading.Timer(RENEWAL_DELAY, self.prepare)
                timer.daemon = True
                timer.start()
                self._renewal = timer

    def hand_over(self, fds: Sequence[int]) -> tuple[int, socket.socket] | None:
        """Give a run to the shim that stands by; return its pid and the connection to it, or None.

        `fds` are what `boot` takes for a shim with a run. None means that no shim has got the run: none stands
        by, or it still makes its imports and goes on, or it did not reply within half a second and was ended.
        """
        with self._changing:
            if self._shim is None:
                return None
            shim, connection = self._shim
            try:
                ready = bool(connection.recv(1, socket.MSG_DONTWAIT))
            except BlockingIOError:  # it is still importing
                return None
            except OSError:  # it has gone
                ready = False
            self._shim = None
        with contextlib.suppress(OSError):  # it has gone, or sends no reply
            if ready and _is_awake(connection):
                socket.send_fds(connection, [b"\0"], list(fds))
                return shim, connection
        end_unused(shim)
        connection.close()
        return None

    def close(self) -> None:
        """End it, and keep none from now on."""
        with self._changing:
            self._closed = True
            shim, self._shim = self._shim, None
            if self._renewal is not None:
                self._renewal.cancel()
        if shim is not None:
            shim[1].close()
            end_unused(shim[0])


def await_unused(timeout: float) -> None:
    """Wait until those have gone that stood by for dead workers of this process, whose children they are now.

    No event says when, so they are looked for. One that was stopped would outlive the service.
    """
    own, session = os.getpid(), os.getsid(0)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        children = [one for one in snapshot().values() if (one.ppid, one.session) == (own, session) and one.alive]
        left = [child.pid for child in children if command_line(child.pid).endswith(_WHAT_FOR)]
        if not left:
            return
        for pid in left:
            wake(pid)
        time.sleep(0.005)  # no event announces an orphan, nor would a wait say whose it was


def _is_awake(connection: socket.socket) -> bool:
    """Have a shim reply; False when it has gone. Raises `OSError` when it does not reply in time."""
    connection.settimeout(WAKING_TIMEOUT)
    connection.send(b"\0")
    return bool(connection.recv(1))
