"""The path of a line from write(2) to the caller, step by step: what each costs."""

import fcntl
import os
import socket
import tempfile
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from json.encoder import encode_basestring
from pathlib import Path

from app.linux.libc import keep_buffers
from app.log.clock import RunClock, format_time
from app.log.quoting import quote
from app.log.record import decode_block, encode_lines
from app.log.snapshot import Snapshot
from app.reading.page import LogPage
from app.reading.reader import LogManager
from app.shim.appender import Appender
from app.shim.log_writer import LogWriter
from app.shim.stdio import PIPE_SIZE, READ_SIZE
from bench.table import Row
from bench.timing import timed

LINE = b"x" * 107 + b"\n"
LINES = READ_SIZE // len(LINE)
BLOCK = LINE * LINES
SEQ = 1_000_000  # in the midst of a flood
STDIO = 4096
REPEATS = 50


def measure() -> list[Row]:
    """Time each step for as many lines as one read takes, without the wake-ups and the waiting in between."""
    with tempfile.TemporaryDirectory(prefix="llm-shell-bench-") as base:
        log = Path(LogManager(Path(base) / "logs").create_log_file())
        LogWriter(str(log), RunClock.start()).feed(BLOCK)
        read = _reading(log)
        keep_buffers()  # as in a shim, and not in the worker, which reads
        written = _writing(Path(base))
    return [*_rows("a line of 108 bytes, written", written), *_rows("the same line, read", read), _escaping()]


def _rows(case: str, costs: dict[str, float]) -> list[Row]:
    total = sum(costs.values())
    return [Row(case, step, f"{cost / LINES * 1e9:.0f} ns", f"{cost / total:.0%}") for step, cost in costs.items()]


def _escaping() -> Row:
    """Compare the encoder that is in use with the one that every system has."""
    lines = BLOCK[: 64 * 1024]  # as many as are escaped at once
    ours = _best(lambda: quote(lines)) / len(lines) * len(LINE)
    usual = _best(lambda: encode_basestring(lines.decode("latin-1")).encode("latin-1")) / len(lines) * len(LINE)
    readings = f"{ours * 1e9:.0f} ns / {usual * 1e9:.0f} ns"
    return Row("the same line, escaped", "encoder in use / the standard library's", f"{ours / usual:.2f}", readings)


def _writing(folder: Path) -> dict[str, float]:
    """Return the seconds that each step from the command to the log takes."""
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    appender = Appender(str(folder / "appended"), mode=0o600, max_bytes=0)
    now = format_time(RunClock.start().now_ns())
    records = [block for block, _count in encode_lines(SEQ, now, BLOCK, 0, len(BLOCK))]
    writer = LogWriter(str(folder / "fed"), RunClock.start())

    def through_the_pipe() -> None:
        for start in range(0, len(BLOCK), STDIO):
            os.write(writing, BLOCK[start : start + STDIO])
        os.read(reading, READ_SIZE)

    encoding = _best(lambda: deque(encode_lines(SEQ, now, BLOCK, 0, len(BLOCK)), 0))
    appending = _best(lambda: appender.append(records))
    costs = {
        f"write(2) by {STDIO // 1024} KiB into the pipe, one read(2)": _best(through_the_pipe),
        "escaped, framed, numbered": encoding,
        "writev(2) into the page cache": appending,
        "the rest of what the writer does": _best(lambda: writer.feed(BLOCK)) - encoding - appending,
    }
    writer.close()
    appender.close()
    os.close(reading)
    os.close(writing)
    return costs


def _reading(log: Path) -> dict[str, float]:
    """Return the seconds that each step from the log to the caller takes."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def page() -> list[bytes]:
        with LogPage(str(log), Snapshot.open(str(log)), 0, reaches_back=False) as whole:
            return list(whole.chunks())

    answer = b"".join(page())[:65536]

    def send() -> None:
        ours.sendall(answer)
        theirs.recv(len(answer))

    # What each adds to the one before.
    upto = [0.0, _best(lambda: _read(log, len)), _best(lambda: _read(log, decode_block)), _best(page)]
    read, decoded, escaped = (after - before for before, after in pairwise(upto))
    costs = {
        "pread(2) from the page cache": read,
        "JSON becomes records": decoded,
        "records become the text of the answer": escaped,
        "send(2) and recv(2)": _best(send) * len(BLOCK) / len(answer),
    }
    ours.close()
    theirs.close()
    return costs


def _read(log: Path, take: Callable[[bytes], object]) -> None:
    """Do something with each block of the log, as a reader does."""
    with Snapshot.open(str(log)) as snapshot:
        for _offset, block in snapshot.blocks(0):
            take(block)


def _best(step: Callable[[], object]) -> float:
    """Return the least time of many: what comes on top of it is the machine's."""
    return min(timed(step) for _ in range(REPEATS))
