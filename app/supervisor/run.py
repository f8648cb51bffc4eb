"""Runs in the master and the worker: one run, reported on and ended whatever becomes of its shim."""

import contextlib
import os
import select
import time
from typing import Literal

from app.exceptions import InternalError
from app.linux.pidfd import open_pidfd
from app.linux.proc import boot_id, descendants
from app.log.clock import RunClock
from app.protocol.messages import Kill, Killed, Operation, Result
from app.runs.members import find_members
from app.runs.record import Cause, read_record, record_path
from app.supervisor.connection import ConnectionLostError
from app.supervisor.handshake import wake
from app.supervisor.orphans import subreapers
from app.supervisor.run_connection import RECOVERY_TIMEOUT, RETRY_INTERVAL, NoShimError, RunConnection


class Run(RunConnection):
    """Report on one run and send requests to its shim, also when that is killed. Thread-safe; reads need no shim."""

    @property
    def live(self) -> bool:
        """Tell whether anything of the run's tree may still be alive."""
        return not self.state.ended

    @property
    def clock(self) -> RunClock | None:
        """Return the run's clock, or None when the machine was restarted since: then only the wall clock is left."""
        return self.record.clock if self.record.boot_id == boot_id() else None

    def leftovers(self) -> list[int]:
        """Return the pids of what lives on after the process has ended; looks at `/proc` only then."""
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
        """Have the run's shim do this, and another where that one is killed meanwhile; None when the run had ended.

        Blocks for the operation's `timeout` and what a takeover needs. Raises `InternalError` where no shim replies.
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
                return operation.settle(None, self.state) if asked else None
            if self.shim is not None:
                wake(self.shim)
            try:
                result = connection.request(operation)
            except ConnectionLostError as lost:
                asked = asked or lost.asked
            else:
                return operation.settle(result, self.state) if asked else result
        raise InternalError(
            "The process could not be ended: its shim does not answer. Call again; the service's log says more."
        )

    def kill(self, signal: Literal["SIGTERM", "SIGKILL"], timeout: float, cause: Cause) -> Killed | None:
        """End the tree; None when the run had ended before a shim had the request."""
        result = self.request(Kill(signal, timeout, cause))
        return result if isinstance(result, Killed) else None

    def _retry_without_shim(self, operation: Operation) -> Result | None:
        """Do it where the machine gives no shim; None, a moment later, when it does not give enough for that."""
        with contextlib.suppress(OSError):
            if (result := self.request_without_shim(operation)) is not None:
                return result
        time.sleep(RETRY_INTERVAL)  # no event says that the machine has something to give again
        return None

    def wait_until_ended(self, timeout: float) -> bool:
        """Wait until nothing of the run's tree is alive; False after `timeout` seconds.

        Where a dead shim can't be replaced now it takes as long as that is tried.
        """
        deadline = time.monotonic() + timeout
        with contextlib.suppress(NoShimError, InternalError):  # without a shim the end is not known
            while self.live and (left := deadline - time.monotonic()) > 0:
                connection = self.usable_connection()
                if connection is not None:
                    connection.wait_for_end(left)
        return not self.live

    def wait_for_shim(self, timeout: float) -> None:
        """Wait until the shim has gone too, which it does by itself when the run has ended."""
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
