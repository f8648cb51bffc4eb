"""Runs in the master and the worker: one run: its state, and requests to its shim, also when the shim is killed."""

import contextlib
import logging
import os
import select
import threading
import time
from typing import Literal, Self

from app.exceptions import InternalError
from app.linux import sockets
from app.linux.pidfd import open_pidfd
from app.linux.proc import boot_id, descendants, read_member
from app.log.clock import RunClock
from app.protocol.messages import Kill, Killed, Operation, Result
from app.runs.members import find_members
from app.runs.record import Cause, RunRecord, State, load_record, read_record, record_path
from app.supervisor.connection import ConnectionLostError
from app.supervisor.handshake import connect, wake
from app.supervisor.launch import EndTree, Launched, LaunchError
from app.supervisor.orphans import reap_orphans, subreapers
from app.supervisor.run_connection import RECOVERY_TIMEOUT, RETRY_INTERVAL, NoShimError, RunConnection

logger = logging.getLogger(__name__)
# A shim writes its record within milliseconds; one that does not is asked again by the next call.
HANDSHAKE_TIMEOUT = 1.0
# Seconds between attempts, in the background, while no process or descriptor can be created.
SCARCE_INTERVAL = 0.25
# Seconds between attempts to reap an adopted tree's zombies, which no shim can, and to get a missing pipe.
UPKEEP_INTERVAL = 1.0


