"""Runs in the master and the worker: make the log directory when it is missing, and the log files of new runs."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from itertools import count
from pathlib import Path
from stat import S_IMODE
from threading import Lock

from app.exceptions import InternalError
from app.log.snapshot import older_segment
from app.runs.names import newest, newest_number

_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class LogDirectory:
    """Create log files in one directory. Thread-safe.

    The directory is made whenever it is found missing. `group_read` lets its group read it and the logs.
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
        wanted = Path(os.path.abspath(path))
        if wanted.parent == self.log_dir:
            self.make_directory()
        else:
            with self.explained(wanted.parent):
                wanted.parent.mkdir(parents=True, exist_ok=True)
        return self._claim(wanted)

    def make_directory(self) -> None:
        """Make the log directory if it is missing, and set its mode; raises `InternalError`."""
        with self.explained(self.log_dir):
            self.log_dir.mkdir(parents=True, exist_ok=True)
            found = self.log_dir.stat()
            if found.st_uid == os.geteuid() and S_IMODE(found.st_mode) != self._directory_mode:
                self.log_dir.chmod(self._directory_mode)

    @contextmanager
    def explained(self, path: Path) -> Iterator[None]:
        """Raise `InternalError` for an `OSError` about a path, naming the setting that the path comes from."""
        try:
            yield
        except OSError as error:
            ours = self.log_dir in {path, path.parent}
            raise InternalError(f"{'LLM_SHELL_LOG_DIR: ' if ours else ''}{_explain(path, error)}") from error

    def _next_number(self, second: str) -> int:
        """Return a number greater than those of this second's runs, of which some may be gone already.

        A name is never reused, and gives a run's age. The directory, which may be large, is listed only for the first
        name and while the clock is behind the newest one.
        """
        with self._naming:
            self._newest = newest_second, number = self._newest or newest(self.log_dir)
            if second < newest_second:
                return newest_number(self.log_dir, second) + 1
            number = number + 1 if second == newest_second else 1
            self._newest = second, number
            return number

    def _claim(self, wanted: Path, first: int = 1) -> str:
        """Create the file under the first name of which there is no log, older segment or record."""
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
        places = (*reversed(path.parents), path)
        obstacle = next((place for place in places if os.path.lexists(place) and not place.is_dir()), path)
        return f"{obstacle} is {_kind(obstacle)}, not a directory. Move it away, or name another directory."
    words = error.strerror or str(error)
    advice = " Name a directory that the service may write to." if error.errno in _FORBIDDEN else ""
    return f"{path} can't be made or used: {words}.{advice}"


def _kind(path: Path) -> str:
    if path.is_file():
        return "a file"
    return "a dangling link" if path.is_symlink() and not path.exists() else "something else"
