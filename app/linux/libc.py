"""Runs in every process of ours: calls of the C library that Python does not offer."""

import ctypes
import os

# Options of mallopt(3), and a size above every buffer that a read of output passes through.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_BUFFER = 4 * 1024 * 1024
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# The same number on every architecture, as each since 424 is (Documentation/process/adding-syscalls.rst).
_PIDFD_GETFD = 438
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)
# Looked up once, at the import.
_prctl, _renameat2, _syscall = _libc.prctl, _libc.renameat2, _libc.syscall


def keep_buffers() -> None:
    """Let the allocator reuse the buffers of one read for the next.

    By default glibc returns them to the system each time and faults in every page again (mallopt(3)). Other C
    libraries have no such option, and are correct without it.
    """
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BUFFER)
        mallopt(_M_TRIM_THRESHOLD, _LARGEST_BUFFER)


def exchange(left: str, right: str) -> bool:
    """Swap two names atomically; False where the kernel, the file system or a missing name does not allow it."""
    names = os.fsencode(left), os.fsencode(right)
    return bool(_renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


def prctl(option: int, argument: int | bytes) -> None:
    """Set an attribute of this process (prctl(2)); an option that the kernel does not know changes nothing."""
    _prctl(option, argument, 0, 0, 0)


def pidfd_getfd(pidfd: int, number: int) -> int:
    """Return a duplicate of another process's descriptor (pidfd_getfd(2), since Linux 5.6). Raises `OSError`."""
    fd = int(_syscall(_PIDFD_GETFD, pidfd, number, 0))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd
