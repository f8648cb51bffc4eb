"""Runs in the worker: remove all files of the oldest runs, beyond a number of runs to keep."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.runs.names import files_of_runs


def prune(log_dir: Path, keep: int, in_use: Callable[[str], bool]) -> None:
    """Remove the files of all but the newest `keep` runs, except those whose run id is `in_use`.

    The age is taken from the name. A file that can't be removed is tried again the next time.
    """
    runs = files_of_runs(log_dir)
    for run in sorted(runs)[: max(0, len(runs) - keep)]:
        if in_use(run[-1]):
            continue
        for name in runs[run]:
            with suppress(OSError):
                (log_dir / name).unlink()
