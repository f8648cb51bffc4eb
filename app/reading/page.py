"""Runs in the worker: one page of a log: which records it spans, and their text, a piece at a time."""

from collections.abc import Generator
from contextlib import AbstractContextManager

from app.log.quoting import encode_text
from app.log.record import Record, decode_block
from app.log.snapshot import Snapshot
from app.reading.search import record_from, start_of_last


class LogPage(AbstractContextManager["LogPage"]):
    """Read the last lines of a log, as the log was when its snapshot was opened.

    Close it, exhaust `chunks()`, or use it in a `with` statement. Not for two threads at once.
    """

    def __init__(self, log_file: str, snapshot: Snapshot, start: int | None, *, reaches_back: bool, lines: int) -> None:
        """Own the snapshot and read it from the offset `start` on; None: its last `lines` lines, counted when read.

        `reaches_back` says that lines before `start` were asked for as well.
        """
        last = snapshot.last_record()
        first = record_from(snapshot, 0)
        self.log_file = log_file
        self.total_lines = last.seq if last else 0
        self.first_seq = first[2].seq if first else None
        self.lines_returned = 0
        self.size_hint = snapshot.size - (start or 0)
        self._snapshot = snapshot
        self._lines = lines
        self._start = -1  # not known yet
        self._truncated = False
        if start is not None:
            self._begin_at(start, reaches_back)

    @property
    def truncated(self) -> bool:
        """Tell whether lines were asked for that are no longer kept; counts the lines first if necessary."""
        self._find_beginning()
        return self._truncated

    def chunks(self) -> Generator[bytes]:
        r"""Yield the inside of the JSON string `content`: escaped UTF-8, lines joined with the two characters \n.

        `lines_returned` is exact once this is exhausted. That closes the page, as closing a begun iterator does.
        """
        with self:
            yield from map(encode_text, self.texts())

    def texts(self) -> Generator[str]:
        """Yield `content` itself; otherwise the same as `chunks()`."""
        seq = 0
        with self:
            self._find_beginning()
            for _, block in self._snapshot.blocks(self._start):
                if not (records := decode_block(block)):
                    continue
                lines = _lines_of(records)
                goes_on = records[0].seq == seq
                before = [] if goes_on or seq == 0 else [""]
                self.lines_returned += len(lines) - goes_on
                seq = records[-1].seq
                yield "\n".join(before + lines)

    def _find_beginning(self) -> None:
        if self._start < 0:
            start = start_of_last(self._snapshot, self._lines)
            self._begin_at(start or 0, start is None)

    def _begin_at(self, start: int, reaches_back: bool) -> None:
        at_start = record_from(self._snapshot, start)
        self._start = start
        self._truncated = (reaches_back and (self.first_seq or 1) > 1) or (
            at_start is not None and at_start[2].part > 1
        )

    def close(self) -> None:
        """Close the snapshot; harmless when it is closed already."""
        self._snapshot.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def _lines_of(records: list[Record]) -> list[str]:
    """Return the text of each line, joined where it was written in pieces."""
    if not any([record.part for record in records]):  # noqa: C419  a list is faster than a generator here
        return [record.line for record in records]
    lines: list[str] = []
    seq = 0
    for record in records:
        if record.seq == seq:
            lines[-1] += record.line
        else:
            lines.append(record.line)
        seq = record.seq
    return lines
