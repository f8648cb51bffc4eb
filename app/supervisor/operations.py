"""Runs in the worker: locks that allow one start or restart of a process at a time, and kills at any time."""

import contextlib
import fcntl
import hashlib
import os
import struct
import threading
from collections.abc import Iterator

from app.exceptions import InternalError
from app.reading.reader import LogManager
from app.runs.spec import DEFAULT_NAME
from app.supervisor.refusals import busy

# `struct flock` of 64-bit Linux: type, whence, start, length, pid (fcntl(2)).
_FLOCK = struct.Struct("@hhqqi4x")


class Operations:
    """Allow one operation on a process at a time, among the threads of this worker and among overlapping workers.

    Thread-safe; an operation that is tried meanwhile is refused with `ConflictError`.
    """

    def __init__(self, logs: LogManager, name: str) -> None:
        self._logs = logs
        self._name = name
        self._busy = threading.Lock()
        self._doing = ""
        self._counting = threading.Lock()
        self._kills = 0

    @contextlib.contextmanager
    def operation(self, name: str) -> Iterator[None]:
        """Hold the locks for one operation; the refusal of a further one names it."""
        if not self._busy.acquire(blocking=False):
            raise busy(self._doing, self._name)
        try:
            if self._kills:
                raise busy("kill", self._name)
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
                _lock(fd, self._name)
            except BlockingIOError:
                raise busy("of another worker", self._name) from None
            yield
        finally:
            os.close(fd)


def _lock(fd: int, name: str) -> None:
    """Lock what stands for a process in the one lock file; raises `BlockingIOError` where another worker has it.

    For `default` that is the file (flock(2)), as for workers of version 1. For another name it is a byte of the file,
    so that none has to be made for each, and a lock of the open file description (F_OFD_SETLK, fcntl(2)). The two kinds
    of lock do not see each other.
    """
    if name == DEFAULT_NAME:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0))
