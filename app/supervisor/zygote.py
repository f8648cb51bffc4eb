"""Runs in the worker, and in the master at its stop: this process's zygote, which forks an understudy a start."""

import contextlib
import errno
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import msgspec

from app import protocol
from app.linux import sockets
from app.linux.posix_spawn import LIBRARY_SIGNALS, attributes, posix_spawn
from app.linux.proc import children
from app.protocol import CONNECTION_FD, ZYGOTE_NAME, StartFds
from app.supervisor.handshake import name_of, wake, wake_zygote

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]
SITE_PACKAGES = Path(msgspec.__file__).resolve().parents[1]
PROGRAM = ROOT / "app" / "shim" / "__main__.py"
# Variables that the interpreter may need to start. None other of the service's: they may hold its token.
ENVIRONMENT = frozenset({b"LD_LIBRARY_PATH", b"PATH"})
# A Ctrl-C reaches our whole process group, and must not make an interpreter that starts print a traceback; it stays
# blocked, as the zygote ignores it anyway.
_SIGNALS = attributes(LIBRARY_SIGNALS, blocked=[signal.SIGINT])
# A zygote needs some 0.1 s to be ready and a millisecond to fork; on a machine that swaps it may need longer.
TIMEOUT = 10.0
WAKE_INTERVAL = 0.5
_ENDED = "the process that was to start it ended before it answered: try again; the service's log may say why"
# Seconds between two zygotes that no start has asked for: one that can't run at all must not keep a processor busy.
RENEW_INTERVAL = 10.0


class Zygote:
    """Keep one zygote for all runs of this process, started anew when it has died. Thread-safe."""

    def __init__(self) -> None:
        self._using = threading.Lock()
        self._pid = 0
        self._connection: socket.socket | None = None
        self._spawned_at = 0.0
        # Killed, and not reaped yet.
        self._ending: set[int] = set()

    def prepare(self) -> None:
        """Start a zygote if none runs; where that fails, the next start tries again, and reports why."""
        with self._using, contextlib.suppress(OSError):
            self._running()

    def renew(self) -> None:
        """Start another zygote where this one has died, unless a start does so just now; never waits long."""
        if not self._spawned_at or not self._using.acquire(blocking=False):
            return
        try:
            self._reap()
            if self._connection is not None and _has_ended(self._pid):
                logger.warning("The zygote %d (llm-zygote), which starts commands, has ended.", self._pid)
                self._end()
            if time.monotonic() > self._spawned_at + RENEW_INTERVAL:
                with contextlib.suppress(OSError):  # the next start tries again, and reports why
                    self._running()
        finally:
            self._using.release()

    def fork(self, fds: StartFds) -> None:
        """Have an understudy forked for a start; a zygote that has died, or does not answer, is replaced once.

        The new one may be sent what the old one had done already, which the start's permit makes harmless. Blocks for a
        millisecond, some 0.1 s where a zygote must be started, twice `TIMEOUT` at most. Raises `OSError`.
        """
        with self._using:
            try:
                self._fork(fds)
            except (ConnectionError, TimeoutError):
                self._fork(fds)

    def disown(self) -> None:
        """Close the connection without a look at the lock, which another thread may have held at the fork."""
        if self._connection is not None:
            self._connection.close()

    def _running(self) -> socket.socket:
        if self._connection is None:
            self._reap()
            self._spawned_at = time.monotonic()
            self._pid, self._connection = _spawn()
        return self._connection

    def _fork(self, fds: StartFds) -> None:
        connection = self._running()
        try:
            sockets.send_with_fds(connection, bytes([len(fds.sent())]), fds.sent())
            packet = self._receive(connection)
        except BaseException:  # its answer would be taken for the next start's
            self._end()
            raise
        if not packet:
            self._end()
            raise ConnectionResetError(errno.ECONNRESET, _ENDED)
        if number := protocol.decode_forked(packet).errno:
            raise OSError(number, os.strerror(number))

    def _receive(self, connection: socket.socket) -> bytes:
        """Wait for the zygote's answer, and continue it meanwhile if it was stopped."""
        poller = select.poll()
        poller.register(connection, select.POLLIN)
        deadline = time.monotonic() + TIMEOUT
        while not poller.poll(WAKE_INTERVAL * 1000):
            wake_zygote(self._pid)
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return sockets.receive(connection)[0]

    def _end(self) -> None:
        """Kill the zygote, if it has not ended; it may need a while to end, as under a debugger."""
        if self._connection is None:
            return
        self._connection.close()
        self._connection = None
        if not _has_ended(self._pid):
            os.kill(self._pid, signal.SIGKILL)
        self._ending.add(self._pid)
        self._reap()

    def _reap(self) -> None:
        for pid in list(self._ending):
            with contextlib.suppress(ChildProcessError):  # reaped elsewhere
                if not os.waitpid(pid, os.WNOHANG)[0]:
                    continue
            self._ending.discard(pid)


def _has_ended(pid: int) -> bool:
    """Tell whether a child has ended, and leave it to be reaped; one that was reaped elsewhere has."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def await_end(timeout: float) -> None:
    """Wait until the zygotes of dead workers, which are children of this process now, have exited.

    `/proc` is polled for that, as no event announces it. One that was stopped is continued, or it would stay.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        left = [one.pid for one in children() if one.alive and name_of(one.pid) == ZYGOTE_NAME]
        if not left:
            return
        for pid in left:
            wake(pid)
        time.sleep(0.005)  # no event announces an orphan, nor would a wait say whose it was


def _spawn() -> tuple[int, socket.socket]:
    """Start a zygote; return its pid and our end of its connection. Raises `OSError`."""
    # The kernel takes the end of the thread that started it for its parent's (PR_SET_PDEATHSIG, prctl(2)).
    main_thread = threading.current_thread() is threading.main_thread()
    parent = os.getpid() if main_thread else 0
    with contextlib.ExitStack() as on_failure:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        on_failure.callback(ours.close)
        with theirs:
            pid = posix_spawn(
                [os.fsencode(part) for part in (sys.executable, "-I", "-S", PROGRAM, ROOT, SITE_PACKAGES, str(parent))],
                [b"%b=%b" % entry for entry in os.environb.items() if entry[0] in ENVIRONMENT],
                [(theirs.fileno(), CONNECTION_FD)],
                _SIGNALS,
            )
        on_failure.pop_all()
    return pid, ours


def _forget() -> None:
    """Leave the zygote to the process that this one was forked from."""
    global own  # noqa: PLW0603  one for each process
    own.disown()
    own = Zygote()


own = Zygote()
os.register_at_fork(after_in_child=_forget)
