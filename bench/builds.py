"""This build beside that of another commit, both running at once and called in turn: what a change costs."""

import compileall
import contextlib
import io
import shlex
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from bench.capture import TEXTS
from bench.contestants import Result, llm_shell
from bench.footprint import FIRST_LINES, TICKING, spent
from bench.reading import ages_in_logs
from bench.service import ROOT, Service, keepers, pss_mb, serving, wait_until
from bench.starts import COMMAND, kill, kill_at_once, start, start_after_a_pause
from bench.table import Row
from bench.timing import timed, undisturbed

# Both builds get the same shell: what is compared is the service, not bash with dash.
SHELL = "/bin/sh"
LOG_LINES = 1_000_000
WHAT = "this build / the other"


class Case(NamedTuple):
    """What is measured, how often, and what is live meanwhile: a command, and how many lines it prints first."""

    name: str
    measure: Callable[[Service], float]
    repeats: int
    live: str = ""
    lines: int = 0
    unit: str = "ms"


def measure(commit: str, rounds: int, scale: float, only: str) -> list[Row]:
    """Measure both builds by the cases whose name holds `only`; a figure is this build's median by the other's."""
    cases = [case for case in _cases(rounds, scale) if only in case.name]
    if not cases:
        raise SystemExit("\n".join(["no such case; there are:", *(case.name for case in _cases(rounds, scale))]))
    with contextlib.ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-shell-bench-")))
        builds = []
        roots = (ROOT, _checkout(commit, base / "checkout"))
        for name, root in zip(("ours", "theirs"), roots, strict=True):
            folder = base / name
            folder.mkdir()
            builds.append(stack.enter_context(serving(folder, root=root, LLM_SHELL_SHELL=SHELL)))
        rows = [_row(case, builds) for case in cases]
        ours, theirs = map(_code_lines, roots)
        code = Row("lines of app/, neither blank nor comment", WHAT, f"{ours / theirs:.3f}", f"{ours} / {theirs}")
        return [*rows, code]


def _cases(rounds: int, scale: float) -> Iterator[Case]:
    crowd = "for i in $(seq 30); do sleep 1000 & done; wait"
    yield Case("POST /start in a row, p50", start, 40 * rounds)
    yield Case("POST /start after a pause, p50", start_after_a_pause, 4 * rounds)
    yield Case("POST /kill of a run that has just started, p50", kill_at_once, 40 * rounds)
    yield Case("POST /kill, p50", kill, 40 * rounds)
    yield Case("POST /kill of a tree of 30, p50", partial(kill, command=crowd), 8 * rounds)
    yield Case("GET /status of a live run, p50 of 50", partial(_get, path="/status"), 20 * rounds, COMMAND)
    long_log = f"seq {LOG_LINES}; {COMMAND}"
    tail, last = "/logs?lines=100", "/logs?seconds=0.5"
    yield Case("GET /logs?lines=100, p50 of 50", partial(_get, path=tail), 20 * rounds, long_log, LOG_LINES)
    yield Case(
        "GET /logs?seconds=0.5 of a line each 5 ms, p50 of 50",
        partial(_get, path=last),
        20 * rounds,
        TICKING,
        FIRST_LINES,
    )
    yield Case("the whole of a log through /logs", partial(_get_whole, path="/logs"), 2 * rounds, long_log, LOG_LINES)
    for percent in (50, 99):
        name = f"a line each 5 ms, printed to readable, p{percent}"
        yield Case(name, partial(_freshness, percent=percent), 2 * rounds)
    yield Case("CPU of the keepers for a second of a line each 5 ms", _keepers_cpu, 2 * rounds, TICKING, FIRST_LINES)
    yield Case("memory (PSS) of the service with one run at rest", _memory, 2, unit="MB")
    for name, (text, count) in TEXTS.items():
        lines = int(count * scale)
        yield Case(f"capture of {name}", partial(_captured, text=text, lines=lines), 2 * rounds)
        yield Case(f"CPU of shim and worker for {name}", partial(_spent_on, text=text, lines=lines), 2 * rounds)


def _row(case: Case, builds: list[Service]) -> Row:
    """Measure both builds in turn, each as often first as the other."""
    for service in builds if case.live else ():
        service.start(case.live)
        wait_until(lambda service=service: service.total_lines() >= case.lines)
    readings: list[list[float]] = [[], []]
    for number in range(case.repeats):
        for which in (0, 1) if number % 2 else (1, 0):
            readings[which].append(undisturbed(partial(case.measure, builds[which])))
    ours, theirs = map(median, readings)
    factor = 1000 if case.unit == "ms" else 1
    shown = f"{ours * factor:.2f} {case.unit} / {theirs * factor:.2f} {case.unit}"
    return Row(case.name, WHAT, f"{ours / theirs:.2f}", shown)


def _get(service: Service, path: str) -> float:
    return median(timed(lambda: service.call("GET", path)) for _ in range(50))


def _get_whole(service: Service, path: str) -> float:
    return timed(lambda: service.call("GET", path))


def _memory(service: Service) -> float:
    service.start(COMMAND)
    return pss_mb(*service.at_rest())


def _freshness(service: Service, percent: int) -> float:
    return quantiles(ages_in_logs(service), n=100)[percent - 1]


def _keepers_cpu(service: Service) -> float:
    return spent(keepers(service.status()["process_pid"]))[0]


def _captured(service: Service, text: str, lines: int) -> float:
    return _flood(service, text, lines).seconds


def _spent_on(service: Service, text: str, lines: int) -> float:
    return _flood(service, text, lines).cpu or 0.0


def _flood(service: Service, text: str, lines: int) -> Result:
    return llm_shell(service, f"yes {shlex.quote(text)} | head -n {lines}")


def _code_lines(root: Path) -> int:
    """Count the lines of the service's code that are neither blank nor only a comment."""
    lines = (line.strip() for file in (root / "app").rglob("*.py") for line in file.read_text().splitlines())
    return sum(bool(line) and not line.startswith("#") for line in lines)


def _checkout(commit: str, folder: Path) -> Path:
    """Put the files of a commit into this folder, compiled like ours."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    compileall.compile_dir(str(folder / "app"), quiet=1)
    return folder
