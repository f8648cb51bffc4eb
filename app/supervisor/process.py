"""Runs in the master and the worker: start, watch and end one named process, by one operation at a time."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from app.exceptions import BadRequestError, InternalError
from app.log.clock import RunClock
from app.runs.pointer import Pointer
from app.runs.record import Cause, State, read_record, record_path
from app.runs.spec import Spec, differences
from app.supervisor import ports, refusals
from app.supervisor.entry import SHOWN_COMMAND
from app.supervisor.handshake import request_handshake
from app.supervisor.naming import cut, listed, name_all
from app.supervisor.operations import Operations
from app.supervisor.run import HANDSHAKE_TIMEOUT, Run
from app.supervisor.shared import Shared
from app.supervisor.starting import CheckedStart, Starter
from app.supervisor.status import describe, reason_of, signal_name, status_of

logger = logging.getLogger(__name__)
# Seconds from SIGTERM to SIGKILL for the old tree at `replace`, as by default for /kill.
REPLACE_TIMEOUT = 5.0
# Leftovers may need a moment to end after the process, as the members of a pipeline do.
LEFTOVER_TIMEOUT = 2.0
# A shim whose run has ended needs milliseconds to record that and exit.
SHIM_TIMEOUT = 2.0
# The ports that live processes of other names were started for, with these names, and their pids once they have one.
PortsAsked = Mapping[int, tuple[str, int | None]]
NO_PORTS: PortsAsked = MappingProxyType({})
SignalType = Literal["SIGTERM", "SIGKILL"]
IfRunning = Literal["refuse", "replace", "reuse"]
Leftovers = Literal["refuse", "end", "leave"]


class NamedProcess:
    """Start, watch and end the current run of one name. Thread-safe.

    `start`, `restart` and `kill` block until they are done; everything else returns at once, from memory.
    """

    def __init__(self, name: str, shared: Shared) -> None:
        self.name = name
        self._logs = shared.logs
        self._history = shared.history
        self._index = shared.history.index
        self._pointer = Pointer(self._logs.log_dir, name)
        self._starter = Starter(name, shared, self._pointer)
        self._policy = shared.policy
        self._run: Run | None = None
        # The pointer's last known value: what another worker left there is loaded when it is asked for.
        self._seen: str | None = None
        self._operations = Operations(self._logs, name)
        # Held while the current run is being exchanged for another: /kill waits for that, reads do not.
        self._exchange = threading.RLock()

    def may_live(self) -> bool:
        """Tell whether the run that the pointer names has not ended, as far as its record says."""
        target = self._pointer.read()
        record = read_record(target) if target is not None else None
        return record is not None and not record.state.ended

    def take_over(self) -> None:
        """Take over the run that an earlier worker or service left behind, if there is one."""
        self.current()

    def take_over_lost(self, path: str) -> None:
        """Take over a run that lives although no pointer says so, unless a later or a live one is the current one."""
        with self._exchange:
            run = self.current()  # that of the link, which may have ended and was not loaded yet
            if run is not None and run.live:
                logger.info("The past run of %s goes on beside the current one; a stop ends it.", path)
            elif run is not None and run.record.started_ns > _started_ns(path):
                logger.info("The past run of %s goes on; a stop ends it.", path)
            else:
                self._make_current(path)

    def recall(self, path: str) -> bool:
        """Make a run that is kept the current one, where the pointer is gone; False when its record can't be read."""
        with self._exchange:
            return self._run is not None or self._make_current(path)

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

    def start(
        self,
        spec: Spec,
        log_file: str | None = None,
        if_running: IfRunning = "refuse",
        leftovers: Leftovers = "refuse",
        ports_asked: PortsAsked = NO_PORTS,
    ) -> dict[str, Any]:
        """Start what a spec asks for, and return its status at the moment of the spawn.

        Waits a moment for leftovers of the last run to end by themselves, unless they are to be ended or left, and
        never for daemons. `ports_asked` has the ports that other live processes were started for.
        Raises `BadRequestError`, `InternalError`, and `ConflictError` when others of that run live, or a port is taken.
        """
        checked, beside, words = self._starter.check(spec), "", ""
        with self._operations.operation("start"):
            run = self.current()
            if run is not None and not run.over:
                has_ended = run.state.stopped_at is not None
                if if_running == "reuse":
                    return _reused(run, checked.spec)
                if if_running == "replace" or (leftovers == "end" and has_ended):
                    self._refuse_taken(checked, run, ports_asked)
                    beside = name_all(self._end(run, "replace", REPLACE_TIMEOUT))
                    words = "The old run was ended, but nothing was started. "
                elif leftovers != "leave" or not has_ended:
                    _await_leftovers(run)
            with refusals.prefixed(words):
                self._refuse_taken(checked, None, ports_asked)
            return self._start(checked, log_file, beside)

    def get_status(self) -> dict[str, Any]:
        """Return the current run's status object; raises `NotFoundError`."""
        run = self._expected()
        return run.describe()

    def summary(self) -> dict[str, Any] | None:
        """Return the line of GET /processes for the current run; None where there is none."""
        run = self.current()
        if run is None:
            return None
        record, state = run.record, run.state
        return {
            "name": self.name,
            "status": status_of(state),
            "run_id": record.run_id,
            "process_pid": record.process.pid if record.process else None,
            "command": cut(record.spec.command, SHOWN_COMMAND),
            "created_at": record.created_at,
            "stopped_at": state.stopped_at,
            "exit_code": state.exit_code,
            "restarts": 0,
            "next_start_at": None,
            "leftovers": len(run.left().leftovers),
        }

    def kill(self, signal_type: SignalType, timeout: float) -> dict[str, Any]:
        """End the whole tree and return the result; joins a stop that is under way.

        Raises `NotFoundError`, and `BadRequestError` when nothing is left to be ended.
        """
        with self.ending() as run:
            if run is None:
                raise refusals.nothing_started(self.name)
            return kill_run(run, signal_type, timeout, self._already_ended)

    @contextlib.contextmanager
    def ending(self) -> Iterator[Run | None]:
        """Yield the current run once no start is under way, for a kill of it: other operations are refused then."""
        with self._operations.kill():
            yield self.settled()

    def _already_ended(self, run: Run) -> BadRequestError:
        earlier = self._history.alive_beside(run.record)
        return refusals.earlier_lives(run, earlier) if earlier else refusals.already_ended(run)

    def restart(self, timeout: float | None = None, ports_asked: PortsAsked = NO_PORTS) -> dict[str, Any]:
        """End what lives of the current run and start its command again, with the same directory and environment.

        Raises `NotFoundError`, `ConflictError` when a `/kill` overtook it, and what `start` raises.
        """
        timeout, beside = self._policy.restart_timeout if timeout is None else timeout, ""
        with self._operations.operation("restart"):
            run = self._expected()
            with refusals.prefixed("Nothing was ended and nothing restarted. "):
                checked = self._starter.check(run.record.spec)
                self._refuse_taken(checked, run, ports_asked)
            if not run.over:
                refused = self._end(run, "restart", timeout)
                if refused and run.state.stopped_at is None:
                    raise refusals.out_of_reach(refused)
                beside = name_all(refused)
            with refusals.prefixed("The old process has ended, but the new start failed. "):
                self._refuse_taken(checked, None, ports_asked)
                return self._start(checked, None, beside)

    def forget(self, run_id: str) -> bool:
        """Have no current run any more, if it is this one and has ended: its files are about to be removed."""
        with self._exchange:
            run = self.current()
            if run is None or run.record.run_id != run_id or run.live:
                return False
            self._pointer.set(None)
            self._seen = self._run = None
            run.close()
            return True

    def settled(self) -> Run | None:
        """Return the current run once no start is under way."""
        with self._exchange:
            return self.current()

    @property
    def exchanging(self) -> bool:
        """Tell whether another thread is exchanging the current run for another: see `settled`."""
        if not self._exchange.acquire(blocking=False):
            return True
        self._exchange.release()
        return False

    def awaited(self) -> str | None:
        """Name, as part of a sentence, the processes of the current run that still live; None when none do."""
        run = self.current()
        if run is None or not run.live:
            return None
        if run.state.stopped_at is None and run.record.process is not None:
            return f"the command to end (pid {run.record.process.pid})"
        left = run.left()
        kind, pids = ("leftovers", left.leftovers) if left.leftovers else ("daemons", left.daemons)
        return f"the command's {kind} to end: {listed(pids)}" if pids else None

    def close(self) -> None:
        """Stop following the current run without ending it."""
        if self._run is not None:
            self._run.close()

    def log_of(self) -> tuple[str, RunClock | None]:
        """Return log file and clock of the current run; raises `NotFoundError`."""
        run = self._expected()
        return run.record.log_file, run.clock

    def followed(self, run_id: str) -> Run | None:
        """Return the run that was last known as the current one, if it is this one; None for any other."""
        run = self._run  # once: another thread may exchange it
        return run if run is not None and run.record.run_id == run_id else None

    @property
    def port(self) -> int:
        """Return the port that the current run was started for; 0 for none."""
        run = self.current()
        return run.record.spec.port if run is not None else 0

    @property
    def pid(self) -> int | None:
        """Return the pid of the current run's process, None while there is none."""
        run = self.current()
        return run.record.process.pid if run is not None and run.record.process is not None else None

    @property
    def live(self) -> bool:
        """Tell whether anything of the current run lives, its daemons included."""
        run = self.current()
        return run is not None and run.live

    @property
    def occupied(self) -> bool:
        """Tell whether the current run is not over: its process lives, or leftovers of it."""
        run = self.current()
        return run is not None and not run.over

    def _expected(self) -> Run:
        run = self.current()
        if run is None:
            raise refusals.nothing_started(self.name)
        return run

    def current(self) -> Run | None:
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
                self._logs.make_directory()
                if request_handshake(self._run.record.control, HANDSHAKE_TIMEOUT):
                    self._pointer.set(record_path(self._run.record.log_file))

    def _replace_run(self, run: Run) -> None:
        if self._run is not None:
            self._run.close()
        self._run = run
        self._index.add(run.record)

    def _refuse_taken(self, checked: CheckedStart, ending: Run | None, asked: PortsAsked) -> None:
        """Raise `ConflictError` when the port of a start is taken, but by the tree of a run that is ended first."""
        record = ending.record if ending is not None and ending.live else None
        ports.refuse_taken(checked.spec.port, self._index, record, asked)

    def _end(self, run: Run, cause: Cause, timeout: float) -> list[int]:
        """End a run's tree without its daemons; return survivors that we may not signal. Raises `ConflictError`."""
        with ports.noted(run.record):  # for a kill that joins
            killed = run.kill("SIGTERM", timeout, cause)
        if killed is None:
            return []
        if killed.overtaken:
            raise refusals.cancelled()
        others = set(killed.survivors).difference(killed.refused)
        if others or not (killed.refused or run.over):
            raise refusals.outlived(killed.survivors, killed.refused)
        return killed.refused

    def _start(self, checked: CheckedStart, log_file: str | None, beside: str) -> dict[str, Any]:
        with self._exchange:
            run = self._starter.start(checked, log_file, beside)
            self._replace_run(run)
            self._seen = record_path(run.record.log_file)
            return describe(run.record, State())


