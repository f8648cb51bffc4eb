"""The last lines of a failed run, as a person would see them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from app.log.record import Record
from app.supervisor import details
from app.supervisor.details import as_shown, last_lines


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain", "plain"),
        ("", ""),
        ("\x1b[31mError:\x1b[0m no \x1b[1;4mfile\x1b[m", "Error: no file"),
        ("10%\r50%\r100%", "100%"),
        ("dos\r", "dos"),
        ("\x1b]0;a title\x07prompt", "prompt"),
        ("\x1b]8;;http://x/\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b(Bdone\x1b=", "done"),
        ("\x9b31mred", "red"),
        ("bell\x07 null\x00 tab\t", "bell null tab\t"),
        ("cut off \x1b[3", "cut off 3"),
        ("größe 🙂", "größe 🙂"),
    ],
)
def test_a_line(line: str, shown: str) -> None:
    """Escape sequences and control characters are gone, and of a redrawn line the last drawing is left."""
    assert as_shown(line) == shown


def write(log: Path, *records: Record) -> None:
    """Write a log of these records."""
    log.write_bytes(msgspec.json.Encoder().encode_lines(records))


def test_the_last_few(tmp_path: Path) -> None:
    """As many as asked for, or all where there are fewer, in the order they were printed, pieces joined."""
    log = tmp_path / "a.log"
    pieces = [Record(4, "t", "be", 1, partial=True), Record(4, "t", "gin", 2)]
    write(log, *(Record(seq, "t", f"line {seq}") for seq in (1, 2, 3)), *pieces, Record(5, "t", ""))
    assert last_lines(str(log), 3) == ["line 3", "begin", ""]
    assert last_lines(str(log), 10) == ["line 1", "line 2", "line 3", "begin", ""]


def test_no_log(tmp_path: Path) -> None:
    """Of a log that is empty, gone or no file there are none."""
    write(tmp_path / "a.log")
    assert [last_lines(str(tmp_path / name), 5) for name in ("a.log", "gone.log", "")] == [[], [], []]


def test_a_line_of_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a line in very many pieces only the end is read."""
    log = tmp_path / "a.log"
    write(log, *(Record(1, "t", f"{number:09},", number, partial=True) for number in range(1, 2000)))
    monkeypatch.setattr(details, "MAX_READ", 1000)
    (line,) = last_lines(str(log), 5)
    assert line.endswith("000001999,")
    assert len(line) < 5000
