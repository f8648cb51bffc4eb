"""Runs in the master and the worker: start, watch and end the current run, by one operation at a time."""

import contextlib
import logging
import threading
from pathlib import Path
from typing import Any, Literal, cast

from app.exceptions import BadRequestError, InternalError, NotFoundError
from app.log.clock import RunClock
from app.protocol import Kill, Killed, Operation, Result
from app.reading.reader import LogManager
from app.runs.pointer import Pointer
from app.runs.record import Cause, State, read_record, record_path
from app.runs.spec import Spec
from app.supervisor import refusals
from app.supervisor.handshake import request_handshake
from app.supervisor.history import History, kept_records
from app.supervisor.lost import find_records
from app.supervisor.naming import listed, name_all
from app.supervisor.operations import Operations
from app.supervisor.policy import Policy
from app.supervisor.run import HANDSHAKE_TIMEOUT, Run
from app.supervisor.starting import CheckedStart, Starter
from app.supervisor.status import describe, reason_of, signal_name, status_of

logger = logging.getLogger(__name__)
# Seconds from SIGTERM to SIGKILL for the old tree at `replace`, as by default for /kill.
REPLACE_TIMEOUT = 5.0
# Leftovers may need a moment to end after the process, as the members of a pipeline do.
LEFTOVER_TIMEOUT = 2.0
# A shim whose run has ended needs milliseconds to record that and exit.
SHIM_TIMEOUT = 2.0
# A lost run's shim replies within milliseconds; a service has time for a busy machine at its start, less at its stop.
SEARCH_TIMEOUT = 5.0
LAST_SEARCH_TIMEOUT = 2.0
NOTHING_STARTED = "No command has been started yet: use POST /start."


