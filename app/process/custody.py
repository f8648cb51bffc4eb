"""The way to a run's shim, whatever becomes of that: found again, made anew, or given up once the run has ended."""

import contextlib
import errno
import logging
import os
import socket
import threading
import time

from app.exceptions import InternalError
from app.process import control
from app.process.contact import connect, hail, wake
from app.process.control import State
from app.process.launch import Launched, LaunchError, abandon, launch_takeover
from app.process.link import ShimLink
from app.process.reaper import reap_orphans, subreapers
from app.process.run import RecordFile, RunRecord, Takeover, load_record, record_path
from app.process.status import ended_unseen
from app.process.tree import Identity, boot_id, open_pidfd, read_member

logger = logging.getLogger(__name__)
# Beyond /kill's own bounds: how long the supervisor waits for a dead shim's successor before it gives up.
RECOVERY_TIMEOUT = 10.0
# A shim writes its record within milliseconds; one that does not is asked again by the next call.
HAIL_TIMEOUT = 1.0
# An overlapping worker needs about this long to make a successor listen.
RETRY_INTERVAL = 0.02
# How long to stand in line with strangers before the next look at whether the shim is still there.
CONNECT_TIMEOUT = 1.0
# At the most one new shim for a run in this time.
SUCCESSION_INTERVAL = 1.0
# A fostered tree's dead are no shim's children: they wait for us at most this long.
REAP_INTERVAL = 1.0


