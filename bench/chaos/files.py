"""Runs in the chaos runner: run records and logs, read from the files without the service's own readers."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from bench.chaos.processes import Identity


class Record(NamedTuple):
    """What a run record says that the checks need."""

    run_id: str
    command: str
    process: Identity | None
    shim: Identity | None
    understudy: Identity | None
    takeovers: int
    losses: int
    ended: bool


class Log(NamedTuple):
    """A run's lines, the number of each, and how many records can't be read."""

    lines: list[str]
    numbers: list[int]
    damaged: int


def records(directory: Path, known: Collection[str] = ()) -> dict[str, Record]:
    """Return the records of all runs but those known, and of none whose files are only being made."""
    found = {}
    for path in sorted(directory.glob("*.json")):
        if path.stem in known:
            continue
        try:
            record = parse_record(json.loads(path.read_bytes()))
        except (FileNotFoundError, ValueError):
            continue
        found[record.run_id] = record
    return found


def current(directory: Path) -> Record:
    """Return the record of the current run; raises `OSError` or `ValueError` where there is none at this moment."""
    return parse_record(json.loads((directory / "current").read_bytes()))


def parse_record(content: dict[str, Any]) -> Record:
    """Read a record: docs/operations.md says what it is."""
    state = content.get("state", {})
    incidents = state.get("trouble", {})
    return Record(
        run_id=content["run_id"],
        command=content["spec"]["command"],
        process=_identity(content.get("process")),
        shim=_identity(content.get("shim")),
        understudy=_identity(content.get("understudy")),
        takeovers=incidents.get("takeovers", 0),
        losses=sum(count for kind, count in incidents.items() if kind not in {"takeovers", "unseen_survivors"}),
        ended=state.get("ended", False),
    )


def read_log(path: Path) -> Log:
    """Read a log, with the pieces of each line put together."""
    lines: list[str] = []
    numbers: list[int] = []
    damaged = 0
    for raw in path.read_bytes().split(b"\n"):
        if not raw.strip(b" \0"):
            continue
        try:
            record = json.loads(raw)
        except ValueError:
            damaged += 1
            continue
        if record.get("part", 1) > 1 and numbers[-1:] == [record["seq"]]:
            lines[-1] += record["line"]
        else:
            lines.append(record["line"])
            numbers.append(record["seq"])
    return Log(lines, numbers, damaged)


def _identity(content: list[int] | None) -> Identity | None:
    return None if content is None else Identity(*content)
