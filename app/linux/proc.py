"""Runs in every process of ours: processes and trees of them, as `/proc` shows them."""

import contextlib
import os
import pwd
from functools import cache
from typing import NamedTuple

DEAD_STATES = frozenset("ZXx")
# Where processes end all the time, each listing has some that are gone before they are read.
MAX_LOOKS = 5
# Of the flags in field 9 of `/proc/PID/stat`: forked, and has not executed a program (include/linux/sched.h).
_PF_FORKNOEXEC = 0x40
# It ends: set before it gives up its memory and its files (exit_signals(), kernel/exit.c).
_PF_EXITING = 0x4
# Members of a tree that is read by its lists of children; reading all of `/proc` takes as long as a few dozen lists.
FEW = 32


class Identity(NamedTuple):
    """Identify one process until the next boot.

    A pid alone is reused; with the start time (field 22 of `/proc/PID/stat`, in clock ticks, proc(5)) it is not.
    """

    pid: int
    start_ticks: int


class Member(NamedTuple):
    """Hold the fields of `/proc/PID/stat` that show its place in a tree."""

    pid: int
    ppid: int
    pgid: int
    session: int
    state: str
    threads: int
    start_ticks: int

    @property
    def identity(self) -> Identity:
        """Return the identity, which no later process with the same pid has."""
        return Identity(self.pid, self.start_ticks)

    @property
    def alive(self) -> bool:
        """Tell whether it still runs; a zombie only waits to be reaped.

        A process whose first thread alone has ended also reads as a zombie, while its other threads run
        (delay_group_leader(), kernel/exit.c).
        """
        return self.state not in DEAD_STATES or self.threads > 1


def read_member(pid: int) -> Member | None:
    """Read one process from `/proc`; None when there is no such process, or no descriptor is free to read it."""
    try:
        return find_member(pid)
    except OSError:
        return None


