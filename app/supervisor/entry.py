"""Runs in the worker: what the index holds of one run, and in which order."""

import bisect
from collections.abc import Callable

import msgspec

from app.runs.record import RunRecord
from app.supervisor.naming import cut
from app.supervisor.status import Status, describe, status_of

# Characters of a command in lists.
SHOWN_COMMAND = 200
# The name under which runs without a readable record are kept: none of a process's.
UNRECORDED = ""
NOT_COUNTED = -1
Order = Callable[["Entry"], tuple[str, str]]


class Entry(msgspec.Struct, gc=False):
    """Hold what lists and retention need of one run; changed by the index alone.

    What follows `ended` holds once that is true: then it does not change any more, unless somebody changes the files.
    """

    run_id: str
    name: str
    command: str
    created_at: str
    ended: bool = False
    status: Status = "running"
    exit_code: int | None = None
    reason: str | None = None
    stopped_at: str | None = None
    log_bytes: int = 0
    total_lines: int | None = NOT_COUNTED


def new_entry(run_id: str, record: RunRecord | None, log_bytes: int) -> Entry:
    """Return an entry for a run, whose record may be lost: its name tells then when it was."""
    if record is None:
        return Entry(run_id, UNRECORDED, "", _time_in(run_id), ended=True, log_bytes=log_bytes)
    entry = Entry(run_id, record.name, cut(record.spec.command, SHOWN_COMMAND), record.created_at)
    if record.state.ended:
        settle(entry, record, log_bytes)
    return entry


def settle(entry: Entry, record: RunRecord, log_bytes: int) -> None:
    """Take in the outcome of a run that has ended."""
    state = record.state
    entry.ended, entry.status, entry.exit_code = True, status_of(state), state.exit_code
    entry.stopped_at, entry.reason = state.stopped_at, describe(record, state)["reason"]
    entry.log_bytes = log_bytes


def start_of(entry: Entry) -> tuple[str, str]:
    """Return what orders runs by their start."""
    return entry.created_at, entry.run_id


def end_of(entry: Entry) -> tuple[str, str]:
    """Return what orders runs by their end."""
    return entry.stopped_at or entry.created_at, entry.run_id


def take_out(runs: list[Entry], entry: Entry, order: Order) -> None:
    """Remove an entry from a list in this order."""
    del runs[bisect.bisect_left(runs, order(entry), key=order)]


def _time_in(run_id: str) -> str:
    """Return the time in a run's id as records have it."""
    day, _, second = run_id.partition("_")
    return f"{day}T{second[:8].replace('-', ':')}.000000Z"
