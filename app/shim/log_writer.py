"""Runs in the shim: cut the output of a run into records and write them to its log."""

import time
from contextlib import suppress

from app.log.clock import RunClock, Timestamps
from app.log.record import LINE_LIMIT, Record, encode, encode_lines, show, whole_characters
from app.log.snapshot import Snapshot
from app.shim.appender import Appender

UNFINISHED_TIMEOUT = 0.2
"""Seconds after which an unfinished line is written as a piece."""

# Bytes of records that are written at once. A file system that keeps large folios in the page cache takes them in one
# piece, at far less cost than many small writes (mapping_set_large_folios, since Linux 6.16 in ext4).
WRITE_SIZE = 512 * 1024


class LogWriter:
    """Write one run's log, which is empty, or is gone on with by `resume`.

    Not thread-safe. Never raises OSError and blocks on the disk alone: a line that can't be written leaves a gap in
    `seq` and is counted in `dropped_lines`.
    """

    def __init__(self, path: str, clock: RunClock, *, mode: int = 0o600, max_bytes: int = 0) -> None:
        self.seq = 0
        self.dropped_lines = 0
        self.deadline: float | None = None
        self._path = path
        self._timestamps = Timestamps(clock)
        self._file = Appender(path, mode=mode, max_bytes=max_bytes)
        self._pending = b""
        self._part = 0  # pieces of the current line written so far
        self._dropped_through = 0
        self._gathered: list[bytes] = []  # records not yet handed to the file; empty between two calls

    def resume(self) -> None:
        """Go on after the last record of the log."""
        with suppress(OSError), Snapshot.open(self._path) as snapshot:
            self._continue_after(snapshot.last_record())

    @property
    def faults(self) -> int:
        """Return how often something could not be written."""
        return self.dropped_lines + self._file.failed_writes

    @property
    def failed_writes(self) -> int:
        """Return how many writes lost records."""
        return self._file.failed_writes

    def feed(self, data: bytes) -> None:
        """Write the complete lines of one read's data under one timestamp, and buffer the rest."""
        if len(self._pending) + len(data) <= LINE_LIMIT:
            newline = data.find(b"\n")
            if newline < 0:
                self._pending += data
                self._await_rest()
                return
            if newline + 1 == len(data) and not self._part:
                self._write_line(self._pending + data[:-1])
                self._pending, self.deadline = b"", None
                return
        timestamp = self._timestamps.now()
        # Only the line that was begun is joined: to copy all that was read would cost as much as writing it.
        begun = (data.find(b"\n") + 1 or len(data)) if self._pending else 0
        line = self._pending + data[:begun]
        taken = self._take(line, 0, timestamp)
        self._pending = line[taken:]
        if begun < len(data):
            unfinished = self._take(data, begun, timestamp)
            taken += unfinished
            self._pending = data[unfinished:]
        self._write_gathered()
        if taken:
            self.deadline = None
        if self._pending:
            self._await_rest()

    def _await_rest(self) -> None:
        """Have the unfinished line written as a piece unless its rest comes soon."""
        if self.deadline is None:
            self.deadline = time.monotonic() + UNFINISHED_TIMEOUT

    def _write_line(self, line: bytes) -> None:
        """Write one line that came by itself, as those of a slow command do.

        In its few microseconds hardly anything is in the processor's caches, so each call that is spared counts.
        """
        self.seq += 1
        self._gathered.append(encode(Record(self.seq, self._timestamps.now(), show(line))))
        self._write_gathered()

    def flush_due(self, now: float) -> None:
        """Write a piece of the unfinished line if its deadline has passed at the monotonic instant `now`.

        An incomplete character at the end waits for its rest.
        """
        if self.deadline is None or now < self.deadline:
            return
        self.deadline = None
        self._pending = self._pending[self._write_piece(self._pending, self._timestamps.now()) :]

    def finish(self) -> None:
        """Write the unfinished line, if there is one, once the output has ended."""
        if self._pending or self._part:
            self._write_lines(self._pending + b"\n", 0, len(self._pending) + 1, self._timestamps.now())
            self._write_gathered()
        self._pending = b""
        self.deadline = None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _continue_after(self, record: Record | None) -> None:
        if record is None:
            return
        self.seq = record.seq
        self._part = max(1, record.part) if record.partial else 0
        with suppress(ValueError):
            self._timestamps.go_on_after(record.timestamp)

    def _take(self, output: bytes, start: int, timestamp: str) -> int:
        """Write whole lines from `start` on, and pieces of a too long one; return where the unfinished line begins."""
        while True:
            if (end := _end_of_lines(output, start)) > start:
                self._write_lines(output, start, end, timestamp)
                start = end
            elif len(output) - start > LINE_LIMIT:
                start += self._write_piece(output[start : start + LINE_LIMIT], timestamp)
            else:
                return start

    def _write_lines(self, output: bytes, start: int, end: int, timestamp: str) -> None:
        """Write the whole lines in `output[start:end]`, of which the first may be the last piece of the current one."""
        if self._part:
            newline = output.index(b"\n", start)
            self._gather(encode(Record(self.seq, timestamp, show(output[start:newline]), self._part + 1)))
            self._part = 0
            start = newline + 1
        for records, count in encode_lines(self.seq + 1, timestamp, output, start, end):
            self.seq += count
            self._gather(records)

    def _write_piece(self, data: bytes, timestamp: str) -> int:
        """Write a piece of the current line; return how much of `data` it took, all but an incomplete character."""
        taken = whole_characters(data)
        if not taken:
            return 0
        self._write_gathered()
        if not self._part:
            self.seq += 1
        self._part += 1
        self._gather(encode(Record(self.seq, timestamp, show(data[:taken]), self._part, partial=True)))
        self._write_gathered()
        return taken

    def _gather(self, records: bytes) -> None:
        """Buffer records for the next write; their numbers are contiguous and end with `seq`."""
        self._gathered.append(records)
        if sum(map(len, self._gathered)) >= WRITE_SIZE:
            self._write_gathered()

    def _write_gathered(self) -> None:
        """Write the buffered records; a line counts as dropped once, however many its pieces."""
        if not self._gathered:
            return
        lost = self._file.append(self._gathered)
        self._gathered.clear()
        if lost:
            first = max(self.seq - lost, self._dropped_through)
            self.dropped_lines += self.seq - first
            self._dropped_through = self.seq


def _end_of_lines(output: bytes, start: int) -> int:
    """Return where the complete lines from `start` on end, before one that is too long; `start` when there are none."""
    while (newline := output.rfind(b"\n", start, start + LINE_LIMIT + 1)) >= 0:
        start = newline + 1
    return start
