"""Runs in the master and the worker: the connection of a run to the process that keeps it, its shim or understudy."""

import logging
import math
import os
import select
import threading
import time

from app.exceptions import InternalError
from app.linux.pidfd import open_pidfd
from app.linux.proc import Identity, boot_id
from app.runs.record import RunRecord, State, load_record, record_path
from app.supervisor.connection import ShimConnection
from app.supervisor.handshake import connect, wake
from app.supervisor.remains import look_at, stop_below_keepers

logger = logging.getLogger(__name__)
# Beyond /kill's own bounds: how long the supervisor waits for a keeper's handshake before it gives up.
RECOVERY_TIMEOUT = 10.0
# Seconds between attempts while a keeper's queue is full, or no descriptor is free.
RETRY_INTERVAL = 0.02
# Seconds between attempts to wake a keeper that does not answer.
WAKE_INTERVAL = 0.25
# Seconds in which a keeper that has closed its listener has ended.
KEEPER_END_TIMEOUT = 2.0
# Seconds that connect(2) may wait in a full queue.
CONNECT_TIMEOUT = 1.0


class RunConnection:
    """Connect to the process that keeps a run: its shim or, where that was killed, its understudy. Thread-safe.

    Both serve the same listener, so a connection that is lost is made anew by the run's name. Only where both are dead
    is there no listener (`abandoned`): what is left is found by `remains.py` then.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self._final: State | None = None
        self._connection: ShimConnection | None = None
        self.abandoned = False
        self._closed = False
        self._recovering = threading.RLock()
        # The instant from which on an operation that is under way is overdue.
        self._overdue_at = math.inf
        # Whether one of these is to end daemons, too.
        self._ends_daemons = False

    @property
    def keepers(self) -> list[Identity]:
        """Return the shim and understudy of the run's last record."""
        return [keeper for keeper in (self.record.shim, self.record.understudy) if keeper is not None]

    def wake(self) -> None:
        """Continue shim and understudy if a command has stopped them."""
        for keeper in self.keepers:
            wake(keeper.pid)

    def usable_connection(self) -> ShimConnection | None:
        """Return a connection to a live keeper, made anew where needed; None where the run has ended or has none.

        Raises `InternalError` when no keeper answers for a while.
        """
        if self._lacks_keeper:
            self._recover()
        return None if self._final is not None or self.abandoned else self._connection

    @property
    def _lacks_keeper(self) -> bool:
        """Tell whether the run goes on and no connection to a keeper is left."""
        if self._final is not None or self._closed or self.abandoned:
            return False
        return self._connection is None or self._connection.lost

    def _take_reported_outcome(self) -> bool:
        """Set the outcome that a keeper reported before it exited; False when it reported none."""
        connection = self._connection
        if self._final is not None or connection is None or not (connection.lost and connection.state.ended):
            return False
        self._final = connection.state
        return True

    def _recover(self) -> None:
        """Connect to the run's keeper; set the outcome where it has reported the end, or there is none any more."""
        deadline = time.monotonic() + RECOVERY_TIMEOUT
        while True:
            with self._recovering:
                if not self._lacks_keeper or self._take_reported_outcome():
                    return
                fault = self._try_to_recover()
            if not fault:
                continue
            if time.monotonic() > deadline:
                raise InternalError(f"The process that keeps this run does not answer: {fault}. Call again.")
            time.sleep(RETRY_INTERVAL)  # no event announces room in a queue, or a free descriptor

    def _try_to_recover(self) -> str:
        """Try once to recover; return the reason when that fails, else nothing."""
        try:
            connection = connect(self.record.control, CONNECT_TIMEOUT)
        except ConnectionRefusedError:
            self._abandon()
            return ""
        except OSError as error:
            return str(error.strerror)
        state = self._connection.state if self._connection is not None else self.record.state
        self._connection = ShimConnection(connection, state)
        # Once it has sent its state, the record is current.
        if self._await_handshake(self._connection):
            self._reread()
        elif not self._connection.lost:
            self._connection.close()
            return "it is stopped, or the system is overloaded"
        return ""

    def _await_handshake(self, connection: ShimConnection) -> bool:
        """Wait for a keeper's handshake; wake it meanwhile, and stop a tree that keeps it from an overdue operation."""
        deadline = time.monotonic() + RECOVERY_TIMEOUT
        while time.monotonic() < deadline and not connection.lost:
            if time.monotonic() > self._overdue_at:
                self.hold_tree()
            self.wake()
            if connection.wait_for_handshake(WAKE_INTERVAL):
                return True
        return False

    def wait_for_keepers(self, timeout: float) -> None:
        """Wait until shim and understudy have exited, which they do when the run has ended."""
        deadline = time.monotonic() + timeout
        for pidfd in filter(None, map(open_pidfd, self.keepers)):
            poller = select.poll()  # unlike select(2), for descriptors of any number
            poller.register(pidfd, select.POLLIN)
            poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
            os.close(pidfd)

    def hold_tree(self) -> None:
        """Stop what is to be killed of a tree, but not its keepers, which a member may keep stopping."""
        if stop_below_keepers(self.record, daemons=self._ends_daemons):
            logger.warning("Run %s: its shim did not end it in time: the tree was sent SIGSTOP.", self.record.run_id)

    def _abandon(self) -> None:
        """Go on without a keeper: both are dead, and the last of what they recorded holds, or reported."""
        self._reread()
        if self._connection is not None:
            self.record.state = self.record.state.or_later(self._connection.state)
        if self.record.state.ended:
            self._final = self.record.state
            return
        if self.record.boot_id == boot_id():
            logger.error("Run %s: the processes that kept it are gone, and its output is lost.", self.record.run_id)
        # A process's files are closed before its children come to another parent (do_exit(), kernel/exit.c).
        self.wait_for_keepers(KEEPER_END_TIMEOUT)
        self.abandoned = True
        self._look_at_remains()

    def _look_at_remains(self) -> State:
        """Return the state of an abandoned run, which ends with its last member."""
        with self._recovering:
            state = self._final or look_at(self.record)
            if state.ended:
                self._final = state
        return state

    def _reread(self) -> None:
        """Read the keepers' last record; ones killed early have written none that names them and the process."""
        before = self.record
        self.record = load_record(record_path(before.log_file)) or before
        if self.record.shim is None:
            self.record.shim, self.record.understudy = before.shim, before.understudy
        self.record.process = self.record.process or before.process
