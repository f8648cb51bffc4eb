"""Runs in the worker: locks that allow one start or restart at a time, and kills at any time."""

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator

from app.exceptions import InternalError
from app.reading.reader import LogManager
from app.supervisor.refusals import busy


class Operations:
    """Allow one operation at a time, among the threads of this worker and among overlapping workers.

    Thread-safe; an operation that is tried meanwhile is refused with `ConflictError`.
    """

    def __init__(self, logs: LogManager) -> None:
        self._logs = logs
        self._busy = threading.Lock()
        self._doing = ""
        self._counting = threading.Lock()
        self._kills = 0

    @contextlib.contextmanager
    def operation(self, name: str) -> Iterator[None]:
        """Hold the locks for one operation; the refusal of a further one names it."""
        if not self._busy.acquire(blocking=False):
            raise busy(self._doing)
        try:
            if self._kills:
                raise busy("kill")
            self._doing = name
            with self._lock_file():
                yield
        finally:
            self._busy.release()

    @contextlib.contextmanager
    def kill(self) -> Iterator[None]:
        """Have operations refused while a kill is under way; several kills may be, and join each other."""
        with self._counting:
            self._kills += 1
        try:
            yield
        finally:
            with self._counting:
                self._kills -= 1

    @contextlib.contextmanager
    def _lock_file(self) -> Iterator[None]:
        self._logs.make_directory()
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(self._logs.log_dir / ".lock", flags, 0o600)
        except OSError as error:
            raise InternalError(f"The log directory can't be used: {error.strerror}.") from error
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy("of another worker") from None
            yield
        finally:
            os.close(fd)
