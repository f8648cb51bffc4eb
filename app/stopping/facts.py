"""Runs in the shim, the master and the worker: read from `/proc` whether a member is a shell and which pipes it has."""

import contextlib
import os
import signal
import stat
import time
from collections.abc import Collection, Iterator

from app.linux.inspecting import as_user_of, folder_of
from app.linux.proc import Member, has_executed, is_ending, read_beginning
from app.stopping.order import Pipe

_SHELLS = frozenset(
    {"sh", "dash", "bash", "rbash", "ash", "hush", "zsh", "ksh", "mksh", "yash", "posh", "csh", "tcsh", "fish"}
)
# One executable for many programs, selected by the first argument.
_MULTICALL = frozenset({"busybox", "toybox"})
# Appended to the path of an executable that was removed or replaced since (d_path(), fs/d_path.c).
_DELETED = " (deleted)"
_ACCESS_MODE = 0o3
# Limits of one look at the members' descriptors, of which a tree can hold millions: their number, and seconds of this
# process's CPU time.
MAX_DESCRIPTORS = 20_000
MAX_SECONDS = 0.25
# Seconds within which a shell's fork has reached the program that it is to execute, on a busy machine, too.
STARTING = 0.25
_TICK = 1 / os.sysconf("SC_CLK_TCK")
# Prefixes of file system types whose stat(2) asks another machine or another process.
_REMOTE = ("nfs", "cifs", "smb", "fuse", "ceph", "9p", "afs", "virtiofs", "lustre", "gfs", "ocfs")


class ProcFacts:
    """Read facts from `/proc` on demand, each once: an instance serves one look.

    Descriptors beyond the limits of a look are not read: their owner counts as a writer to no pipe, and as a holder of
    the output. `output` is the run's pipe, by inode; None where it is not known.
    """

    def __init__(self, output: int | None = None) -> None:
        self._output = output
        self._shells: dict[int, bool] = {}
        self._inputs: dict[int, Pipe | None] = {}
        self._written: dict[int, set[Pipe]] = {}
        self._holders: dict[int, bool] = {}
        self._fifos: dict[str, Pipe] = {}
        self._local: dict[bytes, bool] = {}
        self._descriptors = MAX_DESCRIPTORS
        self._seconds = MAX_SECONDS

    def is_shell(self, member: Member) -> bool:
        """Tell whether a member's executable is a shell."""
        if member.pid not in self._shells:
            with as_user_of(member):
                self._shells[member.pid] = _is_shell(folder_of(member))
        return self._shells[member.pid]

    def is_starting(self, member: Member) -> bool:
        """Tell whether a member was just forked, has executed no program yet, and catches SIGTERM.

        A fork begins with its parent's handlers, and that of a shell with a trap takes the signal without any effect: a
        child process runs no trap of its shell. A program begins with none (execve(2)). A fork that stays one, a
        subshell, may have a trap of its own, so that an old one counts as started.
        """
        try:
            return _age(member) < STARTING and not has_executed(member.pid) and _catches_sigterm(folder_of(member))
        except OSError:  # it has ended
            return False

    def reads(self, member: Member) -> Pipe | None:
        """Return the pipe that is a member's standard input: the inode, and for a named FIFO the device with it."""
        if member.pid not in self._inputs:
            with as_user_of(member):
                self._inputs[member.pid] = self._find_input(folder_of(member))
        return self._inputs[member.pid]

    def writes(self, member: Member, pipes: Collection[Pipe]) -> set[Pipe]:
        """Return those of `pipes` that a member has a write end of; none where its descriptors can't be read.

        `pipes` must be the same in all calls of one look.
        """
        if member.pid not in self._written:
            found = self._written[member.pid] = set()
            with as_user_of(member), contextlib.suppress(OSError):
                folder = folder_of(member)
                for fd, target in self._open_files(folder) if pipes else ():
                    pipe = self._known(f"{folder}/fd/{fd}", target)
                    if pipe in pipes and pipe not in found and _is_writable(f"{folder}/fdinfo/{fd}"):
                        found.add(pipe)
        return self._written[member.pid]

    def holds_output(self, member: Member) -> bool:
        """Tell whether a member holds the run's pipe; True where it is unknown, or its descriptors can't be read."""
        if self._output is None:
            return True
        if member.pid not in self._holders:
            with as_user_of(member):
                self._holders[member.pid] = self._finds_output(member.pid, folder_of(member))
        return self._holders[member.pid]

    def _finds_output(self, pid: int, folder: str) -> bool:
        try:
            found = any(_pipe(target) == self._output for _fd, target in self._open_files(folder))
        except OSError:
            # One that has given up its memory shows its files to root alone (task_dump_owner(), fs/proc/base.c).
            return not is_ending(pid)
        return found or self._spent

    def _find_input(self, folder: str) -> Pipe | None:
        try:
            target = os.readlink(f"{folder}/fd/0")
            # Only a path begins with a slash: other targets read `socket:[1]`, `anon_inode:[eventfd]`.
            if not target.startswith("/") or target == os.devnull or not self._is_local(folder):
                return _pipe(target)
            fifo = _fifo(f"{folder}/fd/0")
        except OSError:
            return None
        if fifo is not None:
            self._fifos[target] = fifo
        return fifo

    def _is_local(self, folder: str) -> bool:
        """Tell whether the standard input is on a local file system.

        stat(2) could block for ever on a file server that is gone (nfs(5), `hard`), and no signal ends that.
        """
        mount = _field(f"{folder}/fdinfo/0", b"mnt_id:")
        if mount not in self._local:
            with open(f"{folder}/mountinfo", "rb") as file:
                lines = [line.split() for line in file]
            types = [line[line.index(b"-") + 1].decode() for line in lines if line[0] == mount]
            self._local[mount] = bool(types) and not types[0].startswith(_REMOTE)
        return self._local[mount]

    def _known(self, link: str, target: str) -> Pipe | None:
        """Return the pipe that a descriptor is an end of; a FIFO only where a member's input has the same path.

        stat(2) of any other file would ask its file system, which may be slow to answer.
        """
        return _fifo(link) if target in self._fifos else _pipe(target)

    def _open_files(self, folder: str) -> Iterator[tuple[str, str]]:
        """Yield a process's descriptors and the target of each, within the limits of this look.

        The directory is read lazily: to list a million entries alone takes longer than a look may. CPU time
        counts, so that the machine's load does not change the order of signals.
        """
        if self._spent:
            return
        began = time.process_time()
        try:
            with os.scandir(f"{folder}/fd") as entries:
                for entry in entries:
                    if self._spent or time.process_time() - began > self._seconds:
                        self._descriptors = 0
                        return
                    self._descriptors -= 1
                    with contextlib.suppress(OSError):  # closed meanwhile
                        yield entry.name, os.readlink(entry.path)
        finally:
            self._seconds -= time.process_time() - began

    @property
    def _spent(self) -> bool:
        return self._descriptors <= 0 or self._seconds <= 0


