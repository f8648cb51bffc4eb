"""Scale: what calls cost beside many runs."""

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from app.linux.proc import Identity
from app.log.clock import format_time
from app.log.record import Record, encode
from app.runs.record import RecordFile, RunRecord, State, record_path
from app.runs.spec import Spec
from bench.service import Service, memory_kib, serving, wait_until
from bench.starts import start
from bench.table import Row
from bench.timing import timed, undisturbed

FEW = 20
MANY = 10_000
_EPOCH = 1_000_000_000


def measure(rounds: int) -> list[Row]:
    """Measure lists, starts and the index beside few past runs and beside many."""
    with past_runs(FEW) as few, past_runs(MANY) as many:
        lists = undisturbed(lambda: _lists(few, many, 100 * rounds))
        starts, statuses = undisturbed(lambda: _starts_and_statuses(few, many, 10 * rounds))
        grown = memory_kib(many.worker, "VmRSS") - memory_kib(few.worker, "VmRSS")
    return [
        _row("GET /runs?limit=20", *lists),
        _row("POST /start", *starts),
        _row("GET /status", *statuses),
        Row("past runs", f"worker's memory with {MANY} / with {FEW}", f"{grown / 1024:.1f} MB", "VmRSS"),
        _row_of_build(),
    ]


@contextlib.contextmanager
def past_runs(count: int) -> Iterator[Service]:
    """Run a service on a directory with so many ended runs, once it lists them."""
    keep = {"LLM_SHELL_LOG_KEEP": str(2 * MANY)}
    with tempfile.TemporaryDirectory(prefix="llm-shell-bench-") as base:
        fill(Path(base) / "logs", count)
        with serving(Path(base), **keep) as service:
            service.call("GET", "/runs?limit=20")
            yield service


def fill(log_dir: Path, count: int) -> None:
    """Write record and log of so many ended runs, a second apart."""
    log_dir.mkdir()
    for number in range(count):
        second = _EPOCH + number
        at = format_time(second * 10**9)
        log = log_dir / f"{time.strftime('%Y-%m-%d_%H-%M-%S', time.gmtime(second))}.log"
        log.write_bytes(
            b"".join(encode(Record(seq, at, "a line of some length, as a test prints it")) for seq in range(1, 21))
        )
        record = RunRecord(
            run_id=log.stem,
            spec=Spec(f"npm run test -- --shard {number}/{count}", "/srv/site", {"CI": "1"}, "/bin/bash"),
            created_at=at,
            started_ns=second * 10**9,
            boottime_ns=1,
            boot_id="another",
            control="none",
            log_file=str(log),
            process=Identity(2**22 + 1, 1),
            state=State(stopped_at=at, exit_code=0, output_open=False, ended=True),
        )
        RecordFile(record_path(str(log))).write(record)


def _lists(few: Service, many: Service, repeats: int) -> tuple[float, float]:
    """Time pages of both in turn, at the beginning of the list and further back."""
    before = json.loads(many.call("GET", "/runs?limit=100"))["next"]
    with_few, with_many = [], []
    for number in range(repeats):
        with_few.append(timed(lambda: few.call("GET", "/runs?limit=20")))
        path = f"/runs?limit=20&before={before}" if number % 2 else "/runs?limit=20"
        with_many.append(timed(lambda path=path: many.call("GET", path)))
    return median(with_many), median(with_few)


def _starts_and_statuses(few: Service, many: Service, repeats: int) -> tuple[tuple[float, float], tuple[float, float]]:
    starts: dict[Service, list[float]] = {many: [], few: []}
    statuses: dict[Service, list[float]] = {many: [], few: []}
    for _ in range(repeats):
        for service in (few, many):
            starts[service].append(start(service))
            statuses[service] += [timed(lambda service=service: service.call("GET", "/status")) for _ in range(20)]
    return (median(starts[many]), median(starts[few])), (median(statuses[many]), median(statuses[few]))


def _row_of_build() -> Row:
    """Time a service's first answers where it has many runs, while it reads their records."""
    with tempfile.TemporaryDirectory(prefix="llm-shell-bench-") as base:
        fill(Path(base) / "logs", MANY)
        began = time.perf_counter()
        with serving(Path(base), LLM_SHELL_LOG_KEEP=str(2 * MANY)) as service:
            first = time.perf_counter() - began
            wait_until(lambda: json.loads(service.call("GET", "/runs?limit=1"))["runs"])
            listed = time.perf_counter() - began
    what = f"from the service's start to its first list of {MANY} runs / to its first answer"
    return Row("past runs", what, f"{listed / first:.2f}", f"{listed:.2f} s / {first:.2f} s")


def _row(call: str, with_many: float, with_few: float) -> Row:
    readings = f"{with_many * 1000:.2f} ms / {with_few * 1000:.2f} ms"
    return Row(call, f"p50 with {MANY} past runs / with {FEW}", f"{with_many / with_few:.2f}", readings)
