"""Runs in the master and the worker: which run of a name is the current one, for every worker and the next service."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from app.runs.names import is_name
from app.runs.spec import DEFAULT_NAME

_PREFIX = "current-"


class Pointer:
    """Name the current run of a named process by a symbolic link in the log directory.

    A link is replaced atomically (rename(2)), takes no block of a full disk, and is read in two microseconds, so that
    workers which overlap during a reload always agree.
    """

    def __init__(self, directory: Path, name: str = DEFAULT_NAME) -> None:
        self._path = directory / ("current" if name == DEFAULT_NAME else f"{_PREFIX}{name}")
        self._last = "", ""

    def read(self) -> str | None:
        """Return the path of the current run's record; None when there is none."""
        try:
            target = os.readlink(self._path)
        except OSError:
            return None
        if target != self._last[0]:
            self._last = target, os.path.normpath(os.path.join(self._path.parent, target))
        return self._last[1]

    def set(self, record_path: str | None) -> None:
        """Make this the current run, or none; raises `OSError`."""
        if record_path is None:
            self._path.unlink(missing_ok=True)
            return
        fresh = self._path.with_name(f".{self._path.name}.new")  # which is no pointer of any name
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        fresh.symlink_to(os.path.relpath(record_path, self._path.parent))
        try:
            fresh.rename(self._path)
        except OSError:  # as where somebody has made a directory of that name
            fresh.unlink()
            raise


def names_with_pointers(directory: Path) -> Iterator[str]:
    """Yield the names that have a pointer in this directory."""
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir(directory):
            name = DEFAULT_NAME if entry == "current" else entry.removeprefix(_PREFIX)
            if entry in ("current", f"{_PREFIX}{name}") and is_name(name):
                yield name
