"""The way to a run's shim, whatever becomes of that: found again, made anew, or given up once the run has ended."""

import contextlib
import errno
import logging
import os
import socket
import threading
import time

from app.exceptions import InternalError
from app.linux import sockets
from app.linux.pidfd import open_pidfd
from app.linux.proc import boot_id, read_member
from app.protocol.messages import Operation, Result, Takeover
from app.runs.record import RecordFile, RunRecord, State, load_record, record_path
from app.supervisor.connection import ShimConnection
from app.supervisor.handshake import connect, request_handshake, wake
from app.supervisor.last_resort import EndTree
from app.supervisor.launch import Launched, LaunchError, launch_takeover
from app.supervisor.orphans import reap_orphans, subreapers
from app.supervisor.status import ended_unseen

logger = logging.getLogger(__name__)
# Beyond /kill's own bounds: how long the supervisor waits for a dead shim's successor before it gives up.
RECOVERY_TIMEOUT = 10.0
# A shim writes its record within milliseconds; one that does not is asked again by the next call.
HANDSHAKE_TIMEOUT = 1.0
# An overlapping worker needs about this long to make a successor listen.
RETRY_INTERVAL = 0.02
# How often a machine that gives no process or descriptor is asked again in the background.
SCARCE_INTERVAL = 0.25
# How long to stand in line with strangers before the next look at whether the shim is still there.
CONNECT_TIMEOUT = 1.0
# At the most one new shim for a run in this time.
REPLACEMENT_INTERVAL = 1.0
# A fostered tree's dead are no shim's children: they wait for us at most this long. So does what is missing of a run.
CARE_INTERVAL = 1.0
# What a shim that has hung up may take to end.
REAP_TIMEOUT = 1.0


class NoShimError(Exception):
    """Say that the machine gives no shim now, in its own words."""


