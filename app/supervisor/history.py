"""Runs in the master and the worker: past runs: which are kept, their state, members and logs."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.exceptions import BadRequestError, NotFoundError
from app.linux.proc import Member, boot_id
from app.log.clock import RunClock
from app.runs import names
from app.runs.members import live_keepers
from app.runs.record import RunRecord, State, load_record, read_record, record_path
from app.supervisor.entry import Entry
from app.supervisor.index import RunIndex
from app.supervisor.leftovers import NOTHING, divide
from app.supervisor.remains import look_at, members_of
from app.supervisor.run import Run
from app.supervisor.status import describe, signal_name

UNKNOWN_RUN = "That is no run_id, such as 2026-11-22_06-08-00: GET /runs lists those that are kept."


# Returns the status object of a run that is followed, by its id; None for any other.
Current = Callable[[str], dict[str, Any] | None]


class History:
    """Describe and list the runs of one log directory, by their records, their index and `/proc`. Thread-safe."""

    def __init__(self, log_dir: Path) -> None:
        self.index = RunIndex(log_dir)
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

    def find(self, run_id: str) -> tuple[RunRecord, State]:
        """Return a run's record and its state now; raises `NotFoundError`."""
        record = self._record_of(run_id)
        return record, self._look_at(record)[0]

    def alive_beside(self, current: RunRecord) -> list[str]:
        """Return the ids of earlier runs of the same name of which anything lives, newest first."""
        self.index.wait_until_built()
        others = [one for one in self.index.live() if one.name == current.name and one.run_id != current.run_id]
        records = [read_record(self.index.path_of(one)) for one in others]
        living = [record for record in records if record is not None and self._look_at(record)[1]]
        return [record.run_id for record in sorted(living, key=lambda one: one.started_ns, reverse=True)]

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

    def runs(self, name: str | None, limit: int, before: str | None, current: Current) -> dict[str, Any]:
        """Return a page of runs, of one name or of all, newest start first; `before` is the last page's `next`.

        `current` tells the state of the runs that are followed, better than their records can. Raises `NotFoundError`
        where `before` is not kept, and `BadRequestError` where it is of another name.
        """
        rows: list[dict[str, Any]] = []
        for entry in self.index.walk(name, self._place_in_list(before, name)):
            row = self._row(entry, current)
            if row is not None and len(rows) == limit:
                return {"runs": rows, "next": rows[-1]["run_id"]}
            if row is not None:
                rows.append(row)
        return {"runs": rows, "next": None}

    def state_of(self, record: RunRecord) -> State:
        """Return the state now of a run that nobody follows, and write down its end where that had not been seen."""
        return self._look_at(record)[0]

    def _place_in_list(self, before: str | None, name: str | None) -> Entry | None:
        if before is None:
            return None
        if not names.is_run_id(before):
            raise NotFoundError(UNKNOWN_RUN)
        entry = self.index.find(before)
        if entry is None:
            raise not_listed(before)
        if name is not None and entry.name != name:
            raise BadRequestError(
                f"The run {before} is one of {entry.name}, not of {name}: give a run_id of that name as before, or "
                "leave name out.",
                {"before": [f"Must be a run of {name}."]},
            )
        return entry

    def _row(self, entry: Entry, current: Current) -> dict[str, Any] | None:
        """Return what a list says of a run; None for one whose process was not started, as yet or at all."""
        status = _outcome(entry) if self._has_ended(entry) else current(entry.run_id) or self._status_in_list(entry)
        if status is None:
            return None
        total_lines, log_bytes = self.index.measure(entry)
        return {
            "run_id": entry.run_id,
            "name": entry.name,
            "command": entry.command,
            **{field: status[field] for field in ("status", "exit_code", "signal", "reason")},
            "created_at": entry.created_at,
            "stopped_at": status["stopped_at"],
            "total_lines": total_lines,
            "log_bytes": log_bytes,
            "leftovers": len(status["leftover_pids"]),
        }

    def _has_ended(self, entry: Entry) -> bool:
        """Tell whether nothing about a run changes any more; reads the record of one that had not ended before."""
        if not entry.ended:
            record = load_record(self.index.path_of(entry))
            if record is not None and record.state.ended:
                self.index.settle(entry, record)
        return entry.ended

    def _status_in_list(self, entry: Entry) -> dict[str, Any] | None:
        record = read_record(self.index.path_of(entry))
        if record is None or record.process is None:
            return None
        with contextlib.suppress(NotFoundError):  # removed meanwhile
            return self.status_of(entry.run_id)
        return None

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


def _outcome(entry: Entry) -> dict[str, Any]:
    """Return what the index knows of an ended run, under the names of the status object."""
    return {
        "status": entry.status,
        "exit_code": entry.exit_code,
        "signal": signal_name(entry.exit_code),
        "reason": entry.reason,
        "stopped_at": entry.stopped_at,
        "leftover_pids": [],
    }


def not_listed(run_id: str) -> NotFoundError:
    """Return the refusal of a list that is to go on after a run that is not kept."""
    return NotFoundError(f"There is no run {run_id}, or it is no longer kept: leave out before to begin anew.")


def _not_kept(run_id: str) -> NotFoundError:
    return NotFoundError(f"There is no run {run_id}, or it is no longer kept: GET /runs lists those that are.")
