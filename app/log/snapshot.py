"""A log's bytes as they are at one moment, over both of its segments, and how to find a record among them."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from errno import ELOOP
from io import FileIO
from stat import S_ISREG

from app.log.record import RECORD_LIMIT, Record, count_whole_lines, decode, decode_block

_BLOCK = 64 * 1024  # the allocator maps what is larger than 128 KiB anew for each use, page by page
_PROBE = 8 * 1024
_USUAL_RECORD = 256
_LEAST_RECORD = 62  # an empty line's: a block that may hold the line sought is decoded in any case


def older_segment(path: str) -> str:
    """Return the path of the segment that a capped log was last rotated to: `run.log` has `run.1.log`."""
    stem, extension = os.path.splitext(path)  # noqa: PTH122  the shim does without pathlib
    return f"{stem}.1{extension}"


class Snapshot:
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
        """Open the log's segments as they belong together; raise FileNotFoundError when there is no log.

        The writer gives a log its second name before it puts a fresh one in its place, so a log that still has its
        name after the older segment was opened is that segment's successor.
        """
        while True:
            with ExitStack() as files:
                newer = files.enter_context(_open_regular(path))
                older = _open_if_there(older_segment(path))
                if older is not None:
                    files.enter_context(older)
                if not os.path.samestat(os.fstat(newer.fileno()), os.stat(path)):  # noqa: PTH116  as above
                    continue
                snapshot = cls(_distinct(older, newer))
                files.pop_all()
                return snapshot

    def close(self) -> None:
        """Give the file descriptors back; harmless when done already."""
        for _, _, file in self._segments:
            file.close()

    def __enter__(self) -> "Snapshot":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end`; fewer when a stranger truncated the log meanwhile."""
        data = b""
        for first, last, file in self._segments:
            lower, upper = max(start, first), min(end, last)
            if lower < upper:
                piece = os.pread(file.fileno(), upper - lower, lower - first)
                data = data + piece if data else piece
                if len(piece) < upper - lower:
                    break
        return data

    def blocks(self, start: int, size: int = _BLOCK) -> Iterator[tuple[int, bytes]]:
        """Yield whole lines from the offset `start` on, in blocks behind their offsets.

        The first block has about `size` bytes, later ones grow to 64 KiB. A line longer than any record is dropped, so
        that memory stays bounded in a file of garbage.
        """
        rest = b""
        while data := self.read(start, min(start + size, self.size)):
            start += len(data)
            size = min(size * 2, _BLOCK)
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
        """Yield whole lines from the end of the log to its beginning, in blocks behind their offsets.

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
            size = max(size, min(size * 2, _BLOCK))

    def find_first(self, reached: Callable[[Record], bool]) -> int:
        """Return the offset of the first record for which `reached` is true, by bisection; the log's size if none is.

        Once true it must stay true to the end, as it does for a bound on `seq` or `timestamp`.
        """
        low, high = 0, self.size
        while low < high:
            middle = (low + high) // 2
            found = self.record_from(middle, high)
            if found is None or reached(found[2]):
                high = middle
            else:
                low = found[1]
        found = self.record_from(low)
        return self.size if found is None else found[0]

    def record_from(self, offset: int, limit: int | None = None) -> tuple[int, int, Record] | None:
        """Return beginning, end and record of the first one that begins at `offset` or later, and before `limit`."""
        limit = self.size if limit is None else limit
        for base, block in self.blocks(max(0, offset - 1), _PROBE):
            start = base
            for line in block.split(b"\n"):
                end = start + len(line) + 1
                if start >= limit:
                    return None
                if start >= offset and (record := decode(line)) is not None:
                    return start, end, record
                start = end
        return None

    def last_record(self) -> Record | None:
        """Return the last record, or None when there is none."""
        for _, block in self.blocks_backward(_PROBE):
            if records := decode_block(block):
                return records[-1]
        return None

    def start_of_last(self, count: int, reach: int | None = None) -> int | None:
        """Return where the last `count` lines begin, or None when there are fewer in the last `reach` bytes, or in all.

        Counts what is there: numbers have gaps where a disk was full. A block is decoded only where its lines can't be
        counted without, and where the first one asked for lies; other threads get their turn while the next is read.
        """
        oldest = 0
        for offset, block in self.blocks_backward(min(max(count * _USUAL_RECORD, _PROBE), _BLOCK)):
            counted = count_whole_lines(block) if count > len(block) // _LEAST_RECORD else None
            if counted is not None and counted[1] < count:
                oldest, lines = counted
                count -= lines
            else:
                records = decode_block(block)
                seqs = sorted({record.seq for record in records} - {oldest})
                if len(seqs) >= count:
                    return self._start_of(seqs[-count], offset, block, records)
                if seqs:
                    count -= len(seqs)
                    oldest = seqs[0]
            if reach is not None and self.size - offset >= reach:
                return None
        return None

    def _start_of(self, seq: int, offset: int, block: bytes, records: list[Record]) -> int:
        """Return where the line `seq` begins, of which a record is in this block.

        Found by counting lines from the block's end; by bisection where something there is no record, or where the line
        begins before the block.
        """
        behind = sum(record.seq >= seq for record in records)
        head, *tail = block.rsplit(b"\n", behind + 1)
        first = decode(tail[0]) if len(tail) > behind else decode(head)
        if first is None or first.seq != seq or first.part > 1:
            return self.find_first(lambda record: record.seq >= seq)
        return offset + (len(head) + 1 if len(tail) > behind else 0)


def _open_regular(path: str) -> FileIO:
    """Open a log; what somebody put in its place must not hold the reader up, nor show another file: it is no log."""
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


def _open_if_there(path: str) -> FileIO | None:
    try:
        return _open_regular(path)
    except FileNotFoundError:
        return None


def _distinct(older: FileIO | None, newer: FileIO) -> list[FileIO]:
    """Return the segments, oldest first; in the middle of a rotation both names are one file."""
    if older is None:
        return [newer]
    if os.path.samestat(os.fstat(older.fileno()), os.fstat(newer.fileno())):
        older.close()
        return [newer]
    return [older, newer]
