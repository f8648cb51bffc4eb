"""The tree of a shim that died, in the care of a new one that is nobody's parent."""

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
    """Let a tree of thousands be watched: each member takes a descriptor, of which the usual limit allows 1,024."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class AdoptedTree:
    """Watch a tree without being its parent: same calls as `OwnedTree`.

    Ends are events of the members' pidfds; who is a member is what `find_members` says, `known` being those that lived
    when the first shim last told.
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
        self._told = False
        self._lent_pidfd = pidfd
        self._process_pidfd = pidfd if pidfd is not None else open_pidfd(process)
        if self._process_pidfd is not None:
            self._epoll.register(self._process_pidfd, select.EPOLLIN | select.EPOLLONESHOT)
        for identity in known:
            self._get_to_know(identity)
        self.gone = False

    def ended(self) -> Iterator[tuple[int, int | None]]:
        """Yield pid and exit code of the process once it has ended, the code as far as anyone can still tell it."""
        self._epoll.poll(0)
        # Only here: a member's pidfd that is closed elsewhere takes with it the event that its end was to be.
        self._forget_the_dead()
        # First of all: when nobody is left, the process has ended too, and whoever sees `gone` has been told so.
        gone = not self.members()
        if not self._told and self._has_ended():
            self._told = True
            yield self._process.pid, self._exit_code()
        self.gone = gone

    def members(self) -> list[Member]:
        """Return every live process that is known to belong to the tree."""
        found = find_members(self._process, self._known, self._parents, self._not_ours)
        # Whoever ended since that look will send no event, and must not be waited for.
        return [member for member in found if self._get_to_know(member.identity)]

    def kill_children(self) -> None:
        """Do nothing: the tree has other parents."""

    def watch(self, awaited: Iterable[Identity]) -> None:
        """Announce these ends, as those of all members are anyway."""

    def close(self) -> None:
        """Watch no longer."""
        own = [self._process_pidfd] if self._process_pidfd not in (None, self._lent_pidfd) else []
        for pidfd in [*own, *self._known.values()]:
            if pidfd is not None:
                os.close(pidfd)
        self._known.clear()
        self._epoll.close()

    def _get_to_know(self, identity: Identity) -> bool:
        """Watch this process from now on; False when it is gone."""
        if identity in self._known:
            return True
        try:
            pidfd = find_pidfd(identity)
        except OSError:  # no descriptor is left to watch it by, and it is a member all the same
            return True
        if pidfd is None:
            return False
        self._known[identity] = pidfd
        self._epoll.register(pidfd, select.EPOLLIN | select.EPOLLONESHOT)
        return True

    def _forget_the_dead(self) -> None:
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
        """Return how the process ended: from its zombie (field 52 of its stat, proc(5)) or, once reaped, its pidfd."""
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
        """Ask the kernel, which since Linux 6.15 remembers the status for whoever holds a pidfd."""
        if self._process_pidfd is None:
            return None
        info = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, *[0] * 13))
        try:
            fcntl.ioctl(self._process_pidfd, _PIDFD_GET_INFO, info)
        except OSError:
            return None
        mask, *_ids, status = _PIDFD_INFO.unpack(info)
        return int(status) if mask & _PIDFD_INFO_EXIT else None
