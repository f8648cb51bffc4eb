"""Runs in the worker: what GET /status tells of a run with `details`."""

import itertools
import re
from typing import Any

from app.linux.proc import Member, command_line
from app.linux.usage import private_bytes
from app.log.record import decode_block
from app.log.snapshot import PROBE, Snapshot
from app.runs.record import RunRecord, State, load_record
from app.supervisor.index import RunIndex
from app.supervisor.meter import Load, Meter
from app.supervisor.naming import shown
from app.supervisor.ports import listeners_of, members_now
from app.supervisor.status import signal_name, status_of
from app.wording import shorten

MAX_MEMBERS = 100
# Of a failed run: lines, characters of each, and bytes of its log that are read for them.
LAST_LINES = 5
MAX_LINE = 500
MAX_READ = 256 * 1024
# Runs of a name among which the last failure is looked for.
MAX_LOOKED = 500
NO_LOAD = Load()
# Escape sequences (ECMA-48): CSI, the strings that end with BEL or ST, and the others.
_ESCAPE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def describe_details(record: RunRecord, state: State, index: RunIndex, meter: Meter) -> dict[str, Any]:
    """Return `details` of a run in this state."""
    members = [] if state.ended else sorted(members_now(record), key=lambda one: (one.start_ticks, one.pid))
    load = meter.look(record) if members else NO_LOAD
    memory = {member.pid: private_bytes(member.pid) for member in members}
    listeners = listeners_of(members) if members else []
    failed = (record, state) if has_failed(state) and _is_newest(record, index) else newest_failure(index, record.name)
    return {
        **_output_of(record.log_file),
        "last_failure": _describe_failure(*failed) if failed is not None else None,
        "input": None,
        "ports": [{"address": one.address, "port": one.port, "pid": one.pid} for one in listeners],
        "cpu_percent": load.percent,
        "memory_bytes": sum(memory.values()),
        "members": [_describe_member(member, load, memory[member.pid]) for member in members[:MAX_MEMBERS]],
    }


def _describe_member(member: Member, load: Load, memory: int) -> dict[str, Any]:
    return {
        "pid": member.pid,
        "ppid": member.ppid,
        "command_line": shown(command_line(member.pid)),
        "cpu_percent": load.of.get(member.identity),
        "memory_bytes": memory,
    }


def has_failed(state: State) -> bool:
    """Tell whether a run has ended by itself with another exit code than 0, or by a signal that was not ours."""
    return status_of(state) == "exited" and state.exit_code not in (0, None)


def newest_failure(index: RunIndex, name: str) -> tuple[RunRecord, State] | None:
    """Return the newest run of a process that has failed, as it is recorded; None where the last ones have not."""
    for entry in itertools.islice(index.walk(name, None), MAX_LOOKED):
        if entry.ended and (entry.status != "exited" or entry.exit_code in (0, None)):
            continue
        record = load_record(index.path_of(entry))
        if record is not None and has_failed(record.state):
            return record, record.state
    return None


def _is_newest(record: RunRecord, index: RunIndex) -> bool:
    """Tell whether this is the last run of its process, or none of that is kept any more."""
    newest = next(index.walk(record.name, None), None)
    return newest is None or newest.run_id == record.run_id


def _describe_failure(record: RunRecord, state: State) -> dict[str, Any]:
    return {
        "run_id": record.run_id,
        "exit_code": state.exit_code,
        "signal": signal_name(state.exit_code),
        "stopped_at": state.stopped_at,
        "lines": [shorten(as_shown(line), MAX_LINE) for line in last_lines(record.log_file, LAST_LINES)],
    }


def _output_of(log_file: str) -> dict[str, Any]:
    try:
        with Snapshot.open(log_file) as snapshot:
            last = snapshot.last_record()
    except OSError:  # removed, or not to be read: what there was is not known
        return {"last_output_at": None, "total_lines": None}
    return {"last_output_at": last.timestamp if last else None, "total_lines": last.seq if last else 0}


def last_lines(log_file: str, count: int) -> list[str]:
    """Return the last lines of a log, none where it is gone; of very long ones only the end."""
    pieces: dict[int, list[str]] = {}
    left = MAX_READ
    try:
        with Snapshot.open(log_file) as snapshot:
            for _offset, block in snapshot.blocks_backward(PROBE):
                left -= len(block)
                for record in reversed(decode_block(block)):
                    if record.seq not in pieces and len(pieces) == count:
                        left = 0
                        break
                    pieces.setdefault(record.seq, []).append(record.line)
                if left <= 0:
                    break
    except OSError:
        return []
    return ["".join(reversed(line)) for line in reversed(pieces.values())]


def as_shown(line: str) -> str:
    r"""Return a line without escape sequences and control characters; of one redrawn by `\r` what was drawn last."""
    plain = _ESCAPE.sub("", line).rstrip("\r").rpartition("\r")[2]
    return _CONTROL.sub("", plain)
