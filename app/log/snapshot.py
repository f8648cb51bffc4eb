"""Runs in every process of ours: a log's bytes at one moment, over both of its segments, and the records in them."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from errno import ELOOP
from io import FileIO
from stat import S_ISREG

from app.log.record import RECORD_LIMIT, Record, decode_block

BLOCK = 64 * 1024  # the allocator maps what is larger than 128 KiB anew for each use, page by page
PROBE = 8 * 1024


def older_segment(path: str) -> str:
    """Return the path that a capped log is rotated to: `run.1.log` for `run.log`."""
    stem, extension = os.path.splitext(path)
    return f"{stem}.1{extension}"


def size_of(path: str) -> int:
    """Return the size of a log, both segments, as far as they are there."""
    size = 0
    for segment in (path, older_segment(path)):
        with suppress(OSError):
            size += os.stat(segment).st_size
    return size


class Snapshot(AbstractContextManager["Snapshot"]):
    """Read a log as one array of bytes that no append, rotation or removal changes.

    Close it, or use it in a `with` statement. Not for two threads at once.
    """

    def __init__(self, files: list[FileIO]) -> None:
        self._segments: list[tuple[int, int, FileIO]] = []
        self.size = 0
        for file in files:
            end = self.size + os.fstat(file.fileno()).st_size
            self._segments.append((self.size, end, file))
            self.size = end

    @classmethod
    def open(cls, path: str) -> "Snapshot":
        """Open both segments of the log as of one moment; raise FileNotFoundError when there is no log.

        The writer links a log to its second name before it renames a fresh one into its place, so a log that still has
        its name after the older segment was opened is the one that follows that segment.
        """
        while True:
            with ExitStack() as files:
                newer = files.enter_context(_open_regular(path))
                older = _open_older(path, newer)
                segments = [newer] if older is None else [files.enter_context(older), newer]
                if not os.path.samestat(os.fstat(newer.fileno()), os.stat(path)):
                    continue
                snapshot = cls(segments)
                files.pop_all()
                return snapshot

    def close(self) -> None:
        """Close the files; harmless when they are closed already."""
        for _, _, file in self._segments:
            file.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end`; fewer when another program truncated the log meanwhile."""
        data = b""
        for first, last, file in self._segments:
            lower, upper = max(start, first), min(end, last)
            if lower < upper:
                piece = os.pread(file.fileno(), upper - lower, lower - first)
                data = data + piece if data else piece
                if len(piece) < upper - lower:
                    break
        return data

    def blocks(self, start: int, size: int = BLOCK) -> Iterator[tuple[int, bytes]]:
        """Yield whole lines from the offset `start` on, as offsets and blocks.

        The first block has about `size` bytes, later ones grow to 64 KiB. A line longer than any record is dropped, so
        that memory stays bounded in a file of garbage.
        """
        rest = b""
        while data := self.read(start, min(start + size, self.size)):
            start += len(data)
            size = min(size * 2, BLOCK)
            cut = data.rfind(b"\n") + 1
            if cut:
                yield start - len(data) - len(rest), rest + data[:cut]
                rest = data[cut:]
            elif len(rest) < RECORD_LIMIT:
                rest += data
            else:
                rest = b""
        if rest:
            yield start - len(rest), rest

    def blocks_backward(self, size: int) -> Iterator[tuple[int, bytes]]:
        """Yield whole lines from the end of the log to its beginning, as offsets and blocks.

        Blocks have about `size` bytes first and grow to 64 KiB, or as far as one line takes.
        """
        end = self.size
        while end > 0:
            start = max(0, end - size)
            data = self.read(start, end)
            cut = 0 if start == 0 else data.find(b"\n") + 1
            whole = start == 0 or 0 < cut < len(data)
            if not whole and size < RECORD_LIMIT:
                size *= 2
                continue
            if whole:
                yield start + cut, data[cut:]
            end = start + cut if whole else start
            size = max(size, min(size * 2, BLOCK))

    def last_record(self) -> Record | None:
        """Return the last record, or None when there is none."""
        for _, block in self.blocks_backward(PROBE):
            if records := decode_block(block):
                return records[-1]
        return None


def _open_regular(path: str) -> FileIO:
    """Open a log, which is a regular file: a FIFO in its place must not block the reader, nor a link show another."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno != ELOOP:  # a link (open(2))
            raise
        raise FileNotFoundError(path) from error
    file = FileIO(fd)
    if not S_ISREG(os.fstat(fd).st_mode):
        file.close()
        raise FileNotFoundError(path)
    return file


def _open_older(path: str, newer: FileIO) -> FileIO | None:
    """Open the older segment; None where there is none or, in the middle of a rotation, both names are one file."""
    try:
        older = _open_regular(older_segment(path))
    except FileNotFoundError:
        return None
    if os.path.samestat(os.fstat(older.fileno()), os.fstat(newer.fileno())):
        older.close()
        return None
    return older
