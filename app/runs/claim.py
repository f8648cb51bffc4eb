"""Runs in the master, or in a service without gunicorn: claim a log directory, which one service at a time uses."""

import contextlib
import fcntl
import logging
import os
import time
from pathlib import Path

from app.exceptions import ConflictError
from app.linux.proc import read_member

logger = logging.getLogger(__name__)
# How long a second service on the same directory waits for the first to end.
CLAIM_TIMEOUT = 5.0


def claim(log_dir: Path) -> int:
    """Take the directory's lock and return the descriptor that holds it; waits up to 5 s for another service to end.

    The lock belongs to an open file description (flock(2)) that forked workers share: it is free only when the last of
    them has ended, so a killed master's worker still holds it. Raises `ConflictError` and `OSError`.
    """
    fd = os.open(log_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if _lock_within(fd, 0.0):
        return fd
    holder = _holder(fd)
    logger.info("%s uses the log directory %s: waiting up to 5 s for it to go.", holder, log_dir)
    if _lock_within(fd, CLAIM_TIMEOUT):
        return fd
    os.close(fd)
    raise ConflictError(
        f"{holder} already uses the log directory {log_dir}: stop it, or set LLM_SHELL_LOG_DIR to another directory."
    )


def _lock_within(fd: int, timeout: float) -> bool:
    """Take an exclusive lock; False after `timeout` seconds. flock(2) has no timeout, so it is polled."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)  # flock(2) either waits without a bound or not at all, and no event tells that it is free
        else:
            return True


def _holder(fd: int) -> str:
    """Name the service that has the lock, by the pid that took it (proc_locks(5)) if that process still exists.

    After a master's death its worker holds the lock a moment longer.
    """
    status = os.fstat(fd)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == place and read_member(int(fields[4])) is not None:
                return f"Another service (pid {fields[4]})"
    return "Another service"
