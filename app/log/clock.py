"""Runs in every process of ours: a run's clock: wall-clock time at its start, plus the time elapsed since."""

import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_NS = 1_000_000_000
_US = 1_000_000


class RunClock(NamedTuple):
    """Tell the time of one run, the same in every process that serves it."""

    started_ns: int
    boottime_ns: int

    @classmethod
    def start(cls) -> "RunClock":
        """Read both clocks now."""
        return cls(time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def now_ns(self) -> int:
        """Return the run's time in nanoseconds since the epoch.

        CLOCK_BOOTTIME counts suspended time and is never set (clock_gettime(2)).
        """
        return self.started_ns + time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self.boottime_ns


def format_time(ns: int) -> str:
    """Return nanoseconds since the epoch as RFC 3339 in UTC with microseconds: `2026-11-22T06:08:00.123456Z`."""
    seconds, rest = divmod(ns, _NS)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest // 1000:06d}Z"


class Timestamps:
    """Tell a run's time as text, in order, whatever the clock does.

    A slow command's lines ask for one each, when hardly anything is in the processor's caches: so the text of a second
    is kept, and a fraction's is made without the interpreter's formatting.
    """

    def __init__(self, clock: RunClock) -> None:
        self._ahead_ns = clock.started_ns - clock.boottime_ns
        # Microseconds since the epoch: the last time that was told, and the second it was in.
        self._last = 0
        self._second = -_US
        self._beginning = ""

    def go_on_after(self, timestamp: str) -> None:
        """Tell no time before this one; raises ValueError where it is none."""
        self._last = parse_time(timestamp) // 1000

    def now(self) -> str:
        """Return the time as `format_time` does."""
        now = (self._ahead_ns + time.clock_gettime_ns(time.CLOCK_BOOTTIME)) // 1000
        now = max(now, self._last)
        self._last = now
        fraction = now - self._second
        if fraction >= _US:
            fraction = now % _US
            self._second = now - fraction
            self._beginning = format_time(now * 1000)[: -len("123456Z")]
        return self._beginning + str(_US + fraction)[1:] + "Z"


def parse_time(text: str) -> int:
    """Return the nanoseconds since the epoch of an RFC 3339 time; raise ValueError for anything else."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone: write it in UTC with a final Z")
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1) * 1000
