"""How many runs a log directory keeps: the oldest go, with every file that is theirs."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_OURS = re.compile(
    r"(?P<run_id>(?P<second>\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?:_(?P<number>\d+))?)"
    r"\.(?:log|1\.log|log\.new|log\.old|json|json\.spare)",
    re.ASCII,
)
_RUN_ID = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(?:_\d{1,9})?", re.ASCII)


def is_run_id(text: str) -> bool:
    """Tell whether a run may have this name: then it is also a file name without any surprise."""
    return _RUN_ID.fullmatch(text) is not None


def newest_first(log_dir: Path) -> list[str]:
    """Return the ids of the runs of which there is any file, by age as their names tell it."""
    matches = map(_OURS.fullmatch, _names(log_dir))
    runs = {(match["second"], int(match["number"] or 1), match["run_id"]) for match in matches if match}
    return [run_id for _second, _number, run_id in sorted(runs, reverse=True)]


def prune(log_dir: Path, keep: int, in_use: Callable[[str], bool]) -> None:
    """Remove the files of all but the newest `keep` runs, except those whose run id is `in_use`.

    Age is told by name. What can't be removed is left for the next time.
    """
    names = _names(log_dir)
    if len(names) <= keep:  # as each run has a file at least
        return
    runs: dict[tuple[str, int, str], list[str]] = defaultdict(list)
    for name in names:
        if match := _OURS.fullmatch(name):
            runs[match["second"], int(match["number"] or 1), match["run_id"]].append(name)
    for run in sorted(runs)[: max(0, len(runs) - keep)]:
        if not in_use(run[-1]):
            _remove(log_dir, runs[run])


def newest(log_dir: Path) -> tuple[str, int]:
    """Return the second and the number of the newest run, by its name; an empty second when there is none."""
    return max(_runs(log_dir), default=("", 0))


def newest_number(log_dir: Path, second: str) -> int:
    """Return the number of the newest run that was started in this second; 0 when there is none."""
    return max((number for begun, number in _runs(log_dir) if begun == second), default=0)


def _runs(log_dir: Path) -> Iterator[tuple[str, int]]:
    """Yield the second and the number of the run of each file that is one's."""
    matches = map(_OURS.fullmatch, _names(log_dir))
    return ((match["second"], int(match["number"] or 1)) for match in matches if match)


def _names(log_dir: Path) -> list[str]:
    try:
        return os.listdir(log_dir)  # noqa: PTH208  names are all it takes
    except FileNotFoundError:
        return []


def _remove(log_dir: Path, names: list[str]) -> None:
    for name in names:
        with suppress(OSError):
            (log_dir / name).unlink()
