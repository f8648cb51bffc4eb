"""Runs in the shim: move a run's output from its pipe into its log."""

import contextlib
import fcntl
import os
import termios

from app.shim.log_writer import LogWriter

# Half a pipe: a writer that is woken because there is room again can write until the next read.
READ_SIZE = 512 * 1024
# The most that an unprivileged user may set (/proc/sys/fs/pipe-max-size): fewer wake-ups, and room while an
# understudy takes over.
PIPE_SIZE = 1024 * 1024


class OutputPipe:
    """Move the run's output; `open` until every writer has closed the pipe, or `close` was called."""

    def __init__(self, pipe: int, writer: LogWriter) -> None:
        self.fd: int | None = pipe
        self._writer = writer
        os.set_blocking(pipe, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    @property
    def open(self) -> bool:
        """Tell whether more output may come."""
        return self.fd is not None

    def move(self) -> int:
        """Move one read's data; return its length, 0 when the pipe is empty or at its end, which closes it."""
        if self.fd is None:
            return 0
        try:
            data = os.read(self.fd, READ_SIZE)
        except BlockingIOError:
            return 0
        if data:
            self._writer.feed(data)
        else:
            self.close()
        return len(data)

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
        self._writer.finish()

    def _waiting(self) -> int:
        """Return how many bytes the pipe holds (FIONREAD, pipe(7))."""
        if self.fd is None:
            return 0
        buffer = bytearray(4)
        fcntl.ioctl(self.fd, termios.FIONREAD, buffer)
        return int.from_bytes(buffer, "little")
