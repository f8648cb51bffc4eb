"""How long a call takes."""

import time
from collections.abc import Callable


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call took."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