class ProcessManager:
    """Start, watch and end the current run of one log directory. Thread-safe.

    `start`, `restart` and `kill` block until they are done; everything else returns at once, from memory.
    """

    def __init__(self, log_dir: str | Path, policy: Policy) -> None:
        self.logs = LogManager(log_dir, group_read=policy.group_read)
        self._pointer = Pointer(self.logs.log_dir)
        self._history = History(self.logs.log_dir)
        self._starter = Starter(self.logs, self._pointer, policy)
        self._policy = policy
        self._run: Run | None = None
        # The pointer's last known value: a run that another manager left there is only taken over by take_over().
        self._seen = self._pointer.read()
        self._operations = Operations(self.logs)
        # Held while the current run is being exchanged for another: /kill waits for that, reads do not.
        self._exchange = threading.RLock()

    def take_over(self) -> None:
        """Take over the run that an earlier worker or service left behind, if there is one."""
        self._seen = None
        run = self._current()
        if run is None or not run.live:
            self._take_over_lost()
        if self._run is None:
            self._recall_newest()

    def _take_over_lost(self) -> None:
        """Take over a run that lives although neither pointer nor record says so: the newest, if there are several."""
        with self._exchange:
            for path in find_records(self.logs.log_dir, SEARCH_TIMEOUT):
                if self._run is not None and self._run.live:
                    logger.warning("The run of %s is alive as well: it will be ended when the service stops.", path)
                elif self._run is not None and self._run.record.started_ns > _started_ns(path):
                    logger.warning("The run of %s, which is not the last one, is alive: a stop will end it.", path)
                else:
                    self._make_current(path)

    def _recall_newest(self) -> None:
        """Make the newest run that is kept the current one where the pointer is gone or leads to no record."""
        with self._exchange:
            for path in kept_records(self.logs.log_dir):
                if self._make_current(path):
                    logger.warning("No link names the current run: the newest that is kept, %s, is it now.", path)
                    return

    def _make_current(self, path: str) -> bool:
        """Make the run with this record the current one; False when that can't be read."""
        found = Run.load(path)
        if found is None:
            return False
        self._replace_run(found)
        with contextlib.suppress(OSError):
            self._pointer.set(path)
            self._seen = path
        return True

    def start(self, command: str | Spec, log_file: str | None = None, *, replace: bool = False) -> dict[str, Any]:
        """Start a command, or all that a spec asks for, and return its status at the moment of the spawn.

        Waits a moment for leftovers of the last run to end by themselves. Raises `BadRequestError`, `InternalError`,
        and `ConflictError` when members of that live and `replace` is false.
        """
        checked, beside = self._starter.check(command if isinstance(command, Spec) else Spec(command)), ""
        with self._operations.operation("start"):
            run = self._current()
            if run is not None and run.live:
                if replace:
                    beside = name_all(self._end(run, "replace", REPLACE_TIMEOUT))
                else:
                    _await_leftovers(run)
            return self._start(checked, log_file, beside)

    def get_status(self, run_id: str | None = None) -> dict[str, Any]:
        """Return the status object of a run, the current one for None; raises `NotFoundError`."""
        if run_id is not None and not self._is_current(run_id):
            return self._history.status_of(run_id)
        run = self._expected()
        return describe(run.record, run.state, run.leftovers())

    def request(self, operation: Operation) -> tuple[Run, Result | None]:
        """Do `Run.request` for the current run; return that run, too. Raises `NotFoundError` where there is none."""
        with self._exchange:
            run = self._expected()
        return run, run.request(operation) if run.live else None

    def kill(self, signal_type: str = "SIGTERM", timeout: float = 5.0) -> dict[str, Any]:
        """End the whole tree and return the result; joins a stop that is under way.

        Raises `NotFoundError`, and `BadRequestError` when nothing is left to be ended.
        """
        if signal_type not in ("SIGTERM", "SIGKILL"):
            raise BadRequestError(f"{signal_type} is not a way to end a process here: use SIGTERM or SIGKILL.")
        with self._operations.kill():
            run, killed = self.request(Kill(cast(Literal["SIGTERM", "SIGKILL"], signal_type), timeout, "kill"))
        if not isinstance(killed, Killed) or not killed.found:
            raise refusals.already_ended(run)
        return {
            "status": status_of(run.state),
            "type": signal_type,
            "exit_code": run.state.exit_code,
            "signal": signal_name(run.state.exit_code),
            "reason": " ".join(filter(None, (reason_of(run.state), refusals.not_signalled(killed.refused)))) or None,
            "stopped_at": run.state.stopped_at,
            "escalated": killed.escalated,
            "survivors": killed.survivors,
        }

    def restart(self, timeout: float | None = None) -> dict[str, Any]:
        """End what lives of the current run and start its command again, with the same directory and environment.

        Raises `NotFoundError`, `ConflictError` when a `/kill` overtook it, and what `start` raises.
        """
        timeout, beside = self._policy.restart_timeout if timeout is None else timeout, ""
        with self._operations.operation("restart"):
            run = self._expected()
            with refusals.prefixed("Nothing was ended and nothing restarted. "):
                checked = self._starter.check(run.record.spec)
            if run.live:
                refused = self._end(run, "restart", timeout)
                if refused and run.state.stopped_at is None:
                    raise refusals.out_of_reach(refused)
                beside = name_all(refused)
            with refusals.prefixed("The old process has ended, but the new start failed. "):
                return self._start(checked, None, beside)

    def shut_down(self, timeout: float) -> None:
        """End the tree because the service stops, overtaking any operation; return once its shim has exited."""
        with self._exchange:
            run = self._current()
        try:
            if run is not None and run.live:
                _shut_down(run, timeout)
        finally:
            self._shut_down_lost(timeout, run)

    def awaited(self) -> str | None:
        """Name, as part of a sentence, the processes of the current run that still live; None when none do."""
        run = self._current()
        if run is None or not run.live:
            return None
        if run.state.stopped_at is None and run.record.process is not None:
            return f"the command to end (pid {run.record.process.pid})"
        pids = run.leftovers()
        return f"the command's leftovers to end: {listed(pids)}" if pids else None

    def _shut_down_lost(self, timeout: float, current: Run | None) -> None:
        """End runs that live beside the current one, as they may when files were removed: none outlives a stop."""
        for path in find_records(self.logs.log_dir, LAST_SEARCH_TIMEOUT):
            if current is not None and path == record_path(current.record.log_file):
                continue
            lost = Run.load(path)
            if lost is None:
                continue
            with contextlib.closing(lost):
                try:
                    _shut_down(lost, timeout)
                except InternalError as error:  # the next run must be ended all the same
                    run_id = lost.record.run_id
                    logger.error("Run %s could not be ended: %s", run_id, error)  # noqa: TRY400  the message is enough

    def close(self) -> None:
        """Stop following the current run without ending it."""
        if self._run is not None:
            self._run.close()

    def log_of(self, run_id: str | None) -> tuple[str, RunClock | None]:
        """Return log file and clock of a run, the current one for None; raises `NotFoundError`."""
        if run_id is not None and not self._is_current(run_id):
            return self._history.log_of(run_id)
        run = self._expected()
        return run.record.log_file, run.clock

    def _is_current(self, run_id: str) -> bool:
        run = self._current()
        return run is not None and run.record.run_id == run_id

    def _expected(self) -> Run:
        run = self._current()
        if run is None:
            raise NotFoundError(NOTHING_STARTED)
        return run

    def _current(self) -> Run | None:
        """Return the current run, taking over the one that the pointer names when another worker has changed it."""
        target = self._pointer.read()
        if target is None:
            self._restore_pointer()
        if target is None or target in (self._seen, self._starter.launching):
            return self._run
        with self._exchange:
            target = self._pointer.read()
            if target is not None and target not in (self._seen, self._starter.launching):
                loaded = Run.load(target)
                if loaded is not None:
                    self._replace_run(loaded)
                self._seen = target
            return self._run

    def _restore_pointer(self) -> None:
        """Name the live run again when the log directory was removed: the next worker must find it."""
        if self._run is not None and self._run.live and self._starter.launching is None:
            with contextlib.suppress(OSError, InternalError):
                self.logs.make_directory()
                if request_handshake(self._run.record.control, HANDSHAKE_TIMEOUT):
                    self._pointer.set(record_path(self._run.record.log_file))

    def _replace_run(self, run: Run) -> None:
        if self._run is not None:
            self._run.close()
        self._run = run

    def _end(self, run: Run, cause: Cause, timeout: float) -> list[int]:
        """End a run's tree; return the survivors that we may not signal. Raises `ConflictError`."""
        killed = run.kill("SIGTERM", timeout, cause)
        if killed is None:
            return []
        if killed.overtaken:
            raise refusals.cancelled()
        others = set(killed.survivors).difference(killed.refused)
        if others or (run.live and not killed.refused):
            raise refusals.outlived(killed.survivors, killed.refused)
        return killed.refused

    def _start(self, checked: CheckedStart, log_file: str | None, beside: str) -> dict[str, Any]:
        with self._exchange:
            run = self._starter.start(checked, log_file, beside)
            self._replace_run(run)
            self._seen = record_path(run.record.log_file)
            return describe(run.record, State(), [])


def _started_ns(path: str) -> int:
    record = read_record(path)
    return record.started_ns if record is not None else 0


def _await_leftovers(run: Run) -> None:
    """Wait until leftovers have ended by themselves; raises `ConflictError` if they don't, or a kill comes."""
    cancellations = run.state.cancellations
    if run.state.stopped_at is None or not run.wait_until_ended(LEFTOVER_TIMEOUT):
        raise refusals.still_alive(run)
    if run.state.cancellations > cancellations:
        raise refusals.cancelled()


def _shut_down(run: Run, timeout: float) -> None:
    """End a run's tree because the service stops, and wait until its shim has gone too."""
    killed = run.kill("SIGTERM", timeout, "shutdown")
    if killed is not None and killed.refused:
        logger.warning("Run %s: %s", run.record.run_id, refusals.not_signalled(killed.refused))
    else:  # with survivors, the shim goes on
        run.wait_for_keepers(SHIM_TIMEOUT)
