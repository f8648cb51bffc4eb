"""Runs in the worker: find a record in a log without reading it all."""

import time
from collections.abc import Callable

from app.log.clock import RunClock, format_time
from app.log.record import Record, count_whole_lines, decode, decode_block
from app.log.snapshot import BLOCK, PROBE, Snapshot

_USUAL_RECORD = 256
_LEAST_RECORD = 62  # an empty line's: a block that may contain the line sought is decoded in any case
_NS = 1_000_000_000
# How far from a log's end the first line is searched for before a page is opened: some milliseconds at most. A page
# that begins further back finds its beginning when it is read.
_NEAR = 1024 * 1024


def last_lines(snapshot: Snapshot, lines: int) -> tuple[int | None, bool]:
    """Return where the last lines begin, None when that is not near, and whether more were asked for than there are.

    There are no more lines than numbers from the first to the last, so a larger `lines` needs no counting.
    """
    if not lines:
        return 0, True
    if (start := start_of_last(snapshot, lines, _NEAR)) is not None:
        return start, False
    first, last = record_from(snapshot, 0), snapshot.last_record()
    most = last.seq - first[2].seq + 1 if first and last else 0
    if snapshot.size <= _NEAR or lines > most:
        return 0, True
    return (0, False) if lines == most and first and first[2].seq == 1 else (None, False)


def lines_since(snapshot: Snapshot, seconds: float, clock: RunClock | None) -> tuple[int, bool]:
    """Return where the lines of the last seconds begin, and whether some of them may no longer be kept.

    A line in pieces has the time of its last piece, and begins with its first. Times compare as text.
    """
    if not seconds:
        return snapshot.size, False
    now = clock.now_ns() if clock else time.time_ns()
    cutoff = format_time(now - int(min(seconds * _NS, now)))
    start = find_first(snapshot, lambda record: record.timestamp >= cutoff)
    found = record_from(snapshot, start)
    if found is not None and (young := found[2]).part > 1:
        start = find_first(snapshot, lambda record: record.seq >= young.seq)
    first = record_from(snapshot, 0)
    return start, first is not None and start == first[0]


def find_first(snapshot: Snapshot, reached: Callable[[Record], bool]) -> int:
    """Return the offset of the first record for which `reached` is true, by bisection; the log's size if none is.

    Once true it must stay true to the end, as it does for a bound on `seq` or `timestamp`.
    """
    low, high = 0, snapshot.size
    while low < high:
        middle = (low + high) // 2
        found = record_from(snapshot, middle, high)
        if found is None or reached(found[2]):
            high = middle
        else:
            low = found[1]
    found = record_from(snapshot, low)
    return snapshot.size if found is None else found[0]


def record_from(snapshot: Snapshot, offset: int, limit: int | None = None) -> tuple[int, int, Record] | None:
    """Return beginning, end and content of the first record that begins at `offset` or later, and before `limit`."""
    limit = snapshot.size if limit is None else limit
    for base, block in snapshot.blocks(max(0, offset - 1), PROBE):
        start = base
        for line in block.split(b"\n"):
            end = start + len(line) + 1
            if start >= limit:
                return None
            if start >= offset and (record := decode(line)) is not None:
                return start, end, record
            start = end
    return None


def start_of_last(snapshot: Snapshot, count: int, reach: int | None = None) -> int | None:
    """Return where the last `count` lines begin, or None when there are fewer in the last `reach` bytes, or in all.

    Counts lines, not numbers, which have gaps where a disk was full. A block is decoded only where its lines can't be
    counted otherwise, and where the first one asked for lies; pread(2) of the next one lets other threads run.
    """
    oldest = 0
    for offset, block in snapshot.blocks_backward(min(max(count * _USUAL_RECORD, PROBE), BLOCK)):
        counted = count_whole_lines(block) if count > len(block) // _LEAST_RECORD else None
        if counted is not None and counted[1] < count:
            oldest, lines = counted
            count -= lines
        else:
            records = decode_block(block)
            seqs = sorted({record.seq for record in records} - {oldest})
            if len(seqs) >= count:
                return _start_of(snapshot, seqs[-count], offset, block, records)
            if seqs:
                count -= len(seqs)
                oldest = seqs[0]
        if reach is not None and snapshot.size - offset >= reach:
            return None
    return None


def _start_of(snapshot: Snapshot, seq: int, offset: int, block: bytes, records: list[Record]) -> int:
    """Return where the line `seq` begins, of which a record is in this block.

    Found by counting lines from the block's end; by bisection where a line there holds no record, or where the line
    `seq` begins before the block.
    """
    behind = sum(record.seq >= seq for record in records)
    head, *tail = block.rsplit(b"\n", behind + 1)
    first = decode(tail[0]) if len(tail) > behind else decode(head)
    if first is None or first.seq != seq or first.part > 1:
        return find_first(snapshot, lambda record: record.seq >= seq)
    return offset + (len(head) + 1 if len(tail) > behind else 0)
