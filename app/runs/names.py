"""Names of runs and of what is theirs: log, record, control socket."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

OURS = re.compile(
    r"(?P<run_id>(?P<second>\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?:_(?P<number>\d+))?)"
    r"\.(?:log|1\.log|log\.new|log\.old|json|json\.spare)",
    re.ASCII,
)
_RUN_ID = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(?:_\d{1,9})?", re.ASCII)


def is_run_id(text: str) -> bool:
    """Tell whether a run may have this name: then it is also a file name without any surprise."""
    return _RUN_ID.fullmatch(text) is not None


def newest_first(log_dir: Path) -> list[str]:
    """Return the ids of the runs of which there is any file, by age as their names tell it."""
    matches = map(OURS.fullmatch, names_in(log_dir))
    runs = {(match["second"], int(match["number"] or 1), match["run_id"]) for match in matches if match}
    return [run_id for _second, _number, run_id in sorted(runs, reverse=True)]


def newest(log_dir: Path) -> tuple[str, int]:
    """Return the second and the number of the newest run, by its name; an empty second when there is none."""
    return max(_runs(log_dir), default=("", 0))


def newest_number(log_dir: Path, second: str) -> int:
    """Return the number of the newest run that was started in this second; 0 when there is none."""
    return max((number for begun, number in _runs(log_dir) if begun == second), default=0)


def _runs(log_dir: Path) -> Iterator[tuple[str, int]]:
    """Yield the second and the number of the run of each file that is one's."""
    matches = map(OURS.fullmatch, names_in(log_dir))
    return ((match["second"], int(match["number"] or 1)) for match in matches if match)


def names_in(log_dir: Path) -> list[str]:
    """Return the names of all files there; none where there is no such directory."""
    try:
        return os.listdir(log_dir)
    except FileNotFoundError:
        return []


def new_control_name(log_dir: Path) -> str:
    """Return a name for a new run's control socket: who knows the directory can find it, and nobody can guess it."""
    return f"{control_prefix(log_dir)}{secrets.token_hex(16)}"


def control_prefix(log_dir: Path) -> str:
    """Return what the names of a directory's control sockets begin with, however it is spelt or long (unix(7))."""
    return f"llm-shell-{hashlib.sha256(os.fsencode(os.path.realpath(log_dir))).hexdigest()[:16]}-"
