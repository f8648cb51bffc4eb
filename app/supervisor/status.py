"""Runs in the worker, and in the master at its stop: a run's status object, from its record and state."""

import signal
import time
from typing import Any, Literal

import msgspec

from app.linux.proc import boot_id
from app.log.clock import format_time
from app.runs.record import RunRecord, State
from app.supervisor.hints import hint_of
from app.supervisor.leftovers import NOTHING, Left
from app.supervisor.naming import called, short_name

Status = Literal["running", "exited", "killed"]

_CAUSES = {
    "kill": "Ended by /kill.",
    "restart": "Ended by /restart.",
    "replace": "Ended by a /start with replace.",
    "shutdown": "Ended because the service stopped.",
}
_INCIDENTS = {
    "dropped_lines": "lines not written to the log (gaps in seq show where): {}",
    "failed_writes": "writes to the log that failed: {}",
    "failed_records": "writes of the run record that failed: {}",
    "unseen_survivors": "times that a process which /proc does not show outlived SIGKILL: {}",
    "nonblocking": "times that a program had made the full output non-blocking for all others (O_NONBLOCK), "
    "which may have lost some: {}",
    "takeovers": "killed shims whose understudies took over, losing at most what they had read and not yet written: {}",
    "output_lost": "shims that died with no worker alive, so that the output after that is lost: {}",
}


# Daemons in a status object, at most.
MAX_DAEMONS = 20
KEEPERS_GONE = "The processes that kept it are gone"


def status_of(state: State) -> Status:
    """Return whether the process runs, ended by itself, or was alive when our first signal reached it."""
    if state.stopped_at is None:
        return "running"
    return "killed" if state.killed_by else "exited"


def signal_name(exit_code: int | None) -> str | None:
    """Return the name of the signal that a negative exit code stands for."""
    if exit_code is None or exit_code >= 0:
        return None
    try:
        return signal.Signals(-exit_code).name
    except ValueError:  # real-time signals have numbers only
        return f"SIG{-exit_code}"


def reason_of(state: State) -> str | None:
    """Return the facts that no other field has, as one short text; None when there are none."""
    parts = []
    if state.killed_by and state.stopped_at:
        parts.append(_CAUSES[state.killed_by])
        if state.escalated:
            parts.append("SIGKILL followed.")
    elif state.killed_by:
        parts.append("It was asked to end and is still alive.")
    if state.unknown:
        parts.append(state.unknown)
    incidents = [_INCIDENTS[kind].format(count) for kind, count in state.incidents.items() if kind in _INCIDENTS]
    if incidents:
        parts.append(f"Incidents: {'; '.join(incidents)}.")
    return " ".join(parts) or None


def ended_unseen(record: RunRecord) -> State:
    """Return the last state of a run whose end was not observed; what no shim recorded stays unknown."""
    state = msgspec.structs.replace(record.state, output_open=False, ended=True)
    if state.stopped_at is not None:
        return state
    if record.boot_id != boot_id():
        unknown = "The machine was restarted before its end was seen, so its exit code is not known."
    elif record.process is None:
        unknown = "The service died while it was starting this: whether it ran, and how it ended, is not known."
    else:
        unknown = f"{KEEPERS_GONE}: its output since then is lost, and its exit code is not known."
    return msgspec.structs.replace(state, stopped_at=format_time(time.time_ns()), unknown=unknown)


def describe(record: RunRecord, state: State, left: Left = NOTHING) -> dict[str, Any]:
    """Return the status object of a run; `left` is alive of its tree after its process has ended."""
    beside = f"Started beside processes that the service may not signal: {record.beside}." if record.beside else None
    parts = (beside, reason_of(state), hint_of(record, state), _runs_on(left.daemons))
    return {
        "name": record.name,
        "status": status_of(state),
        "process_pid": record.process.pid if record.process else None,
        "command": record.spec.command,
        "run_id": record.run_id,
        "log_file": record.log_file,
        "created_at": record.created_at,
        "stopped_at": state.stopped_at,
        "exit_code": state.exit_code,
        "signal": signal_name(state.exit_code),
        "reason": " ".join(filter(None, parts)) or None,
        "output_open": state.output_open,
        "leftover_pids": left.leftovers,
        "daemons": [{"pid": pid, "name": short_name(pid)} for pid in left.daemons[:MAX_DAEMONS]],
        "restarts": 0,
        "next_start_at": None,
        "limit": None,
    }


def _runs_on(daemons: list[int]) -> str | None:
    """Return a sentence about daemons; None where there are none."""
    match daemons:
        case []:
            return None
        case [_]:
            return f"{called(daemons)} runs on as a daemon: it holds no output, and no start waits for it."
        case _:
            return f"{called(daemons)} run on as daemons: they hold no output, and no start waits for them."
