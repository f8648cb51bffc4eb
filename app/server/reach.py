"""Runs in the master: ask the kernel which paths the commands' user may change, read and enter."""

import ctypes
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from app.linux.account import Account


def changeable_by(account: Account, paths: Iterable[Path]) -> list[Path]:
    """Return what this user may write to or owns, of the paths and of all that leads to them; sorted.

    An owner may grant itself any permission (chmod(2)).
    """
    return _ask(account, sorted(_leading_to(paths)), _may_change)


def readable_by(account: Account, paths: Iterable[Path]) -> list[Path]:
    """Return which of these files and directories this user may read by these paths."""
    return _ask(account, sorted(paths), _may_read)


def usable_by(account: Account, paths: Iterable[Path]) -> list[Path]:
    """Return which of these directories this user may enter, and which of these programs execute."""
    return _ask(account, sorted(paths), _may_use)


def _ask(account: Account, paths: Sequence[Path], question: Callable[[Path], bool]) -> list[Path]:
    """Return the paths for which the answer is yes.

    Asked in a child process that has become that user, so that the kernel decides, access control lists included.
    """
    answer, written = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            account.become(ctypes.CDLL(None))
            with open(written, "wb") as stream:  # noqa: PTH123  a descriptor
                stream.write(bytes(question(path) for path in paths))
        finally:
            os._exit(0)
    os.close(written)
    with open(answer, "rb") as stream:  # noqa: PTH123  a descriptor
        rights = stream.read()
    os.waitpid(child, 0)
    return [path for path, right in zip(paths, rights, strict=False) if right]


def _leading_to(paths: Iterable[Path]) -> set[Path]:
    """Return the paths, the directories above, and the same for the targets of symbolic links among them."""
    ends = {path.absolute() for path in paths}
    way = set(ends)
    seen: set[Path] = set()
    queue = list(ends)
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen.add(path)
        if not _shields(path.parent, path):
            way.add(path.parent)
        queue.append(path.parent)
        if path.is_symlink():
            queue.append(path.parent / path.readlink())
    return way


def _shields(directory: Path, entry: Path) -> bool:
    """Tell whether an entry can't be replaced by other users although all may write there: root's, sticky, as /tmp."""
    try:
        above = directory.stat()
        entry.lstat()  # a missing entry can be created by any user
    except OSError:
        return False
    return above.st_uid == 0 and bool(above.st_mode & stat.S_ISVTX)


def _may_change(path: Path) -> bool:
    """Tell whether this process's user may write to this or owns it, or the symbolic link in its place."""
    try:
        owners = {path.stat().st_uid, path.lstat().st_uid}
    except OSError:
        return False
    return os.getuid() in owners or os.access(path, os.W_OK)


def _may_read(path: Path) -> bool:
    """Tell whether this process's user may read a file, or list and enter a directory."""
    return os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK)


def _may_use(path: Path) -> bool:
    return os.access(path, os.X_OK)