def _reused(run: Run, asked: Spec) -> dict[str, Any]:
    """Return the status of a live run that was started in the same way; raises `ConflictError` for another."""
    if differing := differences(asked, run.record.spec):
        raise refusals.unlike(run, differing)
    return run.describe() | {"started": False}


def _started_ns(path: str) -> int:
    record = read_record(path)
    return record.started_ns if record is not None else 0


def _await_leftovers(run: Run) -> None:
    """Wait until leftovers have ended or become daemons; raises `ConflictError` if they don't, or a kill comes."""
    cancellations = run.state.cancellations
    if run.state.stopped_at is None or not run.wait_until_over(LEFTOVER_TIMEOUT):
        raise refusals.still_alive(run)
    if run.state.cancellations > cancellations:
        raise refusals.cancelled()


def kill_run(
    run: Run,
    signal_type: SignalType,
    timeout: float,
    nothing_left: Callable[[Run], BadRequestError] = refusals.past_ended,
) -> dict[str, Any]:
    """End what lives of a run and return the result; raises `nothing_left` when nothing is left to be ended."""
    if not run.live:
        raise nothing_left(run)
    with ports.noted(run.record) as before:
        killed = run.kill(signal_type, timeout, "kill")
        if killed is None or not killed.found:
            raise nothing_left(run)
        fate = ports.fate_of(before, killed.survivors)
    return {
        "status": status_of(run.state),
        "type": signal_type,
        "exit_code": run.state.exit_code,
        "signal": signal_name(run.state.exit_code),
        "reason": " ".join(filter(None, (reason_of(run.state), refusals.not_signalled(killed.refused)))) or None,
        "stopped_at": run.state.stopped_at,
        "escalated": killed.escalated,
        "survivors": killed.survivors,
        "ports": fate,
    }


def shut_down(run: Run, timeout: float) -> None:
    """End a run's tree because the service stops, and wait until its shim has gone too."""
    killed = run.kill("SIGTERM", timeout, "shutdown")
    if killed is not None and killed.refused:
        logger.warning("Run %s: %s", run.record.run_id, refusals.not_signalled(killed.refused))
    else:  # with survivors, the shim goes on
        run.wait_for_keepers(SHIM_TIMEOUT)
