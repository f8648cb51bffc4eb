"""Runs in every process of ours: a run's clock: wall-clock time at its start, plus the time elapsed since."""

import time

_NS = 1_000_000_000


class RunClock:
    """Tell the time of one run, the same in every process that serves it.

    Not a dataclass: `dataclasses` imports `inspect`, which would delay every shim's start.
    """

    __slots__ = ("boottime_ns", "started_ns")

    def __init__(self, started_ns: int, boottime_ns: int) -> None:
        self.started_ns = started_ns
        self.boottime_ns = boottime_ns

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


def parse_time(text: str) -> int:
    """Return the nanoseconds since the epoch of an RFC 3339 time; raise ValueError for anything else."""
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415  only a takeover parses; a shim's start must not wait

    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        msg = f"{text!r} has no time zone: write it in UTC with a final Z"
        raise ValueError(msg)
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1) * 1000
