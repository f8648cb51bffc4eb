"""Run records made up for a test, and runs of which there are files alone."""

from __future__ import annotations

import time
from pathlib import Path

from app.linux.proc import Identity
from app.log.clock import format_time
from app.log.record import Record, encode
from app.runs.record import RecordFile, RunRecord, State, record_path
from app.runs.spec import Spec

EPOCH = 1_000_000_000
_GONE = Identity(2**22 + 1, 1)  # above the greatest pid (proc(5), pid_max)


def make_record(**changes: object) -> RunRecord:
    """Return a record with these fields."""
    fields: dict[str, object] = {
        "run_id": "2026-11-22_06-08-00",
        "created_at": "2026-11-22T06:08:00.000000Z",
        "started_ns": 1,
        "boottime_ns": 2,
        "boot_id": "boot",
        "control": "name",
        "log_file": "/logs/2026-11-22_06-08-00.log",
    }
    spec = {"command": "echo привет", "shell": "/bin/sh", "cwd": "/"}
    asked = {name: changes.pop(name) for name in Spec.__struct_fields__ if name in changes}
    fields["spec"] = Spec(**{**spec, **asked})  # type: ignore[arg-type]  # the fields are the spec's
    return RunRecord(**{**fields, **changes})  # type: ignore[arg-type]  # the fields are the ones above


def ended_at(second: int, **fields: object) -> State:
    """Return the state of a run that has ended in this second."""
    told = {"stopped_at": format_time((EPOCH + second) * 10**9), "exit_code": 0, "output_open": False, "ended": True}
    return State(**{**told, **fields})  # type: ignore[arg-type]  # the fields are the state's


def record_of_past(log_dir: Path, second: int, *, lines: int = 1, **changes: object) -> RunRecord:
    """Write record and log of a run that was started in this second; without other changes it ended in it, too."""
    run_id = time.strftime("%Y-%m-%d_%H-%M-%S", time.gmtime(EPOCH + second))
    log = log_dir / f"{run_id}.log"
    at = format_time((EPOCH + second) * 10**9)
    log.write_bytes(b"".join(encode(Record(seq, at, str(seq))) for seq in range(1, lines + 1)))
    usual: dict[str, object] = {"run_id": run_id, "created_at": at, "log_file": str(log), "process": _GONE}
    record = make_record(**{**usual, "state": ended_at(second), **changes})
    RecordFile(record_path(record.log_file)).write(record)
    return record
