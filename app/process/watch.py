"""One run as the supervisor sees it: its shim while that lives, a new shim when it dies, and the outcome at the end."""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Literal

import msgspec

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
        self._changed = threading.Condition()
        self._pidfd = open_pidfd(record.process) if record.process else None

    @classmethod
    def launch(cls, record: RunRecord, environment: Mapping[bytes, bytes]) -> "Run":
        """Start the record's command; raises what `launch` raises, and nothing is left then."""
        launched = launch(record, environment)
        record.process = launched.process
        run = cls(record)
        run._shim = launched.shim
        run._link = ShimLink(launched.link, record.state, launched.pipe, run._link_lost)
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
        else:
            run._recover(None)
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
            link = self._wait_for_link(deadline)
            if link is None:
                return None
            with contextlib.suppress(LinkLostError):
                return link.kill(signal, timeout, cause)
        return Killed(0, found=True, survivors=[self.record.process.pid] if self.record.process else [])

    def close(self) -> None:
        """Let go of the run: the shim goes on alone."""
        with self._changed:
            self._closed = True
            link = self._link
        if link is not None:
            link.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _wait_for_link(self, deadline: float) -> ShimLink | None:
        """Return a connection that has not ended; None when the run has."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._final is not None or (self._link is not None and not self._link.lost),
                max(0.0, deadline - time.monotonic()),
            )
            return None if self._final is not None else self._link

    def _link_lost(self, link: ShimLink) -> None:
        """Settle what becomes of the run; called by the link's thread as the last thing it does."""
        with self._changed:
            if link.state.ended:
                self._final = link.state
            self._changed.notify_all()
        if link.state.ended:
            self._reap_shim()
        elif not self._closed:
            logger.warning("The shim of run %s is gone before its run: taking over.", self.record.run_id)
            self._recover(link)
        if link.pipe is not None:
            os.close(link.pipe)

    def _recover(self, lost: ShimLink | None) -> None:
        """Connect to the run's shim, or to its successor, or make one; else tell the outcome."""
        connection = control.connect(self.record.control)
        if connection is None:
            connection = self._succeed(lost)
        with self._changed:
            if connection is not None:
                state = lost.state if lost is not None else self.record.state
                self._link = ShimLink(connection, state, None, self._link_lost)
            self._changed.notify_all()

    def _succeed(self, lost: ShimLink | None) -> socket.socket | None:
        """Start a new shim for the run; None when there is nothing left to keep.

        Who binds the dead shim's name is the one to do it: an overlapping worker that comes second finds the name taken
        and connects to the successor.
        """
        try:
            listener = control.listen(self.record.control)
        except OSError:
            return control.connect(self.record.control)
        with listener:
            self._reap_shim()
            self._reread()
            if self.record.state.ended:
                self._final = self.record.state
                return None
            process = self.record.process
            if process is None or self.record.boot_id != boot_id():
                self._bury()
                return None
            return self._start_successor(process, listener, lost.pipe if lost is not None else None)

    def _reread(self) -> None:
        """Learn what the dead shim wrote down last; it may have died before it wrote the process's identity."""
        process = self.record.process
        self.record = read_record(record_path(self.record.log_file)) or self.record
        if self.record.process is None:
            self.record.process = process

    def _start_successor(self, process: Identity, listener: socket.socket, pipe: int | None) -> socket.socket | None:
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
            logger.error("Run %s could not be taken over: %s", self.record.run_id, error)  # noqa: TRY400  says it all
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
        with contextlib.suppress(OSError):
            RecordFile(record_path(self.record.log_file), self.record.log_mode).write(self.record)
        self._final = state

    def _reap_shim(self) -> None:
        if self._shim is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._shim, 0)
        reap_orphans()
