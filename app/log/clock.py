"""Runs in every process of ours: a run's clock: wall-clock time at its start, plus the time elapsed since."""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

_NS = 1_000_000_000


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
    return f"{_format_second(seconds)}.{rest // 1000:06d}Z"


@lru_cache(maxsize=1)
def _format_second(seconds: int) -> str:
    """Return a second's text, which is the same for all lines that are printed in it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def parse_time(text: str) -> int:
    """Return the nanoseconds since the epoch of an RFC 3339 time; raise ValueError for anything else."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone: write it in UTC with a final Z")
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1) * 1000
