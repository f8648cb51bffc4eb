"""The service's half of the log: make a run's log file, and read any run's."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from itertools import count
from pathlib import Path
from stat import S_IMODE
from threading import Lock
from typing import Any

from app.exceptions import BadRequestError, InternalError, NotFoundError
from app.log import retention
from app.log.clock import RunClock, format_time
from app.log.page import LogPage
from app.log.snapshot import Snapshot, older_segment

__all__ = ["LogManager", "LogPage"]

_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NS = 1_000_000_000
# How far from a log's end lines are looked for before its page is opened: some milliseconds at most. What is not found
# there makes a page of more than this, which finds its own beginning when it is read.
_NEAR = 1024 * 1024


class LogManager:
    """Create log files in one directory and read them; any number of threads may.

    The directory is made when missing, whenever that is noticed. `group_read` opens it and the logs to its group.
    """

    def __init__(self, log_dir: str | Path = "logs", *, group_read: bool = False) -> None:
        self.log_dir = Path(log_dir).absolute()
        self.file_mode = 0o640 if group_read else 0o600
        self._directory_mode = 0o750 if group_read else 0o700
        self._naming = Lock()
        self._newest: tuple[str, int] | None = None  # second and number of the newest name; None: not looked up yet
        self.make_directory()

    def create_log_file(self) -> str:
        """Create an empty log named after the present second in UTC; return its absolute path."""
        self.make_directory()
        second = time.strftime("%Y-%m-%d_%H-%M-%S", time.gmtime())
        return self._claim(self.log_dir / f"{second}.log", self._next_number(second))

    def claim_log_file(self, path: str | Path) -> str:
        """Create an empty log at `path`, or beside it as `…_2`, `…_3` where that is taken; return its absolute path."""
        wanted = Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow a symbolic link
        if wanted.parent == self.log_dir:
            self.make_directory()
        else:
            with self.explained(wanted.parent):
                wanted.parent.mkdir(parents=True, exist_ok=True)
        return self._claim(wanted)

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

    def prune(self, keep: int, in_use: Callable[[str], bool]) -> None:
        """Remove the oldest runs' files beyond the newest `keep` runs, but none that is `in_use`."""
        retention.prune(self.log_dir, keep, in_use)

    def make_directory(self) -> None:
        """Make the log directory if it is not there, with the mode it must have; raises `InternalError`."""
        with self.explained(self.log_dir):
            self.log_dir.mkdir(parents=True, exist_ok=True)
            found = self.log_dir.stat()
            if found.st_uid == os.geteuid() and S_IMODE(found.st_mode) != self._directory_mode:
                self.log_dir.chmod(self._directory_mode)

    @contextmanager
    def explained(self, path: Path) -> Iterator[None]:
        """Turn the system's refusal of a path into a sentence, which names the setting that it comes from."""
        try:
            yield
        except OSError as error:
            ours = self.log_dir in {path, path.parent}
            raise InternalError(f"{'LLM_SHELL_LOG_DIR: ' if ours else ''}{_explain(path, error)}") from error

    def _next_number(self, second: str) -> int:
        """Return a number beyond those of this second's runs, of which some may be gone already.

        A name is a run's for good, and tells its age. The directory, which may hold very many, is looked through only
        for the first name and while the clock is behind the newest one.
        """
        with self._naming:
            self._newest = newest_second, number = self._newest or retention.newest(self.log_dir)
            if second < newest_second:
                return retention.newest_number(self.log_dir, second) + 1
            number = number + 1 if second == newest_second else 1
            self._newest = second, number
            return number

    def _claim(self, wanted: Path, first: int = 1) -> str:
        """Create the file under the first name that no run has, be it by its log, its older segment or its record."""
        with self.explained(wanted):
            for number in count(first):
                path = wanted if number == 1 else wanted.with_stem(f"{wanted.stem}_{number}")
                if path.with_suffix(".json").exists() or os.path.lexists(older_segment(str(path))):
                    continue
                with suppress(FileExistsError):
                    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self.file_mode)
                    break
            with FileIO(fd):
                os.fchmod(fd, self.file_mode)  # whatever the umask
        return str(path)


def _explain(path: Path, error: OSError) -> str:
    if error.errno in {errno.EEXIST, errno.ENOTDIR}:
        in_the_way = next((place for place in (*reversed(path.parents), path) if _is_no_directory(place)), path)
        return f"{in_the_way} is {_kind(in_the_way)}, not a directory. Move it away, or name another directory."
    words = error.strerror or str(error)
    advice = " Name a directory that the service may write to." if error.errno in _FORBIDDEN else ""
    return f"{path} can't be made or used: {words}.{advice}"


def _kind(path: Path) -> str:
    if path.is_file():
        return "a file"
    return "a link that leads nowhere" if path.is_symlink() and not path.exists() else "something else"


def _is_no_directory(path: Path) -> bool:
    return os.path.lexists(path) and not path.is_dir()


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