class Custody:
    """See to it that a run has a shim until it has ended. Thread-safe.

    When the connection to the shim ends before the run does, the thread that noticed connects again, starts a
    successor, or settles the outcome as far as it can be known. `shim` is the pid of the last one known.

    Until the run has ended, a read end of its output pipe is held here, unread: as long as some process has one open, a
    writer gets no SIGPIPE (pipe(7)), so that a shim may die without hurting the command.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.shim = record.shim.pid if record.shim else None
        self._final: State | None = None
        self._link: ShimLink | None = None
        self._pipe: int | None = None
        self._closed = False
        self._succeeded_at = -SUCCESSION_INTERVAL
        self._recovering = threading.RLock()
        self._pidfd = open_pidfd(record.process) if record.process else None

    @classmethod
    def begin(cls, record: RunRecord, launched: Launched) -> "Custody":
        """Care for what was just launched; raises `OSError` where that can't be, and nothing is left then."""
        record.process = launched.process
        shim = read_member(launched.shim)
        record.shim = shim.identity if shim is not None else None
        custody = cls(record)
        custody.shim = launched.shim
        custody._pipe = launched.pipe
        try:
            custody._follow(launched.link)
        except OSError:
            abandon(launched)
            custody.close()
            raise
        return custody

    @classmethod
    def take_up(cls, record: RunRecord) -> "Custody":
        """Care for a run that somebody else started."""
        custody = cls(record)
        if record.state.ended:
            custody._final = record.state
        else:
            custody._recover_or_go_on_trying()
        return custody

    @property
    def state(self) -> State:
        """Return what is known of the run now."""
        if self._final is not None:
            return self._final
        return self._link.state if self._link is not None else self.record.state

    def usable_link(self) -> ShimLink | None:
        """Return a connection to a live shim, made anew where needed; None when the run has ended."""
        if self._final is None and (self._link is None or self._link.lost):
            self._recover()
        return None if self._final is not None else self._link

    def reread(self) -> None:
        """Learn what the shim wrote down last; one killed early may not have got so far as the process's identity."""
        process = self.record.process
        self.record = load_record(record_path(self.record.log_file)) or self.record
        if self.record.process is None:
            self.record.process = process
        if self.record.shim is not None:
            self.shim = self.record.shim.pid
        if self._pidfd is None and self.record.process is not None:
            self._pidfd = open_pidfd(self.record.process)

    def wake_shim(self) -> None:
        """Have the shim go on if somebody stopped it."""
        if self.shim is not None:
            wake(self.shim)

    def restore_record(self) -> bool:
        """Have the shim write its record again, as nobody else may while it lives; False when it can't now."""
        return hail(self.record.control, HAIL_TIMEOUT)

    def close(self) -> None:
        """Let go of the run: the shim goes on alone."""
        self._closed = True
        if self._link is not None:
            self._link.close()
        self._drop_pipe()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _link_lost(self, link: ShimLink) -> None:
        """Settle what becomes of the run; called by the link's thread as the last thing it does."""
        if link.state.ended:
            self._settle(link.state)
            self._reap_shim()
        elif not self._closed:
            logger.warning("The shim of run %s is gone before its run: taking over.", self.record.run_id)
            self._recover_or_go_on_trying()

    def _recover_or_go_on_trying(self) -> None:
        """Recover, in the background where the machine does not allow it yet: output waits in the pipe meanwhile."""
        try:
            self._recover()
        except InternalError as error:
            logger.error("Run %s: %s", self.record.run_id, error)  # noqa: TRY400  its sentence says it all
            threading.Thread(target=self._recover_or_go_on_trying, name="run-recovery", daemon=True).start()

    def _recover(self) -> None:
        """Connect to the run's shim, or to its successor, or make one; else tell the outcome.

        An overlapping worker may be at it too: who binds the dead shim's name makes the successor, and the other
        connects to that as soon as it listens. Raises `InternalError` when none of this works for a while.
        """
        with self._recovering:
            deadline = time.monotonic() + RECOVERY_TIMEOUT
            while self._final is None and not self._closed and (self._link is None or self._link.lost):
                fault = "another worker is at it and does not come to an end"
                try:
                    connected = self._connect_or_succeed()
                except (OSError, LaunchError) as error:
                    connected, fault = False, str(error)
                if connected:
                    self._await_greeting()
                elif self._final is None:
                    if time.monotonic() > deadline:
                        raise InternalError(f"The process could not be taken over from its dead shim: {fault}.")
                    time.sleep(RETRY_INTERVAL)  # no event tells that another worker's successor listens

    def _connect_or_succeed(self) -> bool:
        """Follow the run's shim or a new one; False when neither can be had now. Raises `OSError` and `LaunchError`."""
        connection = connect(self.record.control, CONNECT_TIMEOUT) or self._succeed()
        if connection is None:
            return False
        try:
            self._follow(connection)
        except OSError:
            connection.close()
            raise
        return True

    def _follow(self, connection: socket.socket) -> None:
        """Learn of the run's changes from this connection."""
        self._link = ShimLink(connection, self.state, self._keep_pipe, self._link_lost)

    def _await_greeting(self) -> None:
        """Wait until the shim has told how things are; whatever it started before is in the record by then."""
        if self._link is not None and self._link.wait_greeting(RECOVERY_TIMEOUT):
            self.reread()

    def _keep_pipe(self, fd: int) -> None:
        if self._pipe is None and self._final is None:
            self._pipe = fd
        else:
            os.close(fd)

    def _succeed(self) -> socket.socket | None:
        """Start a new shim for the run; None when there is nothing left to keep, or when somebody else is doing it.

        Raises `OSError` and `LaunchError`.
        """
        try:
            listener = control.listen(self.record.control)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return None
        with listener:
            self._reap_shim()
            self.reread()
            process = self.record.process
            if self.record.state.ended:
                self._settle(self.record.state)
            elif process is None or self.record.boot_id != boot_id():
                self._bury()
            else:
                return self._start_successor(process, listener)
        return None

    def _start_successor(self, process: Identity, listener: socket.socket) -> socket.socket:
        # The first at once; one that dies at once, too, must not be replaced hundreds of times a second.
        time.sleep(max(0.0, self._succeeded_at + SUCCESSION_INTERVAL - time.monotonic()))
        self._succeeded_at = time.monotonic()
        takeover = Takeover(
            record=self.record,
            process=process,
            parents=subreapers(),
            not_ours=[os.getsid(0)],
            has_pipe=self._pipe is not None,
            has_pidfd=self._pidfd is not None,
        )
        self.shim, connection = launch_takeover(takeover, listener, self._pipe, self._pidfd)
        threading.Thread(target=self._reap_the_fostered, name="orphan-reaper", daemon=True).start()
        return connection

    def _reap_the_fostered(self) -> None:
        """Reap what ends of a tree that has come to this process; the shim still has to read the process's own end."""
        while self._final is None and not self._closed:
            process = self.record.process if self.state.stopped_at is None else None
            reap_orphans(spare=process.pid if process is not None else None)
            time.sleep(REAP_INTERVAL)  # a wait for any child would return at once for the spared zombie

    def _bury(self) -> None:
        """Write down that a run ended while nobody watched: nothing about its end is invented."""
        self.record.state = ended_unseen(self.record)
        self._write_record()
        self._settle(self.record.state)

    def _settle(self, final: State) -> None:
        """Keep the outcome, and let go of the dead: nobody has to read an exit code from them any more."""
        self._final = final
        self._drop_pipe()
        reap_orphans()

    def _drop_pipe(self) -> None:
        with self._recovering:
            pipe, self._pipe = self._pipe, None
        if pipe is not None:
            os.close(pipe)

    def _write_record(self) -> None:
        with contextlib.suppress(OSError):
            RecordFile(record_path(self.record.log_file), self.record.log_mode).write(self.record)

    def _reap_shim(self) -> None:
        if self.shim is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.shim, 0)
