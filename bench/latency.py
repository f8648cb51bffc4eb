"""Latency: how quick the API is at rest and under a flood."""

import re
import subprocess
import tempfile
from pathlib import Path
from statistics import median, quantiles

from bench.service import Service, serving
from bench.table import Row
from bench.timing import timed, undisturbed


def measure(rounds: int) -> list[Row]:
    """Measure everything that is about one small call."""
    with tempfile.TemporaryDirectory(prefix="llm-shell-bench-") as base, serving(Path(base)) as service:
        rest = undisturbed(lambda: _at_rest_and_flooded(service))
    return [rest, _requests_per_second(rounds)]


def _at_rest_and_flooded(service: Service) -> Row:
    service.start("exec sleep 1000")
    rest = [timed(lambda: service.call("GET", "/status")) for _ in range(1000)]
    service.start("exec yes")
    flooded = [timed(lambda: service.call("GET", "/status")) for _ in range(1000)]
    service.call("POST", "/kill?type=SIGKILL")
    p99 = quantiles(flooded, n=100)[98], quantiles(rest, n=100)[98]
    readings = f"{p99[0] * 1000:.1f} ms / {p99[1] * 1000:.1f} ms"
    return Row("GET /status", "p99 of 1,000 while `yes` floods / at rest", f"{p99[0] / p99[1]:.2f}", readings)


def _requests_per_second(rounds: int) -> Row:
    """Let wrk ask an empty application and /status in turn, on the same gunicorn settings."""
    ratios, readings = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as base, serving(Path(base), "bench.empty_app:app") as empty:
            limit = undisturbed(lambda service=empty: _wrk(service, "/"))
        with tempfile.TemporaryDirectory() as base, serving(Path(base)) as service:
            service.start("exec sleep 1000")
            ours = undisturbed(lambda service=service: _wrk(service, "/status"))
        ratios.append(ours / limit)
        readings.append(f"{ours:.0f}/{limit:.0f}")
    what = "requests/s of a live run / of an empty WSGI app"
    return Row("GET /status", what, f"{median(ratios):.2f}", " ".join(readings))


def _wrk(service: Service, path: str) -> float:
    command = ["wrk", "-t1", "-c8", "-d3s", f"http://127.0.0.1:{service.port}{path}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([0-9.]+)", output)
    if found is None or "Non-2xx" in output:
        raise RuntimeError(output)
    return float(found[1])
