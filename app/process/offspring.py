"""The shim's children: every process of the tree is one, or will be one as soon as its own parent is gone."""

import os
import signal
from collections.abc import Iterator

from app.process.tree import Member, descendants


class Offspring:
    """Reap what ends and know when nobody is left, by event.

    The shim is a subreaper: a process whose parent ends becomes its child. So the tree is gone exactly when wait says
    that there is no child at all (ECHILD), and SIGCHLD announces every step towards it; `/proc` is never polled for
    that.
    """

    def __init__(self) -> None:
        self.fd, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        self.gone = False

    def ended(self) -> Iterator[tuple[int, int]]:
        """Yield pid and exit code (Python's convention) of each child that ended; it is reaped after the look."""
        self._clear()
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                self.gone = True
                return
            if info is None:
                return
            yield info.si_pid, info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
            os.waitid(os.P_PID, info.si_pid, os.WEXITED)

    def members(self) -> list[Member]:
        """Return every live process of the tree."""
        return descendants({os.getpid()})

    def _clear(self) -> None:
        try:
            while os.read(self.fd, 512):
                pass
        except BlockingIOError:
            return
