"""What the current run of a process manager has printed, without HTTP."""

from __future__ import annotations

from app.supervisor.process import ProcessManager
from tests.kit.waiting import wait_until


def content(pm: ProcessManager) -> str:
    """Return everything the current run has printed."""
    return str(pm.logs.read_logs(pm.get_status()["log_file"])["content"])


def printed(pm: ProcessManager, text: str) -> str:
    """Wait until the run has printed this text and return all that it has printed."""
    return wait_until(lambda: text in (output := content(pm)) and output)
