"""The one table that the bench prints."""

import os
import platform
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One figure: what was measured, of what, and from which readings."""

    case: str
    what: str
    figure: str
    readings: str


def render(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| case | what | figure | readings |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {row.case} | {row.what} | {row.figure} | {row.readings} |" for row in rows])


def machine() -> str:
    """Describe where this ran."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024**2
    return (
        f"{os.cpu_count()} cores ({model.partition(':')[2].strip()}), {memory} GiB, Linux {platform.release()}, "
        f"CPython {platform.python_version()}"
    )
