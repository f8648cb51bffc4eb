"""The machine's ways to misbehave: a disk that is soon full and limits that are reached, and what the log says then."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.kit.requiring import require

TMPFS_BYTES = 1024 * 1024
# Somebody whom nobody else on this machine is, or the limit on processes would count theirs, too.
LONELY_USER = 100_000 + os.getpid()
AS_LONELY_USER = ("setpriv", f"--reuid={LONELY_USER}", f"--regid={LONELY_USER}", "--clear-groups")


@contextmanager
def tmpfs(folder: Path, size: int = TMPFS_BYTES) -> Iterator[Path]:
    """Mount a small file system of its own at `folder`; skip the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    require(mounted.returncode == 0, f"the right to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607  wherever the system has it


@contextmanager
def limited(pid: int, what: int, soft: int) -> Iterator[None]:
    """Lower one soft limit of a running process for the time (prlimit(2))."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, what, before)


def log_records(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every record of the run's log, which must hold nothing else."""
    return [json.loads(line) for line in Path(status["log_file"]).read_bytes().splitlines()]


def lines_lost(status: dict[str, Any]) -> int:
    """Return how many lines could not be written, as the status object tells it."""
    told = re.search(r"lines not written to the log[^:]*: (\d+)", status["reason"] or "")
    return int(told[1]) if told else 0


def tasks_of(user: int) -> int:
    """Return how many threads a user has on this machine: what RLIMIT_NPROC counts (setrlimit(2))."""
    found = 0
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and process.stat().st_uid == user:
                found += len(os.listdir(process / "task"))  # noqa: PTH208  names are all it takes
    return found
