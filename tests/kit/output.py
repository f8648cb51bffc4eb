"""What runs have printed, without HTTP."""

from __future__ import annotations

from typing import Any

from app.reading.reader import LogManager
from app.supervisor.manager import ProcessManager
from tests.kit.waiting import wait_until


def read_logs(
    logs: LogManager, log_file: str, lines: int | None = None, seconds: float | None = None
) -> dict[str, Any]:
    """Return a page of a log as one dictionary; `LogManager.open_page` says what the arguments mean."""
    with logs.open_page(log_file, lines, seconds) as page:
        content = "".join(page.texts())
        return {
            "log_file": page.log_file,
            "total_lines": page.total_lines,
            "lines_returned": page.lines_returned,
            "content": content,
        }


def content(pm: ProcessManager, name: str = "default") -> str:
    """Return everything the current run of a process has printed."""
    return str(read_logs(pm.logs, pm.get_status(name=name)["log_file"])["content"])


def printed(pm: ProcessManager, text: str, name: str = "default") -> str:
    """Wait until the run has printed this text and return all that it has printed."""
    return wait_until(lambda: text in (output := content(pm, name)) and output)
