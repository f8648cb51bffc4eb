"""Runs in the master and the worker: one run: its state, and requests to the process that keeps it."""

import contextlib
import logging
import math
import threading
import time
from functools import partial
from typing import Any, Literal, Self

from msgspec.structs import replace

from app.exceptions import InternalError
from app.linux.proc import boot_id
from app.log.clock import RunClock
from app.protocol import Kill, Killed, Operation, Result
from app.runs.record import OVERTAKING, Cause, RunRecord, State, load_record
from app.supervisor.connection import OVERDUE, ConnectionLostError, ShimConnection
from app.supervisor.launch import Launched
from app.supervisor.leftovers import NOTHING, Left, divide
from app.supervisor.remains import end, members_of
from app.supervisor.run_connection import RECOVERY_TIMEOUT, RunConnection
from app.supervisor.status import describe

logger = logging.getLogger(__name__)
# A shim writes its record within milliseconds; one that does not is asked again by the next call.
HANDSHAKE_TIMEOUT = 1.0
# Seconds between attempts, in the background, while no keeper answers, and between looks at a run without one.
UPKEEP_INTERVAL = 1.0
# Seconds between looks at leftovers, of which each may end or, which no event announces, become a daemon.
LEFTOVER_INTERVAL = 0.05


class Run(RunConnection):
    """Follow one run and send requests to its keeper. Thread-safe; reads need no keeper.

    A thread of the run's own follows the connection, and restores it when it ends before the run does. Where that
    thread can't be created, the calls that need the state or the connection do so.
    """

    def __init__(self, record: RunRecord) -> None:
        super().__init__(record)
        self._watching = threading.Lock()
        self._watcher: threading.Thread | None = None
        self._begun = threading.Event()
        self._closing = threading.Event()

    def expect(self) -> None:
        """Have the run's thread wait for `begin`."""
        self._ensure_watcher()

    def wait_until_begun(self) -> None:
        """Wait for `begin`, or for `close` where the start has failed."""
        self._begun.wait()

    def begin(self, launched: Launched) -> None:
        """Follow the run, which was just launched."""
        started, record = launched.started, self.record
        record.process, record.shim, record.understudy = started.process, started.shim, started.understudy
        self._connection = ShimConnection(launched.connection, record.state)
        self._begun.set()

    @classmethod
    def load(cls, path: str) -> Self | None:
        """Take over the run with this record; None when there is no record or it can't be read."""
        record = load_record(path)
        if record is None:
            return None
        run = cls(record)
        if record.state.ended:
            run._final = record.state
            return run
        try:
            run._recover()
        except InternalError as error:
            logger.error("Run %s: %s", record.run_id, error)  # noqa: TRY400  the message is enough
        run._begun.set()
        run._ensure_watcher()
        return run

    @property
    def state(self) -> State:
        """Return the latest state that is known."""
        if self._final is None and not self._closed:
            self._ensure_watcher()
            if self._watcher is None:
                with contextlib.suppress(InternalError):  # the next look tries again
                    self.usable_connection()
            if self.abandoned:
                return self._look_at_remains()
            if self._connection is not None:
                self._connection.catch_up()  # so that the state is no older than a reply that another worker had
                self._take_reported_outcome()
                return self._final or self._connection.state
        return self._final or (self._connection.state if self._connection is not None else self.record.state)

    @property
    def live(self) -> bool:
        """Tell whether a member of the run's tree may still be alive."""
        return not self.state.ended

    @property
    def clock(self) -> RunClock | None:
        """Return the run's clock, or None when the machine was restarted since: then only the wall clock is left."""
        return self.record.clock if self.record.boot_id == boot_id() else None

    def left(self) -> Left:
        """Return the members that live on after the process has ended; reads `/proc` only then."""
        state = self.state
        if state.stopped_at is None or state.ended:
            return NOTHING
        return divide(self.record, members_of(self.record))

    def describe(self) -> dict[str, Any]:
        """Return the run's status object."""
        return describe(self.record, self.state, self.left())

    @property
    def over(self) -> bool:
        """Tell whether the process has ended and no leftovers are alive; its daemons may be.

        Where nothing is found of a tree that is not gone, `/proc` does not show it (hidepid, proc(5)).
        """
        if self.state.stopped_at is None:
            return False
        left = self.left()
        return not left.leftovers and (bool(left.daemons) or self.state.ended)

    def request(self, operation: Operation) -> Result | None:
        """Have the run's keeper do this, or its understudy where it is killed meanwhile; None when the run had ended.

        Blocks for the operation's `timeout` and the time of a takeover. Raises `InternalError` where no keeper replies.
        """
        due = time.monotonic() + operation.timeout
        operation = replace(
            operation, until_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(operation.timeout * 1e9)
        )
        asked = False
        self._overdue_at = min(self._overdue_at, due + OVERDUE)
        self._ends_daemons = self._ends_daemons or operation.daemons
        try:
            while (now := time.monotonic()) < due + RECOVERY_TIMEOUT:
                connection = self.usable_connection()
                if connection is None and self._final is None:
                    return self._request_without_keeper(operation)
                if connection is None:
                    return operation.result_when_repeated(None, self.state) if asked else None
                self.wake()
                try:
                    left = replace(operation, timeout=max(0.0, due - now))
                    result = connection.request(left, partial(self._hasten, operation))
                except ConnectionLostError as lost:
                    asked = asked or lost.asked
                else:
                    return operation.result_when_repeated(result, self.state) if asked else result
        finally:
            self._overdue_at = math.inf
            self._ends_daemons = False
        raise InternalError(
            "The process could not be ended: its shim does not answer. Call again; the service's log says more."
        )

    def kill(self, signal: Literal["SIGTERM", "SIGKILL"], timeout: float, cause: Cause) -> Killed | None:
        """End the tree, but its daemons only after a `/kill` or when the service stops.

        None when the run had ended before a shim had the request.
        """
        result = self.request(Kill(signal, timeout, cause, daemons=cause in OVERTAKING))
        return result if isinstance(result, Killed) else None

    def _hasten(self, operation: Operation) -> Operation:
        """Keep the tree from stopping its shim any more; return what that is to do at once."""
        self.hold_tree()
        self.wake()
        return replace(operation, signal="SIGKILL", timeout=0.0)

    def _request_without_keeper(self, operation: Operation) -> Result:
        """End what is left of an abandoned run, in this thread."""
        stopped = self._look_at_remains().stopped_at is not None
        killed = end(self.record, operation)
        with self._recovering:
            if killed.found and not stopped:
                self.record.state = replace(self.record.state, killed_by=operation.cause, escalated=killed.escalated)
        self._look_at_remains()
        return killed

    def wait_until_over(self, timeout: float) -> bool:
        """Wait until nothing of the run's tree but daemons is alive; False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not (over := self.over) and (left := deadline - time.monotonic()) > 0:
            connection = self._connection
            if connection is not None and not connection.lost:
                connection.wait_for_end(min(left, LEFTOVER_INTERVAL))
            else:
                self._closing.wait(min(left, 0.02))  # the watcher connects to the next keeper
        return over

    def close(self) -> None:
        """Stop following the run: its shim goes on alone."""
        self._closed = True
        self._closing.set()
        self._begun.set()
        if self._connection is not None:
            self._connection.close()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join()
        self._take_reported_outcome()

    def _ensure_watcher(self) -> None:
        """Start the run's thread; where none can be created, the calls that need the run's state do its work."""
        if self._watcher is not None:
            return
        with self._watching:  # or threads that read the state at once would start one each
            if self._watcher is not None or self._final is not None or self._closed:
                return
            thread = threading.Thread(target=self._watch, name="run-watcher", daemon=True)
            with contextlib.suppress(RuntimeError):  # CPython's only sign of EAGAIN from pthread_create(3)
                thread.start()
                self._watcher = thread

    def _watch(self) -> None:
        """Follow the run's keepers until the run has ended."""
        self._begun.wait()
        logged = ""
        while self._final is None and not self._closed:
            if self.abandoned:
                self._look_at_remains()
                self._closing.wait(UPKEEP_INTERVAL)
            elif self._connection is not None and not self._connection.lost:
                self._connection.follow(UPKEEP_INTERVAL)
                self.wake()  # a shim without an understudy, which nothing else would continue
            elif not self._take_reported_outcome():
                try:
                    before = self.record.shim
                    if self.usable_connection() is not None and self.record.shim != before:
                        logger.warning("The shim of run %s was killed: its understudy keeps it.", self.record.run_id)
                except InternalError as error:
                    if logged != str(error):
                        logged = str(error)
                        logger.error("Run %s: %s", self.record.run_id, error)  # noqa: TRY400  the message is enough
                    self._closing.wait(UPKEEP_INTERVAL)
