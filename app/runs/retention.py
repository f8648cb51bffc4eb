"""Runs in the worker: remove all files of the oldest runs, beyond a number of runs to keep."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.runs.names import OURS, names_in


def prune(log_dir: Path, keep: int, in_use: Callable[[str], bool]) -> None:
    """Remove the files of all but the newest `keep` runs, except those whose run id is `in_use`.

    The age is taken from the name. A file that can't be removed is tried again the next time.
    """
    names = names_in(log_dir)
    if len(names) <= keep:  # as each run has a file at least
        return
    runs: dict[tuple[str, int, str], list[str]] = defaultdict(list)
    for name in names:
        if match := OURS.fullmatch(name):
            runs[match["second"], int(match["number"] or 1), match["run_id"]].append(name)
    for run in sorted(runs)[: max(0, len(runs) - keep)]:
        if not in_use(run[-1]):
            _remove(log_dir, runs[run])


def _remove(log_dir: Path, names: list[str]) -> None:
    for name in names:
        with suppress(OSError):
            (log_dir / name).unlink()
