"""Fixtures for real shims and real children, without HTTP."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.service import manage
from app.supervisor.process import ProcessManager
from tests.support import assert_none_left, descendants, wait_until

PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(autouse=True)
def _nobody_left() -> Iterator[None]:
    """Fail a test that leaves anybody behind; strays come to this process, so that none escapes the look."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = descendants()
    yield
    assert_none_left(before)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture
def pm(tmp_path: Path) -> Iterator[ProcessManager]:
    """Return a process manager on a directory of its own; what it started is ended afterwards."""
    manager = manage(tmp_path / "logs")
    yield manager
    manager.shut_down(0.0)
    manager.close()


def ended(pm: ProcessManager) -> dict[str, Any]:
    """Wait until the process has ended and return the status."""
    return wait_until(lambda: (status := pm.get_status())["status"] != "running" and status)


def content(pm: ProcessManager) -> str:
    """Return everything the current run has printed."""
    return str(pm.logs.read_logs(pm.get_status()["log_file"])["content"])


def printed(pm: ProcessManager, text: str) -> str:
    """Wait until the run has printed this text and return all that it has printed."""
    return wait_until(lambda: text in (output := content(pm)) and output)


def alive(pid: int) -> bool:
    """Tell whether there is such a process, a zombie not counted."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX" and pid != os.getpid()
