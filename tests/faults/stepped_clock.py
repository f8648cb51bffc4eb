"""gunicorn on a machine whose wall clock someone sets: by as many seconds as the file named in STEPPED_CLOCK says.

Arguments are gunicorn's. The shim keeps the machine's own clock, of which it reads only the one that nobody can set.
"""

import os
import time
from pathlib import Path
from typing import SupportsIndex

from gunicorn.app.wsgiapp import run

_OFFSET = Path(os.environ["STEPPED_CLOCK"])
_time, _time_ns, _gmtime = time.time, time.time_ns, time.gmtime


def _offset() -> int:
    return int(_OFFSET.read_text())


def _stepped_gmtime(seconds: float | SupportsIndex | None = None) -> time.struct_time:
    return _gmtime(time.time() if seconds is None else seconds)


if __name__ == "__main__":
    time.time = lambda: _time() + _offset()
    time.time_ns = lambda: _time_ns() + _offset() * 1_000_000_000
    time.gmtime = _stepped_gmtime
    run()
