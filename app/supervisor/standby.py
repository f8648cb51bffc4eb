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

# Not in a command's first second, when the next shim's imports would compete with it for the processors.
RENEWAL_DELAY = 1.0
# Seconds for its reply, which one that was stopped never sends.
WAKING_TIMEOUT = 0.5
# Ends its command line, by which the master finds its dead workers' standbys; it stays when it gets a run.
_LABEL = "stands-by"


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
        """Start a standby if there is none; where that fails, the next start makes a shim of its own."""
        with self._changing:
            self._renewal = None
            if self._shim is None and not self._closed:
                # Not reported: a standby makes a start faster, and a start reports what the system lacks.
                with contextlib.suppress(OSError), Path(os.devnull).open("rb") as nothing:
                    self._shim = boot("stand_by", _LABEL, [nothing.fileno()])

    def prepare_soon(self) -> None:
        """Start a standby one second from now, and no sooner."""
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
        by, or it is still importing and is kept, or it did not reply within half a second and was ended.
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
        """End the standby, and keep none from now on."""
        with self._changing:
            self._closed = True
            shim, self._shim = self._shim, None
            if self._renewal is not None:
                self._renewal.cancel()
        if shim is not None:
            shim[1].close()
            end_unused(shim[0])


def await_unused(timeout: float) -> None:
    """Wait until the standbys of dead workers, which are children of this process now, have exited.

    `/proc` is polled for that, as no event announces it. One that was stopped is sent SIGCONT, or it would stay.
    """
    own, session = os.getpid(), os.getsid(0)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        children = [one for one in snapshot().values() if (one.ppid, one.session) == (own, session) and one.alive]
        left = [child.pid for child in children if command_line(child.pid).endswith(_LABEL)]
        if not left:
            return
        for pid in left:
            wake(pid)
        time.sleep(0.005)  # no event announces an orphan, nor would a wait say whose it was


def _is_awake(connection: socket.socket) -> bool:
    """Check that a standby replies; False when it has gone. Raises `OSError` when it does not reply in time."""
    connection.settimeout(WAKING_TIMEOUT)
    connection.send(b"\0")
    return bool(connection.recv(1))
