"""This build beside that of another commit, both running at once and called in turn: what a change costs."""

import compileall
import contextlib
import io
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.capture import TEXTS
from bench.contestants import llm_shell
from bench.latency import ready_shim, wait_for_shim
from bench.service import ROOT, Service, memory_kib, parent, serving, wait_until
from bench.table import Row
from bench.timing import timed, undisturbed

# Both builds get the same shell: what is compared is the service, not bash with dash.
SHELL = "/bin/sh"
FLOODS = ("108-byte lines", "8-byte lines", "108-byte lines with colours, quotes, emoji")
LOG_LINES = 1_000_000
CODE = "import itertools, time\nfor n in itertools.count(): print(n, flush=True); time.sleep(0.005)"
TICKING = shlex.join(["exec", sys.executable, "-c", CODE])


class Case(NamedTuple):
    """What is measured, how often, and what is live meanwhile: a command, and how many lines it prints first."""

    name: str
    measure: Callable[[Service], float]
    repeats: int
    live: str = ""
    lines: int = 0
    unit: str = "ms"


def measure(commit: str, rounds: int, scale: float) -> list[Row]:
    """Measure calls and floods of both builds; a figure is this build's median by the other's."""
    with contextlib.ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-shell-bench-")))
        builds = []
        for name, root in (("ours", ROOT), ("theirs", _checkout(commit, base / "checkout"))):
            folder = base / name
            folder.mkdir()
            builds.append(stack.enter_context(serving(folder, root=root, LLM_SHELL_SHELL=SHELL)))
        return [_row(case, builds) for case in _cases(rounds, scale)]


def _cases(rounds: int, scale: float) -> Iterator[Case]:
    crowd = "for i in $(seq 30); do sleep 1000 & done; wait"
    yield Case("POST /start in a row, p50", _start, 40 * rounds)
    yield Case("POST /start, a shim stands by, p50", _start_after_a_pause, 4 * rounds)
    yield Case("POST /kill, p50", _kill, 40 * rounds)
    yield Case("POST /kill of a tree of 30, p50", partial(_kill, command=crowd), 8 * rounds)
    yield Case("GET /status of a live run, p50 of 50", partial(_get, path="/status"), 20 * rounds, "exec sleep 1000")
    long_log = f"seq {LOG_LINES}; exec sleep 1000"
    yield Case(
        "GET /logs?lines=100, p50 of 50", partial(_get, path="/logs?lines=100"), 20 * rounds, long_log, LOG_LINES
    )
    yield Case(
        "GET /logs?seconds=0.5 of a line each 5 ms, p50 of 50",
        partial(_get, path="/logs?seconds=0.5"),
        20 * rounds,
        TICKING,
        200,
    )
    yield Case("the whole of a log through /logs", partial(_get_whole, path="/logs"), 2 * rounds, long_log, LOG_LINES)
    yield Case("CPU of the shim for a second of a line each 5 ms", _shim_cpu, 2 * rounds, TICKING, 200)
    yield Case("memory of master, worker and shims at rest", _memory, 2, "exec sleep 1000", unit="MB")
    for name in FLOODS:
        text, count = TEXTS[name]
        yield Case(f"capture of {name}", partial(_flood, text=text, lines=int(count * scale)), 2 * rounds)


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
    return Row(case.name, "this build / the other", f"{ours / theirs:.2f}", shown)


def _start(service: Service) -> float:
    with contextlib.suppress(RuntimeError):  # nothing to kill
        service.call("POST", "/kill?type=SIGKILL")
    return timed(lambda: service.start("exec sleep 1000"))


def _start_after_a_pause(service: Service) -> float:
    with contextlib.suppress(RuntimeError):  # nothing to kill
        service.call("POST", "/kill?type=SIGKILL")
    ready_shim(service)
    return timed(lambda: service.start("exec sleep 1000"))


def _kill(service: Service, command: str = "exec sleep 1000") -> float:
    service.start(command)
    wait_for_shim(service)
    return timed(lambda: service.call("POST", "/kill"))


def _get(service: Service, path: str) -> float:
    return median(timed(lambda: service.call("GET", path)) for _ in range(50))


def _get_whole(service: Service, path: str) -> float:
    return timed(lambda: service.call("GET", path))


def _shim_cpu(service: Service) -> float:
    # In nanoseconds (Documentation/scheduler/sched-stats.rst): a tick of /proc/PID/stat is a tenth of what is measured.
    spent = Path(f"/proc/{parent(service.status()['process_pid'])}/schedstat")
    before, began = int(spent.read_text().split()[0]), time.monotonic()
    time.sleep(4)  # what is measured goes on meanwhile
    return (int(spent.read_text().split()[0]) - before) / 1e9 / (time.monotonic() - began)


def _memory(service: Service) -> float:
    shims = parent(service.status()["process_pid"]), ready_shim(service)
    return sum(memory_kib(pid, "VmRSS") for pid in (service.pid, service.worker, *shims)) / 1024


def _flood(service: Service, text: str, lines: int) -> float:
    return llm_shell(service, f"yes '{text}' | head -n {lines}").seconds


def _checkout(commit: str, folder: Path) -> Path:
    """Put the files of a commit into this folder, compiled like ours."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    compileall.compile_dir(str(folder / "app"), quiet=1)
    return folder
