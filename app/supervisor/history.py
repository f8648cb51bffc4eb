"""Runs in the master and the worker: past runs: which are kept, their state, members and logs."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.exceptions import NotFoundError
from app.linux.proc import Member, boot_id
from app.log.clock import RunClock
from app.runs import names
from app.runs.members import live_keepers
from app.runs.record import RunRecord, State, load_record, read_record, record_path
from app.supervisor.leftovers import NOTHING, divide
from app.supervisor.remains import look_at, members_of
from app.supervisor.run import Run
from app.supervisor.status import describe

UNKNOWN_RUN = (
    "There is no run of that run_id; take one from an answer of /start, /status or /restart, such as "
    "2026-11-22_06-08-00."
)


class History:
    """Describe the past runs of one log directory, by their records and `/proc`. Thread-safe."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._closing = threading.Lock()

    def log_of(self, run_id: str) -> tuple[str, RunClock | None]:
        """Return a run's log file, and its clock unless the machine was restarted since; raises `NotFoundError`."""
        log_file = self._place_of_log(run_id)
        if not Path(log_file).exists():
            raise _not_kept(run_id)
        record = read_record(record_path(log_file))
        return log_file, record.clock if record and record.boot_id == boot_id() else None

    def status_of(self, run_id: str) -> dict[str, Any]:
        """Return a run's status object; raises `NotFoundError`."""
        record = self._record_of(run_id)
        state, members = self._look_at(record)
        return describe(record, state, divide(record, members) if state.stopped_at is not None else NOTHING)

    def name_of(self, run_id: str) -> str:
        """Return the name of the process whose run this is; raises `NotFoundError`."""
        return self._record_of(run_id).name

    def open(self, run_id: str) -> Run:
        """Take over a past run, to end what lives of it; its caller closes it. Raises `NotFoundError`."""
        run = Run.load(record_path(self._record_of(run_id).log_file))
        if run is None:
            raise _not_kept(run_id)
        return run

    def _record_of(self, run_id: str) -> RunRecord:
        log_file = self._place_of_log(run_id)
        record = load_record(record_path(log_file))
        if record is not None:
            return record
        if not Path(log_file).exists():
            raise _not_kept(run_id)
        raise NotFoundError(
            f"The record of run {run_id} can't be read any more, so its outcome is not known; GET "
            f"/logs?run_id={run_id} still reads what it printed."
        )

    def _place_of_log(self, run_id: str) -> str:
        """Return where the log of a run lies if it is kept; raises `NotFoundError` for a text that is no run id."""
        if not names.is_run_id(run_id):
            raise NotFoundError(UNKNOWN_RUN)
        return str(self._log_dir / f"{run_id}.log")

    def _look_at(self, record: RunRecord) -> tuple[State, list[Member]]:
        """Return a run's state now, and its live members.

        A live shim has written its last report to the record; it is not connected to.
        """
        if record.state.ended:
            return record.state, []
        members = members_of(record)
        if live_keepers(record):
            return record.state, members
        with self._closing:  # the time of an end must not change with each call
            # The shim may have recorded the end, and exited, since the record was read.
            record = load_record(record_path(record.log_file)) or record
            return (record.state, []) if record.state.ended else (look_at(record), members)


def kept_records(log_dir: Path) -> Iterator[str]:
    """Yield the paths of the records of runs that started or ended, the newest run first."""
    for run_id in names.newest_first(log_dir):
        path = str(log_dir / f"{run_id}.json")
        record = read_record(path)
        if record is not None and (record.process is not None or record.state.ended):
            yield path


def may_live(path: str) -> bool:
    """Tell whether a process of the run with this record may be alive, so that its files must not be removed."""
    record = load_record(path)
    return record is not None and not record.state.ended and (bool(live_keepers(record)) or bool(members_of(record)))


def _not_kept(run_id: str) -> NotFoundError:
    return NotFoundError(f"There is no run {run_id}, or it is no longer kept: see LLM_SHELL_LOG_KEEP.")
