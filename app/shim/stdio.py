"""Runs in the shim: move a run's output from its pipe into its log."""

import contextlib
import fcntl
import os
import termios
import time

from app.linux.priority import Precedence
from app.shim.log_writer import LogWriter
from app.shim.write_end import WriteEnd

# Half a pipe: a writer that is woken because there is room again can write until the next read.
READ_SIZE = 512 * 1024
# The most that an unprivileged user may set (/proc/sys/fs/pipe-max-size): fewer wake-ups, and room while an
# understudy takes over.
PIPE_SIZE = 1024 * 1024
# Bytes of one read from which on more may follow faster than it is read (PIPE_BUF, pipe(7)).
BURST = 4096
# Seconds between two looks at the flags of a slow output's write end, of which each costs 3 us.
LOOK_INTERVAL = 0.25
# Seconds between two reads from which on the next output is waited for with precedence: it costs 3 us a time.
QUIET = 0.1


class OutputPipe:
    """Move the run's output; `open` until every writer has closed the pipe, or `close` was called."""

    def __init__(self, pipe: int, writer: LogWriter, write_end: WriteEnd) -> None:
        self.fd: int | None = pipe
        self.nonblocking = 0  # how often the pipe was about full while its write end did not block
        self._writer = writer
        self._write_end = write_end
        self._precedence = Precedence()
        self._look_at = 0.0
        self._read_at = 0.0
        self._quiet = True
        os.set_blocking(pipe, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        self._half = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) // 2

    @property
    def open(self) -> bool:
        """Tell whether more output may come."""
        return self.fd is not None

    def expect(self) -> None:
        """Prepare for a wait: output that comes after a while shall wake this process before it can fill the pipe."""
        if self._quiet and self.fd is not None:
            self._precedence.take()

    def attend(self) -> None:
        """Do first after a wait what is too late a little later: look at the write end."""
        if self._precedence.held:
            self._look(time.monotonic())
            self._precedence.leave()

    def move(self) -> int:
        """Move one read's data; return its length, 0 when the pipe is empty or at its end, which closes it."""
        if self.fd is None:
            return 0
        now = time.monotonic()
        looks = now >= self._look_at
        if looks:
            self._look(now)
        try:
            data = os.read(self.fd, READ_SIZE)
        except BlockingIOError:
            return 0
        if len(data) >= BURST:
            self._look_at = 0.0  # before the next read, when writers wait for room and none can fail meanwhile
            if not looks:
                self._look(now, len(data))
        self._quiet = len(data) < BURST and now - self._read_at >= QUIET
        self._read_at = now
        if data:
            self._writer.feed(data)
        else:
            self.close()
        return len(data)

    def _look(self, now: float, taken: int = 0) -> None:
        """Keep the write end blocking, and count it if programs may have lost output before `taken` bytes were read.

        Only reads make room, so that a pipe in which a write has failed still is full at the look before the next one.
        It then holds at least half its size, as a page takes a second write where it has room for it (pipe_write()).
        """
        self._look_at = now + LOOK_INTERVAL
        if self._write_end.keep_blocking() and taken + self._waiting() >= self._half:
            self.nonblocking += 1

    def drain(self) -> None:
        """Move the bytes in the pipe now: all that an ended process wrote, but not what other members write later."""
        if self.fd is None:
            return
        left = self._waiting()
        while left > 0 and (moved := self.move()):
            left -= moved
        if self.fd is not None and not self._waiting():
            self.move()  # sees the end of file, if there is one

    def show_unfinished(self) -> None:
        """Write the unfinished line now, before its deadline."""
        self._writer.flush_due(float("inf"))

    def close(self) -> None:
        """Stop reading, and write what was read."""
        if self.fd is None:
            return
        os.close(self.fd)
        self.fd = None
        self._precedence.leave()
        self._write_end.close()
        self._writer.finish()

    def _waiting(self) -> int:
        """Return how many bytes the pipe holds (FIONREAD, pipe(7))."""
        if self.fd is None:
            return 0
        buffer = bytearray(4)
        fcntl.ioctl(self.fd, termios.FIONREAD, buffer)
        return int.from_bytes(buffer, "little")
