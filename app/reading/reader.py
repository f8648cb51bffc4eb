"""Runs in the worker: open a page of any run's log."""

from app.exceptions import BadRequestError, NotFoundError
from app.log.clock import RunClock
from app.log.snapshot import Snapshot
from app.reading.page import LogPage
from app.reading.search import last_lines, lines_since
from app.runs.directory import LogDirectory


class LogManager(LogDirectory):
    """Create log files in one directory and read them. Thread-safe."""

    def open_page(
        self,
        log_file: str,
        lines: int | None = None,
        seconds: float | None = None,
        clock: RunClock | None = None,
    ) -> LogPage:
        """Open the last `lines` lines, those of the last `seconds` seconds by `clock` (None: wall clock), or all.

        `lines=0` means all, `seconds=0` none. The cost is that of the lines returned, not of the log, and is due when
        the page is read.
        """
        _check(lines, seconds)
        try:
            snapshot = Snapshot.open(log_file)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"The log file {log_file} is gone: start the command again to get a new one.") from None
        start: int | None
        try:
            if seconds is not None:
                start, reaches_back = lines_since(snapshot, seconds, clock)
            else:
                start, reaches_back = last_lines(snapshot, lines or 0)
            return LogPage(log_file, snapshot, start, reaches_back=reaches_back, lines=lines or 0)
        except BaseException:
            snapshot.close()
            raise


def _check(lines: int | None, seconds: float | None) -> None:
    if lines is not None and seconds is not None:
        raise BadRequestError("Give either lines or seconds, not both.", {"seconds": ["Not together with lines."]})
    for name, value in (("lines", lines), ("seconds", seconds)):
        if value is not None and not value >= 0:  # not `value < 0`, which is false for NaN
            raise BadRequestError(f"Give {name} as a number of at least 0.", {name: ["Must be at least 0."]})
