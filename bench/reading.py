"""Reading: what GET /logs costs on small and large logs, beside GET /health of the same service."""

import json
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

from bench.service import Service, looks, memory_kib, serving, wait_until
from bench.table import Row
from bench.timing import timed, undisturbed

LINE = "x" * 107
RECORD = 173  # about what such a line takes in the log
REPEATS = 300
PRINTED = 1200
# Asleep between its lines: the measured program's rhythm, not a wait of ours.
CODE = f"import time\nfor _ in range({PRINTED}): print(time.time(), flush=True); time.sleep(0.005)"
CLOCK = shlex.join([sys.executable, "-c", CODE])


def measure(scale: float) -> list[Row]:
    """Make logs of three sizes and read them."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="llm-shell-bench-") as base, serving(Path(base)) as service:
        tails = {}
        for name, size in (("1 MB", 10**6), ("100 MB", 10**8), ("1 GB", 10**9)):
            lines = max(1000, int(size * scale / RECORD))
            began = _flood(service, lines)
            tails[name], health = _beside_health(service, lambda: service.call("GET", "/logs?lines=100"))
            rows.append(Row(f"log of {name}", "/logs?lines=100 / /health, p50", f"{tails[name]:.2f}", _ms(health)))
        rows.append(Row("1 MB to 1 GB", "lines=100, slowest / quickest", _spread(tails), "of the ratios above"))
        rows += [_last_seconds(service, began), *undisturbed(lambda: _whole(service))]
        rows.append(_freshness(service, Path(base)))
    return rows


def _flood(service: Service, lines: int) -> float:
    """Fill a log, let a second pass, print 100 more lines and stay; return when those were printed."""
    service.start(f"yes {LINE} | head -n {lines}; sleep 1; seq 1 100; exec sleep 1000")
    wait_until(lambda: service.total_lines() >= lines + 100)
    return time.monotonic()


def _last_seconds(service: Service, began: float) -> Row:
    def read() -> bytes:
        return service.call("GET", f"/logs?seconds={time.monotonic() - began + 0.6:.3f}")

    returned = json.loads(read())["lines_returned"]
    ratio, health = _beside_health(service, read)
    return Row("log of 1 GB", f"/logs?seconds=S ({returned} lines) / /health, p50", f"{ratio:.2f}", _ms(health))


def _whole(service: Service) -> list[Row]:
    """Read the whole log, both of its segments, through one answer."""
    log = Path(service.status()["log_file"])
    size = sum(segment.stat().st_size for segment in log.parent.glob(f"{log.stem}*.log"))
    before = memory_kib(service.worker, "VmRSS")
    peak, stop = [before], threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            peak.append(memory_kib(service.worker, "VmRSS"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    received = _received(service)
    seconds = time.perf_counter() - began
    stop.set()
    watcher.join()
    readings = f"{size / 1e6:.0f} MB, an answer of {received / 1e6:.0f} MB in {seconds:.1f} s"
    return [
        Row("log of 1 GB", "whole through /logs", f"{size / seconds / 1e6:.0f} MB/s of log", readings),
        Row("log of 1 GB", "worker's growth meanwhile", f"{(max(peak) - before) / 1024:.1f} MB", "VmRSS"),
    ]


def _received(service: Service) -> int:
    """Ask for everything and count the bytes, as a client that costs next to nothing."""
    total, buffer = 0, bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(b"GET /logs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while count := connection.recv_into(buffer):
            total += count
    return total


def _freshness(service: Service, folder: Path) -> Row:
    """Let a program print the time every 5 ms, and see how old each line is when it can be read.

    The same is done without us, in the same rhythm: what a plain file shows late, the machine has delayed.
    """
    ages = undisturbed(lambda: ages_in_logs(service))
    limit = undisturbed(lambda: _ages_in_a_file(service, folder / "plain"))
    p99, floor = quantiles(ages, n=100)[98] * 1000, quantiles(limit, n=100)[98] * 1000
    readings = (
        f"p50 {median(ages) * 1000:.1f} ms; in a plain file p99 {floor:.1f} ms, p50 {median(limit) * 1000:.1f} ms"
    )
    return Row("a line each 5 ms", "printed to readable, p99", f"{p99:.1f} ms", readings)


def ages_in_logs(service: Service) -> list[float]:
    """Return how old each line of such a program is when it can be read."""
    service.start(f"exec {CLOCK}")
    return _ages(lambda: str(json.loads(service.call("GET", "/logs?lines=100"))["content"]))


def _ages_in_a_file(service: Service, plain: Path) -> list[float]:
    with plain.open("w") as output, subprocess.Popen(shlex.split(CLOCK), stdout=output):
        return _ages(lambda: _tail_after_a_call(service, plain))


def _ages(read_tail: Callable[[], str]) -> list[float]:
    """Return the age of each line when it is first seen at the end of what was printed."""
    ages: list[float] = []
    last = 0.0
    for _ in looks(0.001):
        tail = read_tail()
        now = time.time()
        printed = [at for line in tail.split("\n") if line and (at := float(line)) > last]
        ages += [now - at for at in printed]
        last = printed[-1] if printed else last
        if len(ages) >= PRINTED:
            break
    return ages


def _tail_after_a_call(service: Service, plain: Path) -> str:
    service.call("GET", "/health")
    return "\n".join(plain.read_text().splitlines()[-100:])


def _beside_health(service: Service, call: Callable[[], bytes]) -> tuple[float, float]:
    """Return how many times as long a call takes as /health does, and how long that takes."""
    health, seconds = undisturbed(lambda: (_p50(lambda: service.call("GET", "/health")), _p50(call)))
    return seconds / health, health


def _p50(call: Callable[[], bytes]) -> float:
    return median(timed(call) for _ in range(REPEATS))


def _spread(tails: dict[str, float]) -> str:
    return f"{max(tails.values()) / min(tails.values()):.2f}"


def _ms(seconds: float) -> str:
    return f"/health {seconds * 1000:.2f} ms"
