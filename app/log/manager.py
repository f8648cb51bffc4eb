"""The service's half of the log: make a run's log file, and read any run's."""

import time
from typing import Any

from app.exceptions import BadRequestError, NotFoundError
from app.log.clock import RunClock, format_time
from app.log.page import LogPage
from app.log.snapshot import Snapshot
from app.runs.directory import LogDirectory

__all__ = ["LogManager", "LogPage"]

_NS = 1_000_000_000
# How far from a log's end lines are looked for before its page is opened: some milliseconds at most. What is not found
# there makes a page of more than this, which finds its own beginning when it is read.
_NEAR = 1024 * 1024


class LogManager(LogDirectory):
    """Create log files in one directory and read them; any number of threads may."""

    def open_page(
        self,
        log_file: str,
        lines: int | None = None,
        seconds: float | None = None,
        clock: RunClock | None = None,
    ) -> LogPage:
        """Open the last `lines` lines, those of the last `seconds` seconds by `clock` (None: wall clock), or all.

        `lines=0` means all, `seconds=0` none. Costs what is returned, not what the log holds, and little until the page
        is read.
        """
        _check(lines, seconds)
        try:
            snapshot = Snapshot.open(log_file)
        except (FileNotFoundError, NotADirectoryError):
            msg = f"The log file {log_file} is gone: start the command again to get a new one."
            raise NotFoundError(msg) from None
        start: int | None
        try:
            if seconds is not None:
                start, reaches_back = _since(snapshot, seconds, clock)
            else:
                start, reaches_back = _last(snapshot, lines or 0)
            return LogPage(log_file, snapshot, start, reaches_back=reaches_back, lines=lines or 0)
        except BaseException:
            snapshot.close()
            raise

    def read_logs(self, log_file: str, lines: int | None = None, seconds: float | None = None) -> dict[str, Any]:
        """Return a page as one dictionary, all of it in memory; `open_page` says what the arguments mean."""
        with self.open_page(log_file, lines, seconds) as page:
            content = "".join(page.texts())
            return {
                "log_file": page.log_file,
                "total_lines": page.total_lines,
                "lines_returned": page.lines_returned,
                "content": content,
            }


def _check(lines: int | None, seconds: float | None) -> None:
    if lines is not None and seconds is not None:
        msg = "Give either lines or seconds, not both."
        raise BadRequestError(msg, {"seconds": ["Not together with lines."]})
    for name, value in (("lines", lines), ("seconds", seconds)):
        if value is not None and not value >= 0:  # so written, it refuses NaN too
            msg = f"Give {name} as a number of at least 0."
            raise BadRequestError(msg, {name: ["Must be at least 0."]})


def _last(snapshot: Snapshot, lines: int) -> tuple[int | None, bool]:
    """Return where the last lines begin, None when that is not near, and whether more were asked for than there are.

    There are no more lines than numbers from the first to the last, so that a larger number of them needs no counting.
    """
    if not lines:
        return 0, True
    if (start := snapshot.start_of_last(lines, _NEAR)) is not None:
        return start, False
    first, last = snapshot.record_from(0), snapshot.last_record()
    most = last.seq - first[2].seq + 1 if first and last else 0
    if snapshot.size <= _NEAR or lines > most:
        return 0, True
    return (0, False) if lines == most and first and first[2].seq == 1 else (None, False)


def _since(snapshot: Snapshot, seconds: float, clock: RunClock | None) -> tuple[int, bool]:
    """Return where the lines of the last seconds begin, and whether some of them may have been before the first.

    A line in pieces is as young as its last piece, and begins with its first. Times compare as text, being all of one
    form.
    """
    if not seconds:
        return snapshot.size, False
    now = clock.now_ns() if clock else time.time_ns()
    cutoff = format_time(now - int(min(seconds * _NS, now)))
    start = snapshot.find_first(lambda record: record.timestamp >= cutoff)
    found = snapshot.record_from(start)
    if found is not None and (young := found[2]).part > 1:
        start = snapshot.find_first(lambda record: record.seq >= young.seq)
    first = snapshot.record_from(0)
    return start, first is not None and start == first[0]
