"""Runs in the master and the worker: the names of runs and of their logs, records and control sockets."""

import hashlib
import os
import re
import secrets
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

# In the environment of each command: which run it belongs to, and of which process that is.
RUN_ID_VARIABLE = "LLM_SHELL_RUN_ID"
NAME_VARIABLE = "LLM_SHELL_NAME"
# A run's id is part of a file's name (NAME_MAX, limits.h).
MAX_RUN_ID = 255
_OURS = re.compile(
    r"(?P<run_id>(?P<second>\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?:_(?P<number>\d+))?)"
    r"\.(?:log|1\.log|log\.new|log\.old|json|json\.spare)",
    re.ASCII,
)
MAX_NAME = 64
_NAME = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{MAX_NAME - 1}}}")
_RUN_ID = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(?:_\d{1,9})?", re.ASCII)


def is_run_id(text: str) -> bool:
    """Tell whether a text has the form of a run id; then it is safe as a file name, too."""
    return _RUN_ID.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Tell whether a text may be the name of a process; then it is safe as part of a file name, too."""
    return _NAME.fullmatch(text) is not None


def newest_first(log_dir: Path) -> list[str]:
    """Return the ids of the runs that have any file, the newest by its name first."""
    return [run_id for _second, _number, run_id in sorted(files_of_runs(log_dir), reverse=True)]


def newest(log_dir: Path) -> tuple[str, int]:
    """Return the second and the number of the newest run, by its name; an empty second when there is none."""
    return max(files_of_runs(log_dir), default=("", 0, ""))[:2]


def newest_number(log_dir: Path, second: str) -> int:
    """Return the number of the newest run that was started in this second; 0 when there is none."""
    return max((number for begun, number, _run_id in files_of_runs(log_dir) if begun == second), default=0)


def files_of_runs(log_dir: Path) -> dict[tuple[str, int, str], list[str]]:
    """Return the names of each run's files, by the run's second, number and id; none without the directory."""
    runs: dict[tuple[str, int, str], list[str]] = defaultdict(list)
    with suppress(FileNotFoundError):
        for match in filter(None, map(_OURS.fullmatch, os.listdir(log_dir))):
            runs[match["second"], int(match["number"] or 1), match["run_id"]].append(match[0])
    return runs


def new_control_name(log_dir: Path) -> str:
    """Return a name for a new run's control socket: found by its prefix, and not to be guessed."""
    return f"{control_prefix(log_dir)}{secrets.token_hex(16)}"


def control_prefix(log_dir: Path) -> str:
    """Return the prefix of a directory's control sockets, however its path is spelt and however long (unix(7))."""
    return f"llm-shell-{hashlib.sha256(os.fsencode(os.path.realpath(log_dir))).hexdigest()[:16]}-"
