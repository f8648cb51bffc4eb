"""What a user may change, as the system itself sees it."""

import ctypes
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from app.process.account import Account


def changeable_by(account: Account, paths: Iterable[Path]) -> list[Path]:
    """Return those of the paths, and of the directories above them, that this user may write to; sorted.

    Asked in a child that has become that user, so that whatever decides, access lists included, has its say. In a
    directory above that is sticky, as /tmp is, nobody can put something else in the place of what is another's.
    """
    asked = {path.absolute() for path in paths}
    above = {parent for path in asked for parent in path.parents if not _is_sticky(parent)}
    candidates = sorted(asked | above)
    answer, told = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            account.become(ctypes.CDLL(None))
            with open(told, "wb") as stream:  # noqa: PTH123  a descriptor
                stream.write(bytes(os.access(path, os.W_OK) for path in candidates))
        finally:
            os._exit(0)
    os.close(told)
    with open(answer, "rb") as stream:  # noqa: PTH123  a descriptor
        rights = stream.read()
    os.waitpid(child, 0)
    return [path for path, right in zip(candidates, rights, strict=False) if right]


def _is_sticky(directory: Path) -> bool:
    try:
        return bool(directory.stat().st_mode & stat.S_ISVTX)
    except OSError:
        return False
