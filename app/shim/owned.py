"""Runs in the shim: the owned tree, whose members are the shim's children, or become so when their parents end."""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterable, Iterator

from app.linux.pidfd import open_pidfd
from app.linux.proc import Identity, Member, children_of, members_below, read_member

# A descriptor each; the end of a member beyond these is noticed when another one ends.
MAX_WATCHED = 256


class OwnedTree:
    """Reap members as they end, and detect by event when none is left.

    The shim is a subreaper: a process whose parent ends becomes its child. So the tree is gone exactly when waitid(2)
    finds no child (ECHILD), and SIGCHLD announces every step towards that; `/proc` is never polled for it. The
    understudy has installed a handler for SIGCHLD, without which there is no wakeup.
    """

    def __init__(self) -> None:
        self._wakeups, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._watched: dict[Identity, int] = {}
        self._epoll = select.epoll()
        self._epoll.register(self._wakeups, select.EPOLLIN)
        self.fd = self._epoll.fileno()
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        self.gone = False

    def ended(self) -> Iterator[tuple[int, int]]:
        """Yield pid and exit code (Python's convention) of each child that ended, and reap it afterwards."""
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
        return members_below(os.getpid())

    def kill_children(self, spares: Callable[[int], bool] | None = None) -> None:
        """Send SIGKILL to every child that `spares` is not true for, the oldest, which is the process, first.

        A process that forks and exits all the time has another pid before all of `/proc` is read; the kernel's list of
        children (proc_tid_children(5), CONFIG_PROC_CHILDREN) is read in microseconds. No child's pid can be reused
        before it is reaped here.
        """
        with contextlib.suppress(OSError):
            for pid in children_of(os.getpid()):
                if spares is not None and spares(pid):
                    continue
                with contextlib.suppress(PermissionError, ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def watch(self, awaited: Iterable[Identity]) -> None:
        """Report the ends of these, and of no others, as well: another process's child sends no SIGCHLD here."""
        wanted = set(awaited)
        for identity in self._watched.keys() - wanted:
            os.close(self._watched.pop(identity))
        for identity in wanted - self._watched.keys():
            member = read_member(identity.pid)
            if member is None or member.ppid == os.getpid() or len(self._watched) == MAX_WATCHED:
                continue
            pidfd = open_pidfd(identity)
            if pidfd is not None:
                self._watched[identity] = pidfd
                self._epoll.register(pidfd, select.EPOLLIN | select.EPOLLONESHOT)

    def _clear(self) -> None:
        self._epoll.poll(0)  # the end of each that is watched is reported once
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wakeups, 512):
                pass
