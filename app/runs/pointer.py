"""Runs in the master and the worker: which run is the current one, for every worker and for the next service."""

import contextlib
import os
from pathlib import Path


class Pointer:
    """Name the current run by a symbolic link in the log directory.

    A link is replaced atomically (rename(2)), takes no block of a full disk, and is read in two microseconds, so that
    workers which overlap during a reload always agree.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "current"
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
        fresh = self._path.with_name("current.new")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        fresh.symlink_to(os.path.relpath(record_path, self._path.parent))
        fresh.rename(self._path)
