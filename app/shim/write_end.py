"""Runs in the shim: keep a run's output blocking, although one program makes it non-blocking for all others."""

import contextlib
import fcntl
import math
import os
import time
from collections.abc import Callable, Iterable

from app.linux.libc import pidfd_getfd
from app.linux.pidfd import open_pidfd
from app.linux.proc import Identity, Member

# Seconds after which a process that holds the write end is searched again.
SEARCH_INTERVAL = 1.0


class WriteEnd:
    """Look at the flags of the output's write end through a process that holds it, and clear O_NONBLOCK.

    The flag belongs to the open file description (fcntl(2)), which the command shares with all that it starts: where
    one program sets it, the writes of the others fail with EAGAIN once the pipe is full (pipe(7)), and few programs
    repeat them. The shim can't keep a descriptor, since its output would never end then, so it borrows one for a moment
    (pidfd_getfd(2)), which takes the right to trace its holder. Never raises `OSError`.
    """

    def __init__(self, pipe: int, process: Identity, members: Callable[[], list[Member]]) -> None:
        self._inode = os.fstat(pipe).st_ino
        self._mark = b"ino:\t%d\n" % self._inode
        # An open file of `/proc/PID/fdinfo` can be read again at each look, for a sixth of the cost of opening it.
        self._fdinfo = self._pidfd = -1
        self._number = 1
        self._members = members
        self._search_at = 0.0
        self._blocking = b""  # what was read last that showed no O_NONBLOCK
        if _SHOWS_INODES:
            self._hold((process,))
        else:
            self._search_at = math.inf

    def keep_blocking(self) -> bool:
        """Clear O_NONBLOCK, where that is permitted; return whether it was set."""
        info = self._read()
        if info == self._blocking:
            return False
        flags = int(info.partition(b"flags:")[2].split(None, 1)[0], 8)
        if not flags & os.O_NONBLOCK:
            self._blocking = info
            return False
        self._clear()
        return True

    def close(self) -> None:
        """Close what leads to the process that holds the write end."""
        for fd in (self._fdinfo, self._pidfd):
            if fd >= 0:
                os.close(fd)
        self._fdinfo = self._pidfd = -1

    def _read(self) -> bytes:
        """Return what shows the flags, by default those of a pipe that blocks: no process is known to hold the end."""
        info = _pread(self._fdinfo)
        if self._mark in info:
            return info
        self.close()  # its holder has ended, or writes to another file now
        now = time.monotonic()
        if now < self._search_at:
            return self._blocking
        self._search_at = now + SEARCH_INTERVAL
        self._hold(member.identity for member in self._members())
        return _pread(self._fdinfo) or self._blocking

    def _hold(self, processes: Iterable[Identity]) -> None:
        """Keep what leads to the first of these that holds the write end as its standard output or error."""
        for identity in processes:
            for number in (1, 2):
                with contextlib.suppress(OSError):
                    self._fdinfo = os.open(f"/proc/{identity.pid}/fdinfo/{number}", os.O_RDONLY | os.O_CLOEXEC)
                if self._mark in _pread(self._fdinfo):
                    self._pidfd = open_pidfd(identity) or -1
                    self._number = number
                    self._clear()  # also since what runs for the first time takes ten times as long
                    return
                self.close()

    def _clear(self) -> None:
        with contextlib.suppress(OSError):
            fd = pidfd_getfd(self._pidfd, self._number)
            try:
                if os.fstat(fd).st_ino == self._inode:  # its holder may just have opened another file there
                    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_NONBLOCK)
            finally:
                os.close(fd)


def _pread(fd: int) -> bytes:
    try:
        return os.pread(fd, 256, 0)
    except OSError:
        return b""


def _shows_inodes() -> bool:
    """Tell whether `fdinfo` says which file a descriptor is of, as it does since Linux 5.14."""
    with contextlib.suppress(OSError), open("/proc/self/fdinfo/0", "rb") as file:
        return b"ino:" in file.read()
    return False


# Once, at the import: in each shim it would write to shared pages.
_SHOWS_INODES = _shows_inodes()
