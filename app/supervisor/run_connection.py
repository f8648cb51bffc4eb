"""Runs in the master and the worker: connect a run to its shim, or to a replacement where it is dead."""

import contextlib
import logging
import os
import socket
import threading
import time

from app.exceptions import InternalError
from app.linux.pidfd import open_pidfd
from app.linux.proc import read_member
from app.protocol.messages import Operation, Result, Takeover
from app.runs.record import RunRecord, State, load_record, record_path
from app.supervisor.boot import reap
from app.supervisor.connection import ShimConnection
from app.supervisor.handshake import connect
from app.supervisor.launch import EndTree, LaunchError
from app.supervisor.orphans import reap_orphans
from app.supervisor.replacement import claim_name, launch_takeover, plan_takeover

logger = logging.getLogger(__name__)
# Beyond /kill's own bounds: how long the supervisor waits for a replacement shim before it gives up.
RECOVERY_TIMEOUT = 10.0
# An overlapping worker needs about this long to make a replacement shim listen.
RETRY_INTERVAL = 0.02
# Seconds that connect(2) may wait in a full queue before the next check that the shim is alive.
CONNECT_TIMEOUT = 1.0
# At most one replacement shim for a run in this time.
REPLACEMENT_INTERVAL = 1.0


class NoShimError(Exception):
    """Report that no shim can be started now, with the system's message."""