class Run(RunConnection):
    """Follow one run and send requests to its shim or a replacement. Thread-safe; reads need no shim.

    A thread of the run's own follows the connection, and restores it when it ends before the run does. Where that
    thread can't be created, the calls that need the state or the connection do so.
    """

    def __init__(self, record: RunRecord, end_tree: EndTree) -> None:
        super().__init__(record, end_tree)
        self._watching = threading.Lock()
        self._watcher: threading.Thread | None = None

    @classmethod
    def begin(cls, record: RunRecord, launched: Launched, end_tree: EndTree) -> Self:
        """Follow the run that was just launched."""
        record.process = launched.process
        shim = read_member(launched.shim)
        record.shim = shim.identity if shim is not None else None
        run = cls(record, end_tree)
        run.shim = launched.shim
        run._pipe = launched.pipe
        run._follow(launched.connection)
        run._ensure_watcher()
        return run

    @classmethod
    def load(cls, path: str, end_tree: EndTree) -> Self | None:
        """Take over the run with this record; None when there is no record or it can't be read."""
        record = load_record(path)
        if record is None:
            return None
        run = cls(record, end_tree)
        if record.state.ended:
            run._set_outcome(record.state)
            return run
        try:
            run._recover()
        except (NoShimError, InternalError) as error:  # output waits in the pipe meanwhile
            logger.error("Run %s: %s", record.run_id, error)  # noqa: TRY400  the message is enough
        run._ensure_watcher()
        return run

    @property
    def state(self) -> State:
        """Return the latest state that is known."""
        if self._watcher is None and self._final is None and not self._closed:
            self._recover_without_watcher()
        if self._final is None and self._connection is not None:
            self._connection.catch_up()  # so that the state is no older than a reply that another worker had
            return self._final or self._connection.state
        return self._final or self.record.state

    @property
    def live(self) -> bool:
        """Tell whether a member of the run's tree may still be alive."""
        return not self.state.ended

    @property
    def clock(self) -> RunClock | None:
        """Return the run's clock, or None when the machine was restarted since: then only the wall clock is left."""
        return self.record.clock if self.record.boot_id == boot_id() else None

    def leftovers(self) -> list[int]:
        """Return the pids of the members that live on after the process has ended; reads `/proc` only then."""
        state = self.state
        if state.stopped_at is None or state.ended:
            return []
        if state.incidents.get("takeovers"):
            return sorted(self._adopted_members())
        shim = self.shim
        return sorted(member.pid for member in descendants({shim} if shim is not None else set()))

    def _adopted_members(self) -> set[int]:
        """Return the live members of an adopted tree, as its shim sees them."""
        record = read_record(record_path(self.record.log_file)) or self.record
        if record.process is None or record.shim is None:
            return set()
        not_ours = {os.getsid(0), record.shim.pid}
        return {member.pid for member in find_members(record.process, record.members, subreapers(), not_ours)}

    def request(self, operation: Operation) -> Result | None:
        """Have the run's shim do this, or its replacement where it is killed meanwhile; None when the run had ended.

        Blocks for the operation's `timeout` and the time of a takeover. Raises `InternalError` where no shim replies.
        """
        deadline = time.monotonic() + operation.timeout + RECOVERY_TIMEOUT
        asked = False
        while time.monotonic() < deadline:
            try:
                connection = self.usable_connection()
            except NoShimError:
                result = self._retry_without_shim(operation)
                if result is not None:
                    return result
                continue
            if connection is None:
                return operation.result_when_repeated(None, self.state) if asked else None
            if self.shim is not None:
                wake(self.shim)
            try:
                result = connection.request(operation)
            except ConnectionLostError as lost:
                asked = asked or lost.asked
            else:
                return operation.result_when_repeated(result, self.state) if asked else result
        raise InternalError(
            "The process could not be ended: its shim does not answer. Call again; the service's log says more."
        )

    def kill(self, signal: Literal["SIGTERM", "SIGKILL"], timeout: float, cause: Cause) -> Killed | None:
        """End the tree; None when the run had ended before a shim had the request."""
        result = self.request(Kill(signal, timeout, cause))
        return result if isinstance(result, Killed) else None

    def _retry_without_shim(self, operation: Operation) -> Result | None:
        """Do the operation without a shim; None, a moment later, when resources are lacking for that as well."""
        with contextlib.suppress(OSError):
            if (result := self.request_without_shim(operation)) is not None:
                return result
        time.sleep(RETRY_INTERVAL)  # no event announces that resources are free again
        return None

    def wait_until_ended(self, timeout: float) -> bool:
        """Wait until nothing of the run's tree is alive; False after `timeout` seconds.

        It takes longer while a dead shim can't be replaced.
        """
        deadline = time.monotonic() + timeout
        with contextlib.suppress(NoShimError, InternalError):  # without a shim the end is not known
            while self.live and (left := deadline - time.monotonic()) > 0:
                connection = self.usable_connection()
                if connection is not None:
                    connection.wait_for_end(left)
        return not self.live

    def wait_for_shim(self, timeout: float) -> None:
        """Wait until the shim has exited, which it does when the run has ended."""
        self.reread()
        pidfd = open_pidfd(self.record.shim) if self.record.shim else None
        if pidfd is None:
            return
        poller = select.poll()  # unlike select(2), for descriptors of any number
        poller.register(pidfd, select.POLLIN)
        try:
            poller.poll(timeout * 1000)
        finally:
            os.close(pidfd)

    def close(self) -> None:
        """Stop following the run: its shim goes on alone."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join()
        self._take_reported_outcome()
        self._drop_descriptors()

    def _ensure_watcher(self) -> None:
        """Start the run's thread; where none can be created, the calls that need the run's state do its work."""
        with self._watching:  # or threads that read the state at once would start one each
            if self._watcher is not None or self._final is not None or self._closed:
                return
            thread = threading.Thread(target=self._watch, name="run-watcher", daemon=True)
            with contextlib.suppress(RuntimeError):  # CPython's only sign of EAGAIN from pthread_create(3)
                thread.start()
                self._watcher = thread

    def _watch(self) -> None:
        """Follow the run's shim, and its replacements, until the run has ended."""
        while self._final is None and not self._closed:
            if self._connection is not None and not self._connection.lost:
                self._connection.follow(UPKEEP_INTERVAL if self._adopted or self._lacks_pipe else None)
                self._request_pipe()
                self._reap_adopted()
            elif not self._take_reported_outcome():
                self._go_on_without_shim()

    def _go_on_without_shim(self) -> None:
        """Replace a shim that ended before its run."""
        logger.warning("The shim of run %s ended before its run: replacing it.", self.record.run_id)
        logged = ""
        while self._lacks_shim:
            try:
                self._recover()
            except (NoShimError, InternalError) as error:
                if logged != str(error):
                    logged = str(error)
                    logger.error("Run %s: %s", self.record.run_id, error)  # noqa: TRY400  the message is enough
                time.sleep(SCARCE_INTERVAL)  # no event announces that resources are free again

    def _recover_without_watcher(self) -> None:
        """Do the thread's work in a call, as far as that takes no waiting."""
        self._ensure_watcher()
        connection = self._connection
        if self._watcher is not None or connection is None:
            return
        connection.catch_up()
        if not self._take_reported_outcome() and connection.lost and time.monotonic() > self._replace_after:
            with contextlib.suppress(NoShimError, OSError, LaunchError), self._recovering:
                self._connect_or_replace()

    @property
    def _lacks_pipe(self) -> bool:
        """Tell whether the handshake came without the pipe: recvmsg(2) drops it where no descriptor is free."""
        return self._pipe is None and self._final is None and self.state.output_open

    def _request_pipe(self) -> None:
        """Connect once more to get the pipe that the handshake lacked."""
        if self._lacks_pipe and (connection := connect(self.record.control, HANDSHAKE_TIMEOUT)) is not None:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(HANDSHAKE_TIMEOUT)
                for fd in sockets.receive(connection)[1]:
                    self._keep_pipe(fd)

    def _reap_adopted(self) -> None:
        """Reap ended members reparented to this process, but the process only after its shim has read its exit code."""
        if self._adopted and self._final is None:
            process = self.record.process if self.state.stopped_at is None else None
            reap_orphans(spare=process.pid if process is not None else None)
