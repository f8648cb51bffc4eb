"""What a log on disk holds, as it lies there and as a reader gets it."""

from __future__ import annotations

from pathlib import Path

from app.log.record import Record, decode_block
from app.reading.reader import LogManager
from tests.kit.output import read_logs


def records_of(log: Path) -> list[Record]:
    """Return what the log's newest segment holds."""
    return decode_block(log.read_bytes())


def text_of(log: Path) -> str:
    """Return the log's text as a reader gets it."""
    return str(read_logs(LogManager(log.parent), str(log))["content"])
