"""The time of a run."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.log.clock import RunClock, Timestamps, format_time, parse_time

YEAR_9999 = 253_402_300_799 * 10**9


def test_time_is_written_in_utc_with_microseconds() -> None:
    """A time is RFC 3339 in UTC with six digits and Z, whatever lies below a microsecond is cut."""
    at = int(datetime(2026, 11, 22, 6, 8, tzinfo=UTC).timestamp()) * 10**9
    assert format_time(at + 123_456_999) == "2026-11-22T06:08:00.123456Z"
    assert format_time(at) == "2026-11-22T06:08:00.000000Z"


@given(st.integers(0, YEAR_9999))
def test_parsing_undoes_formatting(ns: int) -> None:
    """What format_time writes, parse_time reads back to the microsecond."""
    assert parse_time(format_time(ns)) == ns // 1000 * 1000


@given(st.integers(0, YEAR_9999), st.integers(0, YEAR_9999))
def test_times_sort_as_text(one: int, other: int) -> None:
    """The order of two formatted times is the order of the times."""
    assert (format_time(one) <= format_time(other)) == (one // 1000 <= other // 1000)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-22T06:08:00", "2026-13-22T06:08:00Z"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """parse_time raises ValueError for what is no time or has no zone."""
    with pytest.raises(ValueError, match=r".+"):
        parse_time(text)


def test_run_time_is_the_start_plus_what_elapsed() -> None:
    """A run's time is its start on the wall clock plus the boot clock's advance since, and nothing else."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    clock = RunClock(started_ns=5_000_000_000_000, boottime_ns=now - 7_000_000_000)
    elapsed = clock.now_ns() - 5_007_000_000_000
    assert 0 <= elapsed < 60 * 10**9


def test_run_time_never_goes_back() -> None:
    """Two readings of a run's time come in order."""
    clock = RunClock.start()
    readings = [clock.now_ns() for _ in range(1000)]
    assert readings == sorted(readings)


@pytest.mark.parametrize("fraction", [0, 999, 1_000, 999_999_999], ids=str)
def test_timestamps_are_the_run_s_time(monkeypatch: pytest.MonkeyPatch, fraction: int) -> None:
    """A timestamp is the run's time as text, at the edges of a second and a microsecond, and in the next second."""
    clock = RunClock(started_ns=5_000_000_000_000, boottime_ns=7)
    timestamps = Timestamps(clock)
    for second in (0, 0, 1, 86_400):
        elapsed = second * 10**9 + fraction
        monkeypatch.setattr(time, "clock_gettime_ns", lambda _clock, elapsed=elapsed: 7 + elapsed)
        assert timestamps.now() == format_time(5_000_000_000_000 + elapsed)


def test_timestamps_never_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timestamp is never before the one before it, nor before the one to go on after."""
    readings = iter([2 * 10**9, 10**9, 3 * 10**9, 10**9])
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _clock: next(readings))
    timestamps = Timestamps(RunClock(0, 0))
    assert [timestamps.now() for _ in range(3)] == [format_time(second * 10**9) for second in (2, 2, 3)]
    timestamps.go_on_after(format_time(9_500_000_000))
    assert timestamps.now() == format_time(9_500_000_000)
