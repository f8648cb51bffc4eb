"""Runs in the worker, and in the master at its stop: past runs: which are kept, their state, members and logs."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from app.exceptions import NotFoundError
from app.linux.proc import Member, boot_id, descendants, read_member
from app.log.clock import RunClock
from app.runs import names
from app.runs.members import find_members
from app.runs.record import RecordFile, RunRecord, State, load_record, read_record, record_path
from app.supervisor.status import describe, ended_unseen

UNWATCHED = "Its shim was killed and not replaced: its output is lost."


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
        log_file = self._place_of_log(run_id)
        record = load_record(record_path(log_file))
        if record is None:
            if not Path(log_file).exists():
                raise _not_kept(run_id)
            raise NotFoundError(
                f"The record of run {run_id} can't be read any more, so its outcome is not known; GET "
                f"/logs?run_id={run_id} still reads what it printed."
            )
        state, members = self._look_at(record)
        leftovers = members if state.stopped_at is not None else []
        return describe(record, state, sorted(member.pid for member in leftovers))

    def _place_of_log(self, run_id: str) -> str:
        """Return where the log of a run lies if it is kept; raises `NotFoundError` for a text that is no run id."""
        if not names.is_run_id(run_id):
            raise NotFoundError(
                "There is no run of that run_id; take one from an answer of /start, /status or /restart, such as "
                "2026-11-22_06-08-00."
            )
        return str(self._log_dir / f"{run_id}.log")

    def _look_at(self, record: RunRecord) -> tuple[State, list[Member]]:
        """Return a run's state now, and its live members.

        A live shim has written its last report to the record; it is not connected to, and a dead one is not replaced.
        """
        if record.state.ended:
            return record.state, []
        if record.boot_id != boot_id():
            return self._close(record), []
        watched = _is_watched(record)
        members = _members_of(record, watched=watched)
        if watched:
            return record.state, members
        if not members:
            return self._close(record), []
        return msgspec.structs.replace(record.state, unknown=UNWATCHED, output_open=False), members

    def _close(self, record: RunRecord) -> State:
        """Record the end of a run whose last shim is dead: the time must not change with each call."""
        path = record_path(record.log_file)
        with self._closing:
            last = load_record(path) or record
            if not last.state.ended:
                last.state = ended_unseen(last)
                with contextlib.suppress(OSError):  # disk full or no permission: the next call tries again
                    RecordFile(path, last.log_mode).write(last)
        return last.state


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
    if record is None or record.state.ended or record.boot_id != boot_id():
        return False
    return _is_watched(record) or bool(_members_of(record, watched=False))


def _is_watched(record: RunRecord) -> bool:
    """Tell whether the run's last shim lives."""
    shim = read_member(record.shim.pid) if record.shim is not None else None
    return shim is not None and shim.identity == record.shim and shim.alive


def _members_of(record: RunRecord, *, watched: bool) -> list[Member]:
    """Return the live members of a past run; of one whose first shim died, only those that are certainly its own.

    Orphans that were reparented to the service may be the current run's.
    """
    if watched and record.shim is not None and not record.state.incidents.get("takeovers"):
        return descendants({record.shim.pid})
    return find_members(record.process, record.members, (), ()) if record.process is not None else []


def _not_kept(run_id: str) -> NotFoundError:
    return NotFoundError(f"There is no run {run_id}, or it is no longer kept: see LLM_SHELL_LOG_KEEP.")
