"""The machine's ways to misbehave: a disk that is soon full and limits that are reached, and what the log says then."""

from __future__ import annotations

import json
import re
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.service.harness import Service
from tests.support import require, wait_until

TMPFS_BYTES = 1024 * 1024


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


def wait_until_ended(service: Service) -> dict[str, Any]:
    """Wait until the process has ended and its output is read to the end; return the status object.

    Either may come first: a process closes its output before its end can be seen, and a child may hold it open.
    """

    def ended() -> dict[str, Any]:
        status = service.status()
        return status if status["status"] != "running" and not status["output_open"] else {}

    return wait_until(ended, 30.0)


def connections_to(port: int) -> list[list[str]]:
    """Return the sockets of connections that a server on this port has not closed yet (/proc/net/tcp, proc(5))."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [fields for fields in sockets if fields[1].endswith(f":{port:04X}") and fields[3] in {"01", "08"}]
