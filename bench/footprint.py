"""Footprint: the memory of one more run and the time of a slow writer's shim, beside conmon's; the service at rest."""

import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import IO, NamedTuple, cast

from bench.contestants import under_conmon
from bench.service import PAUSE, Service, cpu_ns, environment, keepers, name, pss_mb, serving, tree, wait_until
from bench.starts import COMMAND
from bench.table import Row
from bench.timing import undisturbed

# One more run is the mean of those after the first two, which have few others to share their programs' pages with.
FEW, MANY = 2, 10
ONE_MORE, OWN = "one more run at rest", "own memory (PSS) of shim and understudy"
# Asleep between its lines: the measured program's rhythm, not a wait of ours.
# Each line is one write: print() makes two of it under PYTHONUNBUFFERED, with which our commands alone begin.
CODE = "import itertools, os, time\nfor n in itertools.count(): os.write(1, b'%d\\n' % n); time.sleep(0.005)"
TICKING = shlex.join(["exec", sys.executable, "-c", CODE])
FIRST_LINES = 200
SECONDS = 4.0


class Weight(NamedTuple):
    """What one more run adds where there are several, in MB: to the shims' and to the starting process's memory."""

    keepers: float
    starter: float


def measure(rounds: int, absent: set[str]) -> list[Row]:
    """Measure what a run takes, beside conmon where that is there, and what the service with one run does."""
    with tempfile.TemporaryDirectory(prefix="llm-shell-bench-") as folder, serving(Path(folder)) as service:
        ours = _our_growth(Path(folder))
        rows = [
            _at_rest(service),
            Row(ONE_MORE, OWN, f"{ours.keepers:.2f} MB", f"mean of runs {FEW + 1} to {MANY}"),
            Row(ONE_MORE, "growth (PSS) of the process that starts it", f"{ours.starter:.2f} MB", "the same"),
        ]
        if "conmon" not in absent:
            rows += [*_beside_conmon(ours.keepers, Path(folder)), _slow_writer(service, Path(folder), rounds)]
    return rows


def _beside_conmon(ours: float, base: Path) -> list[Row]:
    peers = zip(("one more conmon's", "a lone conmon's"), _conmons(base), strict=True)
    return [
        Row(ONE_MORE, f"{OWN} / {whose}", f"{ours / theirs:.2f}", f"{ours:.2f} MB / {theirs:.2f} MB")
        for whose, theirs in peers
    ]


def _our_growth(base: Path) -> Weight:
    """Start runs from one process and return how much all that it has below it, but the commands, grows with each.

    A zygote is among that: pages that it shares with its forks count once, whoever they are booked to.
    """
    program = [sys.executable, "-m", "bench.many_runs", str(base), COMMAND]
    with subprocess.Popen(
        program, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as starter:
        few, many = _weights(starter.pid, cast("IO[str]", starter.stdin), cast("IO[str]", starter.stdout))
    return Weight(*((after - before) / (MANY - FEW) for before, after in zip(few, many, strict=True)))


def _weights(starter: int, orders: IO[str], pids: IO[str]) -> Iterator[Weight]:
    """Yield what a process, and what is below it, take with few runs and with many."""
    commands: list[int] = []
    for count in (FEW, MANY):
        while len(commands) < count:
            orders.write("\n")
            commands.append(int(pids.readline()))
        time.sleep(PAUSE)  # no event tells that the shims have nothing left to do
        _starter, *below = tree(starter, commands)
        yield Weight(pss_mb(*below), pss_mb(starter))


def _conmons(base: Path) -> tuple[float, float]:
    """Return what one more conmon takes where there are several, and what one alone does."""
    taken = {}
    for count in (1, FEW, MANY):
        with tempfile.TemporaryDirectory(dir=base) as folder, under_conmon(Path(folder), COMMAND, count) as conmons:
            time.sleep(PAUSE)  # as above
            taken[count] = pss_mb(*conmons)
    return (taken[MANY] - taken[FEW]) / (MANY - FEW), taken[1]


def _slow_writer(service: Service, base: Path, rounds: int) -> Row:
    """Let both keep such a command at the same time, so that nothing disturbs one alone."""
    ours = keepers(start_ticking(service))
    with under_conmon(base, TICKING) as conmon:
        wait_until(lambda: (base / "conmon-0" / "log").read_bytes().count(b"\n") >= FIRST_LINES)
        readings = [undisturbed(lambda: spent(ours, conmon)) for _ in range(rounds)]
    shim, theirs = (median(column) for column in zip(*readings, strict=True))
    shown = f"{shim * 1000:.1f} ms / {theirs * 1000:.1f} ms a second"
    return Row("a line each 5 ms", "CPU of shim and understudy / conmon", f"{shim / theirs:.2f}", shown)


def start_ticking(service: Service) -> int:
    """Start a command that prints a line each 5 ms, and return its pid once it has found its rhythm."""
    process = int(service.start(TICKING)["process_pid"])
    wait_until(lambda: service.total_lines() >= FIRST_LINES)
    return process


def spent(*keepers_of: list[int]) -> list[float]:
    """Return the processors' time that each of these takes for a second."""
    before, began = [cpu_ns(*pids) for pids in keepers_of], time.monotonic()
    time.sleep(SECONDS)  # what is measured goes on meanwhile
    passed = (time.monotonic() - began) * 1e9
    return [(cpu_ns(*pids) - then) / passed for pids, then in zip(keepers_of, before, strict=True)]


def _at_rest(service: Service) -> Row:
    service.start(COMMAND)
    parts = [(name(pid), pss_mb(pid)) for pid in service.at_rest()]
    readings = ", ".join(f"{who} {taken:.1f}" for who, taken in parts)
    return Row(
        "service at rest with one run", "PSS, added up", f"{sum(taken for _who, taken in parts):.1f} MB", readings
    )
