"""A shim that stands by: started before it is needed, so that no start waits for an interpreter and its imports."""

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

# The first second of a command is its own: a successor's imports would compete with it for the processors.
RENEWAL_DELAY = 1.0
# One that was stopped would never answer.
WAKING_TIMEOUT = 0.5
# On its command line, by which the master knows those of its dead workers; it stays there when a run comes.
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
        """Start one if there is none; where that can't be had now, the next start comes without."""
        with self._changing:
            self._renewal = None
            if self._shim is None and not self._closed:
                # Whatever the system lacks now, a start that needs it will tell: this is only about its speed.
                with contextlib.suppress(OSError), Path(os.devnull).open("rb") as nothing:
                    self._shim = boot("stand_by", _WHAT_FOR, [nothing.fileno()])

    def prepare_soon(self) -> None:
        """Start one a second from now, and no sooner."""
        with self._changing, contextlib.suppress(RuntimeError):  # no thread to be had now: the next start tries again
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

        `fds` are what `boot` takes for a shim with a run. None means that no shim has got the run, so that another may:
        there is none that stands by, or it still imports and goes on to do so, or it did not say within half a second
        that it is awake and was put down.
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
        if ready and _is_awake(connection) and _send(connection, fds):
            return shim, connection
        end_unused(shim)
        connection.close()
        return None

    def close(self) -> None:
        """Let it go, and keep none from now on."""
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

    Nothing tells when, so they are looked for. One that was stopped would outlive the service.
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
        time.sleep(0.005)  # no event tells of an orphan that comes here, nor would a wait tell whose it was


def _is_awake(connection: socket.socket) -> bool:
    """Ask a shim; one that has gone or stays silent is not."""
    connection.settimeout(WAKING_TIMEOUT)
    with contextlib.suppress(OSError):
        connection.send(b"\0")
        return bool(connection.recv(1))
    return False


def _send(connection: socket.socket, fds: Sequence[int]) -> bool:
    """Hand the descriptors over; False when the shim has gone."""
    with contextlib.suppress(OSError):
        socket.send_fds(connection, [b"\0"], list(fds))
        return True
    return False