class RunConnection:
    """Connect to a run's shim or start a replacement, or set the outcome as far as it is known. Thread-safe.

    `shim` is the pid of the last one known.

    Until the run has ended, a read end of its output pipe is held here, unread: as long as some process has one open, a
    writer gets no SIGPIPE (pipe(7)), so that the command survives its shim's death.
    """

    def __init__(self, record: RunRecord, end_tree: EndTree) -> None:
        self._end_tree = end_tree
        self.record = record
        self.shim = record.shim.pid if record.shim else None
        self._final: State | None = None
        self._connection: ShimConnection | None = None
        self._pipe: int | None = None
        self._closed = False
        self._replace_after = 0.0
        self._recovering = threading.RLock()
        # Not `_recovering`: a thread may hold that while it waits for the reading thread, which takes this one.
        self._keeping = threading.Lock()
        self._adopted = False
        self._pidfd = open_pidfd(record.process) if record.process else None

    def usable_connection(self) -> ShimConnection | None:
        """Return a connection to a live shim, made anew where needed; None when the run has ended.

        Raises `NoShimError` when no shim can be started now, `InternalError` when none replies for a while.
        """
        if self._lacks_shim:
            self._recover()
        return None if self._final is not None else self._connection

    def request_without_shim(self, operation: Operation) -> Result | None:
        """Do the operation in this thread, where no shim can be started; None when another thread or worker does.

        The thread listens on the run's control name as a shim does, so further requests reach it. Raises `OSError`.
        """
        with contextlib.ExitStack() as held:
            with self._recovering:
                listener = claim_name(self.record.control) if self._lacks_shim else None
                if listener is None:
                    return None
                held.enter_context(listener)
                takeover = self._plan_takeover()
                if takeover is None:
                    return None
                # Duplicates: the watcher may learn of the end, and close the originals, before this thread is done.
                takeover.pipe, takeover.pidfd = (_duplicate(fd, held) for fd in (takeover.pipe, takeover.pidfd))
                self._adopted = True
            logger.warning("Run %s: no shim can be started, so the service ends its tree itself.", self.record.run_id)
            state, result = self._end_tree(takeover, listener, operation)
        with self._recovering:
            self.record.state = state
            if state.ended:
                self._set_outcome(state)
        return result

    def reread(self) -> None:
        """Read the shim's last record; a shim killed early may not have recorded the process's identity."""
        process = self.record.process
        self.record = load_record(record_path(self.record.log_file)) or self.record
        if self.record.process is None:
            self.record.process = process
        if self.record.shim is not None:
            self.shim = self.record.shim.pid
        with self._recovering:
            if self._pidfd is None and self.record.process is not None and self._final is None:
                self._pidfd = open_pidfd(self.record.process)

    @property
    def _lacks_shim(self) -> bool:
        """Tell whether the run goes on and no shim is known to keep it."""
        return self._final is None and not self._closed and (self._connection is None or self._connection.lost)

    def _take_reported_outcome(self) -> bool:
        """Set the outcome that a shim reported before it exited; False when it reported none."""
        connection = self._connection
        if self._final is not None or connection is None or not (connection.lost and connection.state.ended):
            return False
        self._set_outcome(connection.state)
        return True

    def _recover(self) -> None:
        """Connect to the run's shim, or to a replacement, or start one; set the outcome where none is needed.

        An overlapping worker may do the same: the one that binds the dead shim's name starts the replacement, and the
        other connects to that as soon as it listens. Raises `NoShimError` when none can be started, `InternalError`
        when none replies for a while.
        """
        deadline = time.monotonic() + RECOVERY_TIMEOUT
        while True:
            with self._recovering:
                if not self._lacks_shim:
                    return
                fault = self._try_to_recover()
            if fault is None:
                continue
            if time.monotonic() > deadline:
                raise InternalError(f"The process could not be taken over from its dead shim: {fault}.")
            time.sleep(RETRY_INTERVAL)  # no event says that another worker's replacement shim listens

    def _try_to_recover(self) -> str | None:
        """Try once to recover; return the reason when that fails, else None. Raises `NoShimError`."""
        try:
            connected = self._connect_or_replace()
        except LaunchError as error:
            return str(error)
        except OSError as error:
            raise NoShimError(f"Its dead shim can't be replaced: {error.strerror}.") from error
        # Once a shim has sent its state, its record is current.
        if connected and self._connection is not None and self._connection.wait_for_handshake(RECOVERY_TIMEOUT):
            self.reread()
        elif not connected and self._final is None:
            return "another worker is replacing the shim and does not finish"
        return None

    def _connect_or_replace(self) -> bool:
        """Follow the run's shim or a new one; False when neither can be had now. Raises `OSError` and `LaunchError`."""
        connection = connect(self.record.control, CONNECT_TIMEOUT) or self._replace_shim()
        if connection is None:
            return False
        self._follow(connection)
        return True

    def _follow(self, connection: socket.socket) -> None:
        """Take the run's changes from this connection."""
        state = self._connection.state if self._connection is not None else self.record.state
        self._connection = ShimConnection(connection, state, self._keep_pipe)

    def _keep_pipe(self, fd: int) -> None:
        with self._keeping:
            if self._pipe is None and self._final is None:
                self._pipe, fd = fd, -1
        if fd != -1:
            os.close(fd)

    def _replace_shim(self) -> socket.socket | None:
        """Start a replacement shim; None when nothing is left to keep, or when another worker is doing it.

        Raises `OSError` and `LaunchError`.
        """
        listener = claim_name(self.record.control)
        if listener is None:
            return None
        with listener:
            self._reap_shim()
            takeover = self._plan_takeover()
            if takeover is None:
                return None
            # Replacements that die at once must not follow each other hundreds of times a second.
            time.sleep(max(0.0, self._replace_after - time.monotonic()))
            self.shim, connection = launch_takeover(takeover, listener)
            self._replace_after = time.monotonic() + REPLACEMENT_INTERVAL
            self._adopted = True
            return connection

    def _plan_takeover(self) -> Takeover | None:
        """Return a replacement shim's request; None, with the outcome set, where nothing is left to keep."""
        self.reread()
        plan = plan_takeover(self.record, self._pipe, self._pidfd)
        if isinstance(plan, Takeover):
            return plan
        self._set_outcome(plan)
        return None

    def _set_outcome(self, final: State) -> None:
        """Set the outcome, and reap ended processes, whose exit codes need not be read any more."""
        self._final = final
        self._drop_descriptors()
        self._reap_shim()
        reap_orphans()

    def _reap_shim(self) -> None:
        """Reap the shim that has ended, unless its pid is known to be another process's by now."""
        if self.shim is None:
            return
        known, there = self.record.shim, read_member(self.shim)
        if known is None or there is None or known.pid != there.pid or known == there.identity:
            reap(self.shim)

    def _drop_descriptors(self) -> None:
        with self._recovering, self._keeping:
            descriptors = [self._pipe, self._pidfd]
            self._pipe = self._pidfd = None
        for fd in descriptors:
            if fd is not None:
                os.close(fd)


def _duplicate(fd: int | None, held: contextlib.ExitStack) -> int | None:
    """Return a duplicate that is closed with `held`; None for None. Raises `OSError`."""
    if fd is None:
        return None
    copy = os.dup(fd)
    held.callback(os.close, copy)
    return copy
