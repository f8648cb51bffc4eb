"""One run as the supervisor sees it: its shim while that lives, a new shim when it dies, and the outcome at the end."""

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Mapping
from typing import Literal

import msgspec

from app.exceptions import InternalError
from app.log.clock import RunClock, format_time
from app.process import control
from app.process.control import Cause, Killed, State
from app.process.launch import LaunchError, launch, launch_takeover
from app.process.link import LinkLostError, ShimLink
from app.process.reaper import reap_orphans, subreapers
from app.process.run import RecordFile, RunRecord, Takeover, read_record, record_path
from app.process.tree import Identity, boot_id, descendants, is_alive, open_pidfd

logger = logging.getLogger(__name__)
# Beyond /kill's own bounds: how long the supervisor waits for a dead shim's successor before it gives up.
RECOVERY_TIMEOUT = 10.0
# An overlapping worker needs about this long to make a successor listen.
RETRY_INTERVAL = 0.02


class Run:
    """Answer for one run, whatever becomes of its shim. Thread-safe.

    Reads are answered from memory. When the connection to the shim ends before the run does, the thread that noticed
    connects again, starts a successor, or tells the outcome as far as it can be known.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self._shim = record.shim.pid if record.shim else None
        self._final: State | None = None
        self._link: ShimLink | None = None
        self._closed = False
        self._recovering = threading.RLock()
        self._pidfd = open_pidfd(record.process) if record.process else None

    @classmethod
    def launch(cls, record: RunRecord, environment: Mapping[bytes, bytes]) -> "Run":
        """Start the record's command; raises what `launch` raises, and nothing is left then."""
        launched = launch(record, environment)
        record.process = launched.process
        run = cls(record)
        run._shim = launched.shim
        run._follow(launched.link, launched.pipe)
        return run

    @classmethod
    def load(cls, path: str) -> "Run | None":
        """Take up the run with this record; None when there is no record or it can't be read."""
        record = read_record(path)
        if record is None:
            return None
        run = cls(record)
        if record.state.ended:
            run._final = record.state
            run._bear_witness()
        else:
            run._recover()
        return run

    @property
    def state(self) -> State:
        """Return what is known of the run now."""
        if self._final is not None:
            return self._final
        return self._link.state if self._link is not None else self.record.state

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
        if state.stopped_at is None or state.ended or self._shim is None:
            return []
        below = {member.pid for member in descendants({self._shim})}
        if state.trouble.get("takeovers"):
            below |= {identity.pid for identity in self.record.members if is_alive(identity)}
        return sorted(below)

    def kill(self, signal: Literal["SIGTERM", "SIGKILL"], timeout: float, cause: Cause) -> Killed | None:
        """End the tree; None when the run had ended before anyone could be asked to."""
        deadline = time.monotonic() + timeout + RECOVERY_TIMEOUT
        while time.monotonic() < deadline:
            link = self._usable_link()
            if link is None:
                return None
            with contextlib.suppress(LinkLostError):
                return link.kill(signal, timeout, cause)
        raise InternalError("The process could not be ended: its shim does not answer. See the service's log.")

    def wait_for_shim(self, timeout: float) -> None:
        """Wait until the shim has gone too, which it does by itself when the run has ended."""
        self._reread()
        pidfd = open_pidfd(self.record.shim) if self.record.shim else None
        if pidfd is None:
            return
        try:
            select.select([pidfd], [], [], timeout)
        finally:
            os.close(pidfd)

    def close(self) -> None:
        """Let go of the run: the shim goes on alone."""
        self._closed = True
        if self._link is not None:
            self._link.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _usable_link(self) -> ShimLink | None:
        """Return a connection to a live shim, made anew where needed; None when the run has ended."""
        if self._final is None and (self._link is None or self._link.lost):
            self._recover()
        return None if self._final is not None else self._link

    def _link_lost(self, link: ShimLink) -> None:
        """Settle what becomes of the run; called by the link's thread as the last thing it does."""
        if link.state.ended:
            self._final = link.state
            self._reap_shim()
        elif not self._closed:
            logger.warning("The shim of run %s is gone before its run: taking over.", self.record.run_id)
            try:
                self._recover()
            except InternalError as error:
                logger.error("Run %s: %s", self.record.run_id, error)  # noqa: TRY400  its sentence says it all
        if link.pipe is not None:
            os.close(link.pipe)

    def _recover(self) -> None:
        """Connect to the run's shim, or to its successor, or make one; else tell the outcome.

        An overlapping worker may be at it too: who binds the dead shim's name makes the successor, and the other
        connects to that as soon as it listens.
        """
        with self._recovering:
            deadline = time.monotonic() + RECOVERY_TIMEOUT
            while self._final is None and (self._link is None or self._link.lost):
                connection = control.connect(self.record.control) or self._succeed()
                if connection is not None:
                    self._follow(connection, None)
                elif self._final is None and time.monotonic() > deadline:
                    raise InternalError("The process could not be taken over: see the service's log.")

    def _follow(self, connection: socket.socket, pipe: int | None) -> None:
        """Learn of the run's changes from this connection; what it started without telling is on disk by then."""
        state = self._link.state if self._link is not None else self.record.state
        self._link = ShimLink(connection, state, pipe, self._link_lost)
        if self.record.process is None and self._link.wait_greeting(RECOVERY_TIMEOUT):
            self._reread()

    def _succeed(self) -> socket.socket | None:
        """Start a new shim for the run; None when there is nothing left to keep, or when somebody else is doing it."""
        try:
            listener = control.listen(self.record.control)
        except OSError:
            time.sleep(RETRY_INTERVAL)
            return None
        with listener:
            self._reap_shim()
            self._reread()
            process = self.record.process
            if self.record.state.ended:
                self._final = self.record.state
            elif process is None or self.record.boot_id != boot_id():
                self._bury()
            else:
                return self._start_successor(process, listener)
        return None

    def _reread(self) -> None:
        """Learn what the shim wrote down last; one killed early may not have got so far as the process's identity."""
        process = self.record.process
        self.record = read_record(record_path(self.record.log_file)) or self.record
        if self.record.process is None:
            self.record.process = process
        if self.record.shim is not None:
            self._shim = self.record.shim.pid
        if self._pidfd is None and self.record.process is not None:
            self._pidfd = open_pidfd(self.record.process)

    def _start_successor(self, process: Identity, listener: socket.socket) -> socket.socket | None:
        pipe = self._link.pipe if self._link is not None else None
        takeover = Takeover(
            record=self.record,
            process=process,
            parents=subreapers(),
            not_ours=[os.getsid(pid) for pid in subreapers()],
            has_pipe=pipe is not None,
            has_pidfd=self._pidfd is not None,
        )
        try:
            self._shim, connection = launch_takeover(takeover, listener, pipe, self._pidfd)
        except (OSError, LaunchError) as error:
            logger.error("Run %s: no new shim: %s", self.record.run_id, error)  # noqa: TRY400  the system's words say it all
            return None
        return connection

    def _bury(self) -> None:
        """Write down that a run ended while nobody watched: nothing about its end is invented."""
        why = "The machine was restarted" if self.record.boot_id != boot_id() else "The service ended"
        never = "" if self.record.process else " before the command was started"
        state = msgspec.structs.replace(
            self.record.state,
            stopped_at=self.record.state.stopped_at or format_time(time.time_ns()),
            unknown=f"{why}{never} while nobody watched, so its exit code is not known.",
            output_open=False,
            ended=True,
        )
        self.record.state = state
        self.record.witnessed = True
        self._write_record()
        self._final = state

    def _bear_witness(self) -> None:
        """Note that a service answers for this ended run, so that the next one need not."""
        if not self.record.witnessed:
            self.record.witnessed = True
            self._write_record()

    def _write_record(self) -> None:
        """Write the record in the place of a shim that is no more."""
        with contextlib.suppress(OSError):
            RecordFile(record_path(self.record.log_file), self.record.log_mode).write(self.record)

    def _reap_shim(self) -> None:
        if self._shim is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._shim, 0)
        reap_orphans()
