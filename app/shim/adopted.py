"""Runs in a replacement shim, or in the service in its place: a tree whose members are not children of the process."""

import contextlib
import fcntl
import os
import resource
import select
import struct
from collections.abc import Collection, Iterable, Iterator

from app.linux.pidfd import find_pidfd, has_ended, open_pidfd
from app.linux.proc import Identity, Member, read_member
from app.runs.members import find_members

# struct pidfd_info, include/uapi/linux/pidfd.h: mask, cgroup id, eleven ids, exit code. _IOWR(0xFF, 11, 64 bytes).
_PIDFD_INFO = struct.Struct("=QQ11Ii")
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3


def allow_many_descriptors() -> None:
    """Raise the limit on descriptors for a tree of thousands: each member takes one, and the usual limit is 1,024."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class AdoptedTree:
    """Watch a tree of which this process is not the parent, with the methods of `OwnedTree`.

    A member's end is an event of its pidfd. Members are found by `find_members`; `known` are the last record's.
    """

    def __init__(
        self,
        process: Identity,
        pidfd: int | None,
        *,
        known: Collection[Identity],
        parents: Collection[int],
        not_ours: Collection[int],
    ) -> None:
        self._process = process
        self._known: dict[Identity, int] = {}
        self._parents = set(parents)
        self._not_ours = {os.getpid(), *not_ours}
        self._epoll = select.epoll()
        self.fd = self._epoll.fileno()
        self._reported = False
        self._lent_pidfd = pidfd
        self._process_pidfd = pidfd if pidfd is not None else open_pidfd(process)
        if self._process_pidfd is not None:
            self._epoll.register(self._process_pidfd, select.EPOLLIN | select.EPOLLONESHOT)
        for identity in known:
            self._watch_member(identity)
        self.gone = False

    def ended(self) -> Iterator[tuple[int, int | None]]:
        """Yield pid and exit code of the process once it has ended; the code is None where it can't be read."""
        self._epoll.poll(0)
        # Only here, after the poll: closing a pidfd before it would lose the pending event of its process's end.
        self._drop_ended()
        # First: when no member is left, the process has ended too, and its end is yielded before `gone` is set.
        gone = not self.members()
        if not self._reported and self._has_ended():
            self._reported = True
            yield self._process.pid, self._exit_code()
        self.gone = gone

    def members(self) -> list[Member]:
        """Return every live process that is known to belong to the tree."""
        found = find_members(self._process, self._known, self._parents, self._not_ours)
        # A process that ended since that look will send no event, and must not be waited for.
        return [member for member in found if self._watch_member(member.identity)]

    def kill_children(self) -> None:
        """Do nothing: the members are other processes' children."""

    def watch(self, awaited: Iterable[Identity]) -> None:
        """Do nothing: the ends of all members are reported."""

    def close(self) -> None:
        """Stop watching."""
        own = [self._process_pidfd] if self._process_pidfd not in (None, self._lent_pidfd) else []
        for pidfd in [*own, *self._known.values()]:
            if pidfd is not None:
                os.close(pidfd)
        self._known.clear()
        self._epoll.close()

    def _watch_member(self, identity: Identity) -> bool:
        """Watch this process from now on; False when it is gone."""
        if identity in self._known:
            return True
        try:
            pidfd = find_pidfd(identity)
        except OSError:  # no descriptor is free for a pidfd, but it is a member
            return True
        if pidfd is None:
            return False
        self._known[identity] = pidfd
        self._epoll.register(pidfd, select.EPOLLIN | select.EPOLLONESHOT)
        return True

    def _drop_ended(self) -> None:
        for identity, pidfd in list(self._known.items()):
            member = read_member(identity.pid)
            if member is None or member.identity != identity or not member.alive:
                os.close(pidfd)
                del self._known[identity]

    def _has_ended(self) -> bool:
        if self._process_pidfd is not None:
            return has_ended(self._process_pidfd)
        member = read_member(self._process.pid)
        return member is None or member.identity != self._process or not member.alive

    def _exit_code(self) -> int | None:
        """Read the exit code from the zombie (field 52 of its stat, proc(5)) or, once reaped, from its pidfd."""
        status = self._status_of_zombie()
        if status is None:
            status = self._status_of_pidfd()
        return None if status is None else os.waitstatus_to_exitcode(status)

    def _status_of_zombie(self) -> int | None:
        with contextlib.suppress(OSError), open(f"/proc/{self._process.pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
            if int(fields[19]) == self._process.start_ticks:
                return int(fields[49])
        return None

    def _status_of_pidfd(self) -> int | None:
        """Return the wait status, which the kernel keeps for every holder of a pidfd since Linux 6.15."""
        if self._process_pidfd is None:
            return None
        info = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, *[0] * 13))
        try:
            fcntl.ioctl(self._process_pidfd, _PIDFD_GET_INFO, info)
        except OSError:
            return None
        mask, *_ids, status = _PIDFD_INFO.unpack(info)
        return int(status) if mask & _PIDFD_INFO_EXIT else None