class RunConnection:
    """See to it that a run has a shim until it has ended. Thread-safe.

    When the connection to the shim ends before the run does, a thread of the run's own connects again, starts a
    successor, or settles the outcome as far as it can be known. Where that thread can't be had, whoever asks for the
    state or for the connection does what it would have done. `shim` is the pid of the last one known.

    Until the run has ended, a read end of its output pipe is held here, unread: as long as some process has one open, a
    writer gets no SIGPIPE (pipe(7)), so that a shim may die without hurting the command.
    """

    def __init__(self, record: RunRecord, end_tree: EndTree) -> None:
        self._end_tree = end_tree
        self.record = record
        self.shim = record.shim.pid if record.shim else None
        self._final: State | None = None
        self._connection: ShimConnection | None = None
        self._pipe: int | None = None
        self._closed = False
        self._replaced_at = -REPLACEMENT_INTERVAL
        self._recovering = threading.RLock()
        self._watcher: threading.Thread | None = None
        self._adopted = False
        self._pidfd = open_pidfd(record.process) if record.process else None

    @classmethod
    def begin(cls, record: RunRecord, launched: Launched, end_tree: EndTree) -> "RunConnection":
        """Care for what was just launched."""
        record.process = launched.process
        shim = read_member(launched.shim)
        record.shim = shim.identity if shim is not None else None
        custody = cls(record, end_tree)
        custody.shim = launched.shim
        custody._pipe = launched.pipe
        custody._follow(launched.connection)
        custody._ensure_watcher()
        return custody

    @classmethod
    def take_up(cls, record: RunRecord, end_tree: EndTree) -> "RunConnection":
        """Care for a run that somebody else started."""
        custody = cls(record, end_tree)
        if record.state.ended:
            custody._final = record.state
            return custody
        try:
            custody._recover()
        except (NoShimError, InternalError) as error:  # output waits in the pipe meanwhile
            logger.error("Run %s: %s", record.run_id, error)  # noqa: TRY400  its sentence says it all
        custody._ensure_watcher()
        return custody

    @property
    def state(self) -> State:
        """Return what is known of the run now."""
        if self._watcher is None and self._final is None and not self._closed:
            self._do_without_watcher()
        if self._final is not None:
            return self._final
        return self._connection.state if self._connection is not None else self.record.state

    def usable_connection(self) -> ShimConnection | None:
        """Return a connection to a live shim, made anew where needed; None when the run has ended.

        Raises `NoShimError` when the machine gives no shim now, `InternalError` when none answers for a while.
        """
        if self._shimless:
            self._recover()
        return None if self._final is not None else self._connection

    def do_without_shim(self, operation: Operation) -> Result | None:
        """Do it in this thread, where no shim can be had; None when another thread or worker is at it.

        It does what a shim does, under the same name, so that further requests reach it as one. Raises `OSError`.
        """
        with contextlib.ExitStack() as held:
            with self._recovering:
                if not self._shimless:
                    return None
                listener = self._claim_name()
                if listener is None:
                    return None
                held.enter_context(listener)
                self.reread()
                # Of its own: the thread that watches may hear of the end, and let go of the run's, before this one.
                pipe, pidfd = _duplicate(self._pipe, held), _duplicate(self._pidfd, held)
                takeover = self._takeover()
                if takeover is None:
                    return None
                self._adopted = True
            logger.warning("Run %s: no shim can be had, so the service ends its tree itself.", self.record.run_id)
            state, result = self._end_tree(takeover, listener, pipe, pidfd, operation)
        with self._recovering:
            self.record.state = state
            if state.ended:
                self._settle(state)
        return result

    def reread(self) -> None:
        """Learn what the shim wrote down last; one killed early may not have got so far as the process's identity."""
        process = self.record.process
        self.record = load_record(record_path(self.record.log_file)) or self.record
        if self.record.process is None:
            self.record.process = process
        if self.record.shim is not None:
            self.shim = self.record.shim.pid
        with self._recovering:
            if self._pidfd is None and self.record.process is not None and self._final is None:
                self._pidfd = open_pidfd(self.record.process)

    def wake_shim(self) -> None:
        """Have the shim go on if somebody stopped it."""
        if self.shim is not None:
            wake(self.shim)

    def restore_record(self) -> bool:
        """Have the shim write its record again, as nobody else may while it lives; False when it can't now."""
        return request_handshake(self.record.control, HANDSHAKE_TIMEOUT)

    def close(self) -> None:
        """Let go of the run: the shim goes on alone."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join()
        self._settle_if_told()
        self._drop_descriptors()

    @property
    def _shimless(self) -> bool:
        """Tell whether the run goes on and no shim is known to keep it."""
        return self._final is None and not self._closed and (self._connection is None or self._connection.lost)

    def _ensure_watcher(self) -> None:
        """Have a thread watch over the run; without one to be had, whoever asks about the run looks after it."""
        if self._watcher is not None or self._final is not None or self._closed:
            return
        thread = threading.Thread(target=self._watch, name="run-watcher", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # all that CPython tells of pthread_create(3)'s EAGAIN
            return
        self._watcher = thread

    def _watch(self) -> None:
        """Follow the run's shim, and its successors, until the run has ended."""
        while self._final is None and not self._closed:
            if self._connection is not None and not self._connection.lost:
                self._connection.follow(CARE_INTERVAL if self._needs_care else None)
                self._care()
            elif not self._settle_if_told():
                self._go_on_without_shim()

    def _settle_if_told(self) -> bool:
        """Keep the outcome that a shim has told before it went; False when it did not tell any."""
        if (
            self._final is not None
            or self._connection is None
            or not (self._connection.lost and self._connection.state.ended)
        ):
            return False
        self._settle(self._connection.state)
        self._reap_shim()
        return True

    def _go_on_without_shim(self) -> None:
        """Put another shim in the place of one that has gone before its run."""
        logger.warning("The shim of run %s is gone before its run: taking over.", self.record.run_id)
        told = ""
        while self._shimless:
            try:
                self._recover()
            except (NoShimError, InternalError) as error:
                if told != str(error):
                    told = str(error)
                    logger.error("Run %s: %s", self.record.run_id, error)  # noqa: TRY400  its sentence says it all
                time.sleep(SCARCE_INTERVAL)  # no event tells that the machine has something to give again

    def _do_without_watcher(self) -> None:
        """Do at a call what no thread does in the background, as far as that takes no waiting."""
        self._ensure_watcher()
        connection = self._connection
        if self._watcher is not None or connection is None:
            return
        connection.catch_up()
        if (
            not self._settle_if_told()
            and connection.lost
            and time.monotonic() - self._replaced_at > REPLACEMENT_INTERVAL
        ):
            with contextlib.suppress(NoShimError, OSError, LaunchError), self._recovering:
                self._connect_or_replace()

    @property
    def _needs_care(self) -> bool:
        return self._adopted or self._lacks_pipe

    @property
    def _lacks_pipe(self) -> bool:
        """Tell whether the greeting came without the pipe: for want of a descriptor it is dropped (recvmsg(2))."""
        return self._pipe is None and self._final is None and self.state.output_open

    def _care(self) -> None:
        """Ask for a pipe that did not come, and reap what ends of a tree that has come to this process."""
        if self._lacks_pipe and (connection := connect(self.record.control, HANDSHAKE_TIMEOUT)) is not None:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(HANDSHAKE_TIMEOUT)
                for fd in sockets.receive(connection)[1]:
                    self._keep_pipe(fd)
        if self._adopted and self._final is None:
            # The shim still has to read the process's own end.
            process = self.record.process if self.state.stopped_at is None else None
            reap_orphans(spare=process.pid if process is not None else None)

    def _recover(self) -> None:
        """Connect to the run's shim, or to its successor, or make one; else tell the outcome.

        An overlapping worker may be at it too: who binds the dead shim's name makes the successor, and the other
        connects to that as soon as it listens. Raises `NoShimError` when the machine gives none, `InternalError` when
        none answers for a while.
        """
        deadline = time.monotonic() + RECOVERY_TIMEOUT
        while True:
            with self._recovering:
                if not self._shimless:
                    return
                fault = self._try_to_recover()
            if fault is None:
                continue
            if time.monotonic() > deadline:
                raise InternalError(f"The process could not be taken over from its dead shim: {fault}.")
            time.sleep(RETRY_INTERVAL)  # no event tells that another worker's successor listens

    def _try_to_recover(self) -> str | None:
        """Do what `_recover` says once; return what is in the way of it, if anything is. Raises `NoShimError`."""
        try:
            connected = self._connect_or_replace()
        except LaunchError as error:
            return str(error)
        except OSError as error:
            raise NoShimError(f"No other shim can be had for its dead one: {error.strerror}.") from error
        if connected:
            self._await_handshake()
        elif self._final is None:
            return "another worker is at it and does not come to an end"
        return None

    def _connect_or_replace(self) -> bool:
        """Follow the run's shim or a new one; False when neither can be had now. Raises `OSError` and `LaunchError`."""
        connection = connect(self.record.control, CONNECT_TIMEOUT) or self._replace_shim()
        if connection is None:
            return False
        self._follow(connection)
        return True

    def _follow(self, connection: socket.socket) -> None:
        """Learn of the run's changes from this connection."""
        state = self._connection.state if self._connection is not None else self.record.state
        self._connection = ShimConnection(connection, state, self._keep_pipe)

    def _await_handshake(self) -> None:
        """Wait until the shim has told how things are; whatever it started before is in the record by then."""
        if self._connection is not None and self._connection.wait_for_handshake(RECOVERY_TIMEOUT):
            self.reread()

    def _keep_pipe(self, fd: int) -> None:
        if self._pipe is None and self._final is None:
            self._pipe = fd
        else:
            os.close(fd)

    def _replace_shim(self) -> socket.socket | None:
        """Start a new shim for the run; None when there is nothing left to keep, or when somebody else is doing it.

        Raises `OSError` and `LaunchError`.
        """
        listener = self._claim_name()
        if listener is None:
            return None
        with listener:
            self._reap_shim()
            self.reread()
            takeover = self._takeover()
            return None if takeover is None else self._start_replacement(takeover, listener)

    def _claim_name(self) -> socket.socket | None:
        """Take the name of the run's control socket, which is free when its shim is dead; None when it is not."""
        try:
            return sockets.listen(self.record.control)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return None

    def _takeover(self) -> Takeover | None:
        """Return what a successor must know of the run; None, its outcome settled, where nothing is left to keep."""
        process = self.record.process
        if self.record.state.ended:
            self._settle(self.record.state)
        elif process is None or self.record.boot_id != boot_id():
            self._record_unseen_end()
        else:
            return Takeover(
                record=self.record,
                process=process,
                parents=subreapers(),
                not_ours=[os.getsid(0)],
                has_pipe=self._pipe is not None,
                has_pidfd=self._pidfd is not None,
            )
        return None

    def _start_replacement(self, takeover: Takeover, listener: socket.socket) -> socket.socket:
        # The first at once; one that dies at once, too, must not be replaced hundreds of times a second.
        time.sleep(max(0.0, self._replaced_at + REPLACEMENT_INTERVAL - time.monotonic()))
        self.shim, connection = launch_takeover(takeover, listener, self._pipe, self._pidfd)
        self._replaced_at = time.monotonic()
        self._adopted = True
        return connection

    def _record_unseen_end(self) -> None:
        """Write down that a run ended while nobody watched: nothing about its end is invented."""
        self.record.state = ended_unseen(self.record)
        self._write_record()
        self._settle(self.record.state)

    def _settle(self, final: State) -> None:
        """Keep the outcome, and let go of the dead: nobody has to read an exit code from them any more."""
        self._final = final
        self._drop_descriptors()
        reap_orphans()

    def _drop_descriptors(self) -> None:
        with self._recovering:
            descriptors = [self._pipe, self._pidfd]
            self._pipe = self._pidfd = None
        for fd in descriptors:
            if fd is not None:
                os.close(fd)

    def _write_record(self) -> None:
        with contextlib.suppress(OSError):
            RecordFile(record_path(self.record.log_file), self.record.log_mode).write(self.record)

    def _reap_shim(self) -> None:
        """Reap the dead shim if it was this process's child; what has its number now, and lives, is let alone."""
        if self.shim is None:
            return
        deadline = time.monotonic() + REAP_TIMEOUT
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(self.shim, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
                # It hangs up a moment before it can be reaped (do_exit(), kernel/exit.c); a pidfd, to wait for that by
                # event, takes a descriptor, of which there may be none.
                time.sleep(0.001)


def _duplicate(fd: int | None, held: contextlib.ExitStack) -> int | None:
    """Return a duplicate that is closed with `held`; None for None. Raises `OSError`."""
    if fd is None:
        return None
    copy = os.dup(fd)
    held.callback(os.close, copy)
    return copy
