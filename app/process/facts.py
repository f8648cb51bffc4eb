"""What `/proc` tells about a member that decides when it is signalled: whether it is a shell, and its pipes."""

import contextlib
import ctypes
import os
from collections.abc import Collection, Iterator

from app.process.order import Pipe
from app.process.tree import DEAD_STATES, Member

_SHELLS = frozenset(
    {"sh", "dash", "bash", "rbash", "ash", "hush", "zsh", "ksh", "mksh", "yash", "posh", "csh", "tcsh", "fish"}
)
# One executable for many programs: which one it is, its first argument says.
_MULTICALL = frozenset({"busybox", "toybox"})
# What is appended to the name of an executable that was removed or replaced since (d_path(), fs/d_path.c).
_DELETED = " (deleted)"
_ACCESS_MODE = 0o3
_libc = ctypes.CDLL(None)


class ProcFacts:
    """Read facts from `/proc` when they are asked for, each once: one of these serves one look.

    `output` is the run's pipe, by inode; None where it is not known.
    """

    def __init__(self, output: int | None = None) -> None:
        self._output = output
        self._shells: dict[int, bool] = {}
        self._inputs: dict[int, int | None] = {}

    def is_shell(self, member: Member) -> bool:
        """Tell whether its executable is a shell's."""
        if member.pid not in self._shells:
            with _eyes_of(member):
                self._shells[member.pid] = _is_shell(_folder(member))
        return self._shells[member.pid]

    def reads(self, member: Member) -> int | None:
        """Return the inode of the pipe that is its standard input."""
        if member.pid not in self._inputs:
            with _eyes_of(member):
                self._inputs[member.pid] = _pipe(f"{_folder(member)}/fd/0")
        return self._inputs[member.pid]

    def writes(self, member: Member, pipes: Collection[Pipe]) -> set[Pipe]:
        """Return those of `pipes` of which it has an end to write to; none where its descriptors can't be read."""
        folder = _folder(member)
        found: set[Pipe] = set()
        with _eyes_of(member), contextlib.suppress(OSError):
            for fd in os.listdir(f"{folder}/fd"):
                pipe = _pipe(f"{folder}/fd/{fd}")
                if pipe is None or pipe not in pipes or pipe in found:
                    continue
                if _is_writable(f"{folder}/fdinfo/{fd}"):
                    found.add(pipe)
        return found

    def holds_output(self, member: Member) -> bool:
        """Tell whether it holds the run's pipe; it is taken to where its descriptors, or the pipe, can't be told."""
        if self._output is None:
            return True
        folder = _folder(member)
        with _eyes_of(member):
            try:
                fds = os.listdir(f"{folder}/fd")
            except OSError:
                return True
            return any(_pipe(f"{folder}/fd/{fd}") == self._output for fd in fds)


@contextlib.contextmanager
def _eyes_of(member: Member) -> Iterator[None]:
    """Look at a member with its own user's rights, where ours are root's.

    In a container root often lacks CAP_SYS_PTRACE, without which it may not look into the processes of others; who has
    their user as the one of its file accesses may (ptrace_may_access(), kernel/ptrace.c; setfsuid(2)). There is no
    thread in a shim but the one that looks.
    """
    if os.geteuid() != 0:
        yield
        return
    try:
        owner = os.stat(f"/proc/{member.pid}")
    except OSError:
        owner = None
    if owner is None or owner.st_uid == 0:
        yield
        return
    _libc.setfsgid(owner.st_gid)
    _libc.setfsuid(owner.st_uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(os.getegid())


def _folder(member: Member) -> str:
    """Return where in `/proc` a member is described.

    One whose first thread has ended has no files and no executable there any more (exit_files(), exit_mm(),
    kernel/exit.c); its other threads do.
    """
    folder = f"/proc/{member.pid}"
    if member.state in DEAD_STATES:
        with contextlib.suppress(OSError):
            others = [name for name in os.listdir(f"{folder}/task") if name != str(member.pid)]
            return f"{folder}/task/{others[0]}" if others else folder
    return folder


def _is_shell(folder: str) -> bool:
    """Tell by the executable, or by what it was called as where that can't be read.

    A process of another user hides its executable, while its arguments are there for everybody. A script's begin with
    its interpreter (load_script(), fs/binfmt_script.c).
    """
    try:
        executable = os.readlink(f"{folder}/exe").removesuffix(_DELETED)
    except OSError:
        executable = ""
    name = _program(executable)
    if name and name not in _MULTICALL:
        return name in _SHELLS
    called = [_program(argument) for argument in _arguments(folder)[:2]]
    if called and called[0] in _MULTICALL:
        del called[0]
    return bool(called) and called[0] in _SHELLS


def _program(path: str) -> str:
    """Return a program's name without its directory, a login shell's dash, `-static` and a version."""
    return path.rpartition("/")[2].removeprefix("-").removesuffix("-static").rstrip(".-0123456789")


def _arguments(folder: str) -> list[str]:
    try:
        with open(f"{folder}/cmdline", "rb") as file:
            return file.read(4096).decode(errors="replace").split("\0")
    except OSError:
        return []


def _pipe(link: str) -> int | None:
    """Return a pipe's inode from a link under `/proc/PID/fd` (proc_pid_fd(5))."""
    try:
        target = os.readlink(link)
    except OSError:
        return None
    if target.startswith("pipe:["):
        return int(target[6:-1])
    return None


def _is_writable(info: str) -> bool:
    """Tell from `/proc/PID/fdinfo/N` whether a descriptor was opened for writing; its flags are octal (proc(5))."""
    with contextlib.suppress(OSError), open(info, "rb") as file:
        for line in file:
            if line.startswith(b"flags:"):
                return int(line.split()[1], 8) & _ACCESS_MODE != os.O_RDONLY
    return False