def find_member(pid: int) -> Member | None:
    """Read one process like `read_member`, but raise `OSError` when no descriptor is free."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    try:
        raw = os.read(fd, 4096)
    except OSError:  # ESRCH: it was reaped between open and read
        return None
    finally:
        os.close(fd)
    # The name (field 2) may hold spaces and parentheses; nothing after its last ")" does.
    fields = raw[raw.rindex(b")") + 2 :].split()
    ppid, pgid, session = map(int, fields[1:4])
    return Member(pid, ppid, pgid, session, fields[0].decode(), int(fields[17]), int(fields[19]))


def has_executed(pid: int) -> bool:
    """Tell whether a child that was not reaped, ended or not, has executed a program since its fork. Raises `OSError`.

    The flag is cleared when an execve(2) can't fail any more (begin_new_exec(), fs/exec.c).
    """
    return not _flags(pid) & _PF_FORKNOEXEC


def is_ending(pid: int) -> bool:
    """Tell whether a process is ending, or has; its files are closed then, or will be in a moment."""
    try:
        return bool(_flags(pid) & _PF_EXITING)
    except OSError:
        return True


def _flags(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[6])


def identity_of(pid: int) -> Identity:
    """Return the identity of a child that has not been reaped, or of this process itself. Raises `OSError`."""
    member = find_member(pid)
    if member is None:
        raise ProcessLookupError(pid)
    return member.identity


def own_identity() -> Identity:
    """Return the identity of this process. Raises `OSError`."""
    return identity_of(os.getpid())


def children(pid: int | None = None) -> list[Member]:
    """Return the children of a process, by default of this one, zombies included."""
    above = os.getpid() if pid is None else pid
    return [member for member in snapshot().values() if member.ppid == above]


def is_child(identity: Identity) -> bool:
    """Tell whether this process is the parent of that one, which may be a zombie."""
    member = read_member(identity.pid)
    return member is not None and (member.identity, member.ppid) == (identity, os.getpid())


def snapshot() -> dict[int, Member]:
    """Read every process of the machine; raises `OSError`, rather than leave one out, when no descriptor is free.

    A process that vanishes between listing and reading may have left a child that the listing did not have yet, so then
    `/proc` is listed again.
    """
    table: dict[int, Member] = {}
    for _ in range(MAX_LOOKS):
        vanished = False
        for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
            if pid not in table:
                member = find_member(pid)
                vanished = vanished or member is None
                if member is not None:
                    table[pid] = member
        if not vanished:
            break
    return table


def descendants(roots: set[int]) -> list[Member]:
    """Return the live processes below `roots`, without the roots.

    One look at `/proc` is not atomic: a process whose parent ended between the two reads has no parent in the table, so
    it is read again, now that the kernel has reparented it.
    """
    table = snapshot()
    for member in list(table.values()):
        if member.ppid not in table and member.ppid != 0:
            again = read_member(member.pid)
            if again is not None:
                table[member.pid] = again
    below: set[int] = set(roots)
    children: dict[int, list[int]] = {}
    for member in table.values():
        children.setdefault(member.ppid, []).append(member.pid)
    queue = list(roots)
    while queue:
        for pid in children.get(queue.pop(), ()):
            if pid not in below:
                below.add(pid)
                queue.append(pid)
    return [table[pid] for pid in below - roots if table[pid].alive]


def members_below(root: int) -> list[Member]:
    """Return the live processes below one, as `descendants` does, but quickly where they are few.

    The kernel's lists of children (proc_tid_children(5)) are read from the root down, until two readings in a row find
    the same: a process may end, and its children get another parent, between two lists.
    """
    before: list[Identity] | None = None
    for _ in range(MAX_LOOKS):
        found = _walk(root)
        if found is None:
            break
        identities = [member.identity for member in found]
        if identities == before:
            return [member for member in found if member.alive]
        before = identities
    return descendants({root})


def _walk(root: int) -> list[Member] | None:
    """Read a tree once; None where it is large, or the kernel has no such lists (CONFIG_PROC_CHILDREN)."""
    found: list[Member] = []
    try:
        queue = children_of(root)
    except OSError:
        return None
    for pid in queue:  # which grows meanwhile
        member = find_member(pid)
        if member is None:
            continue
        found.append(member)
        if len(found) > FEW:
            return None
        if not member.alive:  # what it had as children is another's
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            queue += children_of(pid) if member.threads > 1 else _children_of_thread(pid, pid)
    return found


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children, zombies included. Raises `OSError`."""
    return [child for thread in os.listdir(f"/proc/{pid}/task") for child in _children_of_thread(pid, thread)]


def _children_of_thread(pid: int, thread: str | int) -> list[int]:
    fd = os.open(f"/proc/{pid}/task/{thread}/children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        raw = b""
        while block := os.read(fd, 65536):
            raw += block
    finally:
        os.close(fd)
    return list(map(int, raw.split()))


def command_line(pid: int) -> str:
    """Return a process's arguments joined by spaces, or its short name when it has none to show."""
    raw = read_beginning(f"/proc/{pid}/cmdline") or read_beginning(f"/proc/{pid}/comm")
    return raw.rstrip(b"\0\n").replace(b"\0", b" ").decode(errors="backslashreplace")


def read_beginning(path: str) -> bytes:
    """Return at most 4 KiB of a file; nothing where it can't be read."""
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
        return file.read(4096)
    return b""


def initial_environment(pid: int) -> list[bytes]:
    """Return the entries NAME=value that a process's program was executed with (proc_pid_environ(5)); may be empty."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def holds_pipe(pid: int, inode: int) -> bool:
    """Tell whether a process has a descriptor of this pipe; False where its descriptors can't be read."""
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                if os.readlink(f"/proc/{pid}/fd/{fd}") == f"pipe:[{inode}]":
                    return True
    return False


def user_of(pid: int) -> str:
    """Return the name, or else the number, of the user whose rights a process has; "?" when it has gone.

    Not the owner of `/proc/PID`: that is root for a process that is not dumpable (proc(5)).
    """
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            uid = next(int(line.split()[2]) for line in file if line.startswith(b"Uid:"))
    except OSError:
        return "?"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@cache
def boot_id() -> str:
    """Return the kernel's id of this boot (random(4)): start times from another boot mean nothing."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
