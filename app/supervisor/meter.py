"""Runs in the worker: the processor time that trees use, second by second, as long as it is asked for."""

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from app.linux.proc import Identity
from app.linux.usage import TICKS, read_usage
from app.runs.members import live_keepers
from app.runs.record import RunRecord
from app.supervisor.ports import members_now

INTERVAL = 1.0
# Seconds after the last call about a run for which it is still measured: an agent asks again within that.
LINGER = 60.0
# At most this share of a processor goes into measuring: thousands of members are measured less often.
SHARE = 0.05


class Load(NamedTuple):
    """Hold percents of one processor over the last interval, of a tree and of its members that lived all through it."""

    percent: float | None = None
    of: Mapping[Identity, float] = MappingProxyType({})


class Sample(NamedTuple):
    """Hold what each process of a tree had used at one time: itself, and by the children that it has reaped."""

    at: float
    ticks: Mapping[Identity, tuple[int, int]]


class _Watched:
    """Follow one run: its last sample, the load between that and the one before, and when it was last asked for."""

    def __init__(self, record: RunRecord, asked_at: float) -> None:
        self.record = record
        self.asked_at = asked_at
        self.sample: Sample | None = None
        self.load = Load()


class Meter:
    """Measure runs once a second, in a thread that begins with the first call and ends `LINGER` after the last one.

    So a service that nobody asks does nothing, and a caller that asks again has the load of the last whole second.
    Thread-safe.
    """

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._watched: dict[str, _Watched] = {}
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def look(self, record: RunRecord) -> Load:
        """Return a run's load in the last whole second; unknown in the first second after it was not asked for."""
        now = time.monotonic()
        with self._changing:
            watched = self._watched.setdefault(record.control, _Watched(record, now))
            watched.asked_at = now
            if watched.sample is None or self._thread is None:
                _measure(watched)
            self._ensure_thread()
            return watched.load

    def close(self) -> None:
        """Stop measuring."""
        self._closing.set()
        thread = self._thread
        if thread is not None:
            thread.join()

    def _ensure_thread(self) -> None:
        if self._thread is not None or self._closing.is_set():
            return
        thread = threading.Thread(target=self._run, name="cpu-meter", daemon=True)
        with contextlib.suppress(RuntimeError):  # CPython's only sign of EAGAIN: then the calls themselves measure
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        pause = INTERVAL
        while not self._closing.wait(pause):
            began, used = time.monotonic(), time.thread_time()
            with self._changing:
                current = list(self._watched.items())
            for key, watched in current:
                with self._changing:
                    if began - watched.asked_at > LINGER or not _measure(watched):
                        del self._watched[key]
            with self._changing:
                if not self._watched:
                    self._thread = None
                    return
            pause = max(INTERVAL - (time.monotonic() - began), (time.thread_time() - used) / SHARE)


def _measure(watched: _Watched) -> bool:
    """Take a sample unless the last one is of this second; False when the run has no members any more."""
    before = watched.sample
    if before is not None and time.monotonic() - before.at < INTERVAL / 2:
        return True
    with contextlib.suppress(OSError):  # no descriptor is free: the next second's look covers two
        watched.sample = _sample(watched.record, before)
        if before is not None:
            watched.load = _load(before, watched.sample)
    return watched.sample is None or bool(watched.sample.ticks)


def _sample(record: RunRecord, before: Sample | None) -> Sample:
    """Measure a tree now: its members, the zombies among them, and what its keepers have reaped of it.

    A process that has ended keeps its place until it is reaped, when its parent's count takes it in: without its zombie
    the tree would seem to have used nothing, and later all of that at once.
    """
    at = time.monotonic()
    members = {member.identity for member in members_now(record)}
    keepers = live_keepers(record) if members else set()
    ticks: dict[Identity, tuple[int, int]] = {}
    for identity in (*members, *(before.ticks if before is not None and members else ())):
        usage = read_usage(identity.pid)
        if usage is not None and usage.identity == identity and identity.pid not in keepers:
            ticks[identity] = usage.own, usage.reaped
    for pid in keepers:
        if (usage := read_usage(pid)) is not None:
            ticks[usage.identity] = 0, usage.reaped
    return Sample(at, ticks)


def _load(before: Sample, now: Sample) -> Load:
    """Return the load between two samples.

    A process that is reaped between the readings of itself and of its parent counts twice in one sample, or not at all:
    a tree never uses less than nothing, or more than all processors.
    """
    per_tick = 100 / TICKS / (now.at - before.at)
    used = sum(map(sum, now.ticks.values())) - sum(map(sum, before.ticks.values()))
    members = {
        identity: round((own - before.ticks[identity][0]) * per_tick, 1)
        for identity, (own, _reaped) in now.ticks.items()
        if identity in before.ticks
    }
    most = 100.0 * (os.cpu_count() or 1)
    return Load(round(min(max(used * per_tick, 0.0), most), 1), members)
