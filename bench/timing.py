"""How long a call takes, on a machine whose host may give its processors to others meanwhile."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

STOLEN_LIMIT = 0.03  # of all processors' time
ATTEMPTS = 4
Result = TypeVar("Result")


class Attempts:
    """Repeat what the host disturbs, and remember how much it disturbed what counted."""

    def __init__(self) -> None:
        self.worst = 0.0

    def __call__(self, measure: Callable[[], Result]) -> Result:
        """Measure until the host took next to nothing, `ATTEMPTS` times at the most; return what it disturbed least."""
        results: list[tuple[float, Result]] = []
        while not results or (results[-1][0] > STOLEN_LIMIT and len(results) < ATTEMPTS):
            before = _ticks()
            result = measure()
            everything, stolen = (now - then for now, then in zip(_ticks(), before, strict=True))
            results.append((stolen / max(1, everything), result))
        share, result = min(results, key=lambda attempt: attempt[0])
        self.worst = max(self.worst, share)
        return result


undisturbed = Attempts()
"""The one of a bench, whose table ends with the worst that it let pass."""


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call took."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _ticks() -> tuple[int, int]:
    """Return all processors' time so far, and how much of it the host took: `steal` of proc_stat(5)."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields), fields[7]
