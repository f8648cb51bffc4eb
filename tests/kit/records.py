"""Run records made up for a test."""

from __future__ import annotations

from app.runs.record import RunRecord
from app.runs.spec import Spec


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
