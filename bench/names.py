"""Names: what many named processes cost, beside as many conmons, and calls beside 64 live ones."""

import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.contestants import under_conmon
from bench.service import PAUSE, Service, cpu_ns, pss_mb, serving, tree, wait_until
from bench.starts import COMMAND
from bench.table import Row
from bench.timing import timed, undisturbed

MANY = 100
LIVE = 64
LINES, SECONDS = 20, 20.0
# Asleep between its lines, each of which is one write: the measured program's rhythm, not a wait of ours.
CODE = f"import itertools, os, time\nfor n in itertools.count(): os.write(1, b'%d\\n' % n); time.sleep({1 / LINES})"
COUNTING = shlex.join(["exec", sys.executable, "-I", "-S", "-c", CODE])


def measure(rounds: int, absent: set[str]) -> list[Row]:
    """Measure both, the first beside conmon where that is there."""
    beside = [] if "conmon" in absent else [_at_rest(), *_lines()]
    return [*beside, *_calls(rounds)]


@contextmanager
def _service() -> Iterator[tuple[Service, Path]]:
    settings = {"LLM_SHELL_MAX_PROCESSES": str(2 * MANY)}
    with tempfile.TemporaryDirectory(prefix="llm-shell-bench-") as base, serving(Path(base), **settings) as service:
        yield service, Path(base)
        _kill_all(service)


def _start(service: Service, name: str, command: str = COMMAND) -> int:
    body = {"command": command, "name": name}
    return int(json.loads(service.call("POST", "/start", body))["process_pid"])


def _kill_all(service: Service) -> None:
    service.call("POST", "/kill?all=true&type=SIGKILL")


def _at_rest() -> Row:
    """Compare the memory of a service with many runs with that of one without, and as many conmons."""
    with _service() as (service, folder):
        service.call("GET", "/health")
        time.sleep(PAUSE)  # no event tells that nothing more will begin
        alone = pss_mb(*tree(service.pid))
        commands = [_start(service, f"n{number}") for number in range(MANY)]
        time.sleep(PAUSE)  # as above
        ours = pss_mb(*tree(service.pid, commands))
        _kill_all(service)
        with under_conmon(folder, COMMAND, MANY) as conmons:
            time.sleep(PAUSE)  # as above
            theirs = pss_mb(*conmons)
    what = f"memory (PSS) of the whole service / {MANY} conmons' and such a service's without runs"
    readings = f"{ours:.0f} MB / {theirs:.0f} MB + {alone:.0f} MB"
    return Row(f"{MANY} named processes at rest", what, f"{ours / (theirs + alone):.2f}", readings)


def _lines() -> list[Row]:
    """Have many processes print at the same time: count what is lost, and the processors' time that it takes."""
    names = [f"n{number}" for number in range(MANY)]
    with _service() as (service, folder), under_conmon(folder, COUNTING, MANY) as conmons:
        commands = [_start(service, name, COUNTING) for name in names]
        for name in names:
            wait_until(lambda name=name: _numbers(service, name, 1) >= [LINES])
        ours, theirs = undisturbed(lambda: _spent(tree(service.pid, commands), conmons))
        service.call("POST", "/kill?all=true")
        lost = sum(
            len(range(numbers[-1] + 1)) - len(numbers) for numbers in (_numbers(service, one, 0) for one in names)
        )
    case = f"{MANY} named processes, {LINES} lines/s each for {SECONDS:.0f} s"
    what = "CPU of service and shims / as many conmons'"
    readings = f"{ours:.2f} s / {theirs:.2f} s"
    return [Row(case, "lines lost", str(lost), ""), Row(case, what, f"{ours / theirs:.2f}", readings)]


def _numbers(service: Service, name: str, lines: int) -> list[int]:
    """Return the last numbers that a counter has printed, all for 0; an unfinished one is left out."""
    content = json.loads(service.call("GET", f"/logs?name={name}&lines={lines}"))["content"]
    return [int(line) for line in content.split("\n") if line]


def _spent(ours: list[int], theirs: list[int]) -> tuple[float, float]:
    """Return the seconds that the processors work for each of the two meanwhile."""
    before = cpu_ns(*ours), cpu_ns(*theirs)
    time.sleep(SECONDS)  # what is measured goes on meanwhile
    return (cpu_ns(*ours) - before[0]) / 1e9, (cpu_ns(*theirs) - before[1]) / 1e9


def _calls(rounds: int) -> list[Row]:
    """Time calls of a service with one live process and of one with many, in turn."""
    with _service() as (one, _), _service() as (many, _):
        for service, live in ((one, 1), (many, LIVE)):
            for number in range(live):
                _start(service, f"n{number}")
        statuses, lists = undisturbed(lambda: _reads(one, many, 100 * rounds))
        starts = undisturbed(lambda: _in_turn(_start_anew, one, many, 10 * rounds))
        kills = undisturbed(lambda: _kills(many, 2 * rounds))
    with_many = f"p50 with {LIVE} live processes / with one"
    return [
        _row("GET /status", with_many, *statuses),
        _row("POST /start", with_many, *starts),
        _row("GET /processes", f"p50 with {LIVE} live processes / GET /status", lists, statuses[0]),
        _row("POST /kill?all=true", f"of {LIVE} willing trees, p50 / POST /kill of one", *kills),
    ]


def _reads(one: Service, many: Service, repeats: int) -> tuple[tuple[float, float], float]:
    statuses = _in_turn(lambda service: timed(lambda: service.call("GET", "/status?name=n0")), one, many, repeats)
    return statuses, median(timed(lambda: many.call("GET", "/processes")) for _ in range(repeats))


def _in_turn(measure: Callable[[Service], float], one: Service, many: Service, repeats: int) -> tuple[float, float]:
    """Return the medians with many and with one."""
    pairs = [(measure(many), measure(one)) for _ in range(repeats)]
    of_many, of_one = map(median, zip(*pairs, strict=True))
    return of_many, of_one


def _start_anew(service: Service) -> float:
    service.call("POST", "/kill?name=n0&type=SIGKILL")
    return timed(lambda: _start(service, "n0"))


def _kills(many: Service, repeats: int) -> tuple[float, float]:
    """Time the kill of all, and of one; all live when it begins."""
    of_all, of_one = [], []
    for _ in range(repeats):
        of_all.append(timed(lambda: many.call("POST", "/kill?all=true")))
        for number in range(LIVE):
            _start(many, f"n{number}")
        of_one.append(timed(lambda: many.call("POST", "/kill?name=n0")))
        _start(many, "n0")
    return median(of_all), median(of_one)


def _row(case: str, what: str, ours: float, theirs: float) -> Row:
    return Row(case, what, f"{ours / theirs:.2f}", f"{ours * 1000:.2f} ms / {theirs * 1000:.2f} ms")
