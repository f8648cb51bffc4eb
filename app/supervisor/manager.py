"""Runs in the master and the worker: the named processes of one log directory, and its past runs."""

import contextlib
import heapq
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

from app.exceptions import BadRequestError, NotFoundError
from app.log.clock import RunClock
from app.runs.members import ids_of_live_runs
from app.runs.names import is_run_id
from app.runs.pointer import Pointer, names_with_pointers
from app.runs.record import read_record, record_path
from app.runs.spec import DEFAULT_NAME, Spec
from app.supervisor import refusals
from app.supervisor.details import describe_details
from app.supervisor.entry import start_of
from app.supervisor.lost import find_records
from app.supervisor.policy import Policy
from app.supervisor.process import (
    NO_PORTS,
    IfRunning,
    Leftovers,
    NamedProcess,
    PortsAsked,
    SignalType,
    kill_run,
    shut_down,
)
from app.supervisor.run import Run
from app.supervisor.shared import Shared
from app.supervisor.side_by_side import side_by_side

logger = logging.getLogger(__name__)
# A lost run's shim replies within milliseconds; a service has time for a busy machine at its start, less at its stop.
SEARCH_TIMEOUT = 5.0
LAST_SEARCH_TIMEOUT = 2.0


class ProcessManager:
    """Start, watch and end the processes of one log directory, by their names. Thread-safe.

    `start`, `restart` and the kills block until they are done; everything else returns at once, from memory. Different
    names never wait for each other.
    """

    def __init__(self, log_dir: str | Path, policy: Policy) -> None:
        self._shared = Shared(log_dir, policy, self._forget)
        self.logs = self._shared.logs
        self._processes: dict[str, NamedProcess] = {}
        self._changing = threading.Lock()
        self._counting = threading.Lock()
        # Names that are being started, with the ports that they are for, each as often as by callers: they are as live.
        self._starting: Counter[tuple[str, int]] = Counter()

    def take_over(self) -> None:
        """Take over the runs that an earlier worker or service left behind."""
        names = {DEFAULT_NAME, *names_with_pointers(self.logs.log_dir)}
        found = [process for name in names if (process := NamedProcess(name, self._shared)).may_live()]
        self._processes = {process.name: process for process in found}
        _raise_first(side_by_side([process.take_over for process in found]))
        known = {run.record.control for run in self._runs()}
        for path in find_records(self.logs.log_dir, SEARCH_TIMEOUT, known):
            record = read_record(path)
            if record is not None:
                self._get(record.name).take_over_lost(path)

    def start(
        self,
        command: str | Spec,
        log_file: str | None = None,
        *,
        name: str = DEFAULT_NAME,
        if_running: IfRunning = "refuse",
        leftovers: Leftovers = "refuse",
    ) -> dict[str, Any]:
        """Start a command, or all that a spec asks for; see `NamedProcess.start`.

        Raises `ConflictError`, too, where as many names live as may.
        """
        spec = command if isinstance(command, Spec) else Spec(command)
        with self._counted(name, spec.port) as ports_asked:
            return self._get(name).start(spec, log_file, if_running, leftovers, ports_asked)

    def get_status(self, run_id: str | None = None, name: str | None = None) -> dict[str, Any]:
        """Return the status object of a run, or of a process's current one; raises `NotFoundError`."""
        if run_id is None:
            return self._expected(name or DEFAULT_NAME).get_status()
        run = self._followed(run_id, name)
        return run.describe() if run is not None else self._shared.history.status_of(run_id)

    def details_of(self, run_id: str) -> dict[str, Any]:
        """Return `details` of a run; raises `NotFoundError`."""
        run, history = self._followed(run_id, None), self._shared.history
        record, state = (run.record, run.state) if run is not None else history.find(run_id)
        return describe_details(record, state, history.index, self._shared.meter)

    def kill(
        self,
        signal_type: str = "SIGTERM",
        timeout: float = 5.0,
        *,
        run_id: str | None = None,
        name: str | None = None,
    ) -> dict[str, Any]:
        """End the whole tree of a process, or what lives of a past run, and return the result.

        Raises `NotFoundError`, and `BadRequestError` when nothing is left to be ended.
        """
        signal = _checked(signal_type)
        if run_id is None:
            return self._expected(name or DEFAULT_NAME).kill(signal, timeout)
        followed = self._followed(run_id, name)
        if followed is not None:
            with self._get(followed.record.name).ending() as run:
                if run is not None and run.record.run_id == run_id:  # and was not exchanged for another meanwhile
                    return kill_run(run, signal, timeout)
        with contextlib.closing(self._shared.history.open(run_id)) as run:
            return kill_run(run, signal, timeout)

    def kill_all(self, signal_type: str = "SIGTERM", timeout: float = 5.0) -> dict[str, Any]:
        """End every tree of every name, those of past runs included, side by side; return how that went."""
        signal = _checked(signal_type)
        self._await_starts()
        with contextlib.ExitStack() as stack:
            current = [process for process in self._all() if process.live]
            past = [stack.enter_context(contextlib.closing(run)) for run in self._past_live(LAST_SEARCH_TIMEOUT)]
            calls = [partial(process.kill, signal, timeout) for process in current]
            calls += [partial(kill_run, run, signal, timeout) for run in past]
            done = side_by_side(calls)
            names = [process.name for process in current] + [run.record.name for run in past]
        killed = [{"name": name, **one} for name, one in zip(names, done, strict=True) if isinstance(one, dict)]
        # One that has ended by itself meanwhile is no failure.
        _raise_first([one for one in done if not isinstance(one, BadRequestError | NotFoundError)])
        return {"killed": killed, "survivors": sorted(pid for one in killed for pid in one["survivors"])}

    def overview(self, limit: int) -> list[dict[str, Any]]:
        """Return what GET /processes lists of each process, live ones first, then the newest."""
        kept = self._shared.history.index.names()
        others = [kept[name] for name in kept.keys() - self._processes.keys()]
        shown = heapq.nlargest(limit, others, key=start_of)
        for entry in (*shown, *(entry for entry in others if not entry.ended)):
            with contextlib.suppress(NotFoundError):  # dropped meanwhile
                self._expected(entry.name)
        found = [summary for process in self._all() if (summary := process.summary()) is not None]
        found.sort(key=lambda one: (one["stopped_at"] is None or one["leftovers"] > 0, one["created_at"]), reverse=True)
        return found[:limit]

    def runs(self, name: str | None, limit: int, before: str | None) -> dict[str, Any]:
        """Return a page of the runs that are kept; see `History.runs`."""
        return self._shared.history.runs(name, limit, before, self._status_followed)

    def prepare_lists(self) -> None:
        """Begin to read the records of past runs, in the background."""
        self._shared.history.index.prepare()

    def restart(self, timeout: float | None = None, *, name: str = DEFAULT_NAME) -> dict[str, Any]:
        """End what lives of a process's current run and start that again; see `NamedProcess.restart`."""
        port = self._expected(name).port
        with self._counted(name, port) as ports_asked:
            return self._get(name).restart(timeout, ports_asked)

    def log_of(self, run_id: str | None = None, name: str | None = None) -> tuple[str, RunClock | None]:
        """Return log file and clock of a run, or of a process's current one; raises `NotFoundError`."""
        if run_id is None:
            return self._expected(name or DEFAULT_NAME).log_of()
        run = self._followed(run_id, name)
        return (run.record.log_file, run.clock) if run is not None else self._shared.history.log_of(run_id)

    def shut_down(self, timeout: float) -> None:
        """End all trees because the service stops, overtaking any operation; return once their shims have exited."""
        self._await_starts()
        runs = [run for run in self._runs() if run.live]
        try:
            _raise_first(side_by_side([partial(shut_down, run, timeout) for run in runs]))
        finally:
            self._shut_down_past(timeout)

    def _shut_down_past(self, timeout: float) -> None:
        """End past runs of which anything lives, and runs whose files were removed: none outlives a stop."""
        past = self._past_live(LAST_SEARCH_TIMEOUT)
        for run, done in zip(past, side_by_side([partial(shut_down, run, timeout) for run in past]), strict=True):
            run.close()
            if isinstance(done, Exception):  # the others must be ended all the same
                logger.error("Run %s could not be ended: %s", run.record.run_id, done)

    def awaited(self) -> str | None:
        """Name, as part of a sentence, processes that still live; None when none do."""
        found = [said for process in self._all() if (said := process.awaited()) is not None]
        return f"{found[0]}, and {len(found) - 1} more processes" if len(found) > 1 else next(iter(found), None)

    def close(self) -> None:
        """Stop following the current runs without ending them."""
        self._shared.history.index.close()
        self._shared.meter.close()
        for process in self._all():
            process.close()

    def _await_starts(self) -> None:
        """Wait until the starts that are under way have a process, or have failed, but for none that begins later."""
        side_by_side([process.settled for process in self._all() if process.exchanging])

    def _past_live(self, timeout: float) -> list[Run]:
        """Return the live runs that are no process's current one; their caller closes them.

        Those without keepers have no socket to be found by: their members' environment tells of them, and the index has
        them as runs that have not ended. The master, which ends all at a stop, has no index: to build it takes seconds.
        """
        current = self._runs()
        found = find_records(self.logs.log_dir, timeout, {run.record.control for run in current})
        index = self._shared.history.index
        ids = {*filter(is_run_id, ids_of_live_runs()), *(entry.run_id for entry in index.live())}
        paths = dict.fromkeys([*found, *map(index.path_of, ids)])
        for run in current:
            paths.pop(record_path(run.record.log_file), None)
        loaded = [run for run in side_by_side([partial(Run.load, path) for path in paths]) if isinstance(run, Run)]
        for run in loaded:
            if not run.live:
                run.close()
        return [run for run in loaded if run.live]

    @contextlib.contextmanager
    def _counted(self, name: str, port: int) -> Iterator[PortsAsked]:
        """Count a name as live while it is being started; raises `ConflictError` where too many others are.

        Yields the ports that other live names were started for, and these names, where it is to have a port itself.
        """
        with self._counting:
            if len(self._processes) + len(self._starting) >= self._shared.policy.max_processes:
                self._drop_ended()
                live = {process.name for process in self._all() if process.occupied}
                live |= {starting for starting, _port in self._starting}
                if name not in live and len(live) >= self._shared.policy.max_processes:
                    raise refusals.too_many(len(live))
            asked = self._ports_asked(name) if port else NO_PORTS
            self._starting[name, port] += 1
        try:
            yield asked
        finally:
            with self._counting:
                self._starting[name, port] -= 1
                self._starting += Counter()  # drops those at zero
                self._forget_if_unused(name)

    def _ports_asked(self, name: str) -> PortsAsked:
        """Return the ports that other names were started for that live, or are being started for, and these names."""
        starting = {port: (other, None) for other, port in self._starting if port and other != name}
        others = [process for process in self._all() if process.name != name and process.port and process.occupied]
        return starting | {process.port: (process.name, process.pid) for process in others}

    def _is_starting(self, name: str) -> bool:
        return any(name == one for one, _port in list(self._starting))  # which another thread may change

    def _forget_if_unused(self, name: str) -> None:
        """Drop a name of which there is no run, as after a failed start, unless it is being started."""
        with self._changing:
            process = self._processes.get(name)
            if process is not None and not self._is_starting(name) and process.current() is None:
                del self._processes[name]

    def _drop_ended(self) -> None:
        """Drop the processes of which nothing lives, and that are not being started: links and index know them.

        Of thousands of names that were used once, those that live are found quickly then, and nothing is held.
        """
        for process in self._all():
            with self._changing:
                if self._is_starting(process.name) or process.exchanging or process.live:
                    continue
                self._processes.pop(process.name, None)
            process.close()

    def _status_followed(self, run_id: str) -> dict[str, Any] | None:
        """Return the status object of a run that is a process's current one; None for a past one."""
        run = self._followed(run_id, None)
        return run.describe() if run is not None else None

    def _forget(self, name: str, run_id: str) -> bool:
        """Do `NamedProcess.forget`, and drop a process that has no run any more."""
        if not self._get(name).forget(run_id):
            return False
        self._forget_if_unused(name)
        return True

    def _followed(self, run_id: str, name: str | None) -> Run | None:
        """Return this run if a process follows it, None for a past one; raises `BadRequestError` for another name's.

        It is this run that was asked for, also where its process has another one by the time it is looked at.
        """
        run = next((run for one in self._all() if (run := one.followed(run_id)) is not None), None)
        of = run.record.name if run is not None else name and self._shared.history.name_of(run_id)
        if name is not None and of != name:
            raise refusals.of_another_process(run_id, name, str(of))
        return run

    def _expected(self, name: str) -> NamedProcess:
        """Return a process that has a run; raises `NotFoundError` where none of this name is kept.

        Where no link leads to the current run any more, the newest that is kept is it.
        """
        process = self._processes.get(name)
        if process is None and Pointer(self.logs.log_dir, name).read() is not None:
            process = self._get(name)
        if process is not None and process.current() is not None:
            return process
        path = self._shared.history.index.newest_of(name)
        if path is None:
            self._forget_if_unused(name)
            raise refusals.nothing_started(name)
        if self._get(name).recall(path):
            logger.warning("No link names the current run of %s: the newest kept is it now: %s", name, path)
        return self._get(name)

    def _get(self, name: str) -> NamedProcess:
        with self._changing:
            if name not in self._processes:
                self._processes[name] = NamedProcess(name, self._shared)
            return self._processes[name]

    def _all(self) -> list[NamedProcess]:
        with self._changing:
            return list(self._processes.values())

    def _runs(self) -> list[Run]:
        return [run for process in self._all() if (run := process.current()) is not None]


def _checked(signal_type: str) -> SignalType:
    if signal_type not in ("SIGTERM", "SIGKILL"):
        raise BadRequestError(f"{signal_type} is not a way to end a process here: use SIGTERM or SIGKILL.")
    return cast("SignalType", signal_type)


def _raise_first(done: list[Any]) -> None:
    """Raise the first exception among these results, if there is one."""
    for one in done:
        if isinstance(one, Exception):
            raise one