def _is_shell(folder: str) -> bool:
    """Tell by its executable whether a process is a shell; by its arguments where that can't be read.

    A process of another user hides its executable, but not its arguments, which for a script begin with its
    interpreter (load_script(), fs/binfmt_script.c).
    """
    try:
        executable = os.readlink(f"{folder}/exe").removesuffix(_DELETED)
    except OSError:
        executable = ""
    name = _program(executable)
    if name and name not in _MULTICALL:
        return name in _SHELLS
    arguments = read_beginning(f"{folder}/cmdline").decode(errors="replace").split("\0")
    called = [_program(argument) for argument in arguments[:2]]
    if called[0] in _MULTICALL:
        del called[0]
    return bool(called) and called[0] in _SHELLS


def _program(path: str) -> str:
    """Return a program's name without its directory, a login shell's dash, `-static` and a version."""
    return path.rpartition("/")[2].removeprefix("-").removesuffix("-static").rstrip(".-0123456789")


def _age(member: Member) -> float:
    """Return for how many seconds a process has existed, to the clock tick (proc_pid_stat(5), starttime)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - member.start_ticks * _TICK


def _catches_sigterm(folder: str) -> bool:
    """Tell whether a process has a handler for SIGTERM (SigCgt, proc_pid_status(5))."""
    return bool(int(_field(f"{folder}/status", b"SigCgt:") or b"0", 16) >> (signal.SIGTERM - 1) & 1)


def _pipe(target: str) -> int | None:
    """Return a pipe's inode from the target of a link under `/proc/PID/fd` (proc_pid_fd(5)); a FIFO's is its path."""
    return int(target[6:-1]) if target.startswith("pipe:[") else None


def _fifo(link: str) -> tuple[int, int] | None:
    """Return the identity of the FIFO that a descriptor is open on, None where it is another kind of file.

    Read through the link, since the path may have been removed or given to another file since.
    """
    found = os.stat(link)
    return (found.st_dev, found.st_ino) if stat.S_ISFIFO(found.st_mode) else None


def _is_writable(info: str) -> bool:
    """Tell from `/proc/PID/fdinfo/N` whether a descriptor was opened for writing; its flags are octal (proc(5))."""
    with contextlib.suppress(OSError):
        return int(_field(info, b"flags:") or b"0", 8) & _ACCESS_MODE != os.O_RDONLY
    return False


def _field(info: str, name: bytes) -> bytes:
    """Return a field of `/proc/PID/fdinfo/N` or `/proc/PID/status`, empty where there is none."""
    with open(info, "rb") as file:
        return next((line.split()[1] for line in file if line.startswith(name)), b"")
