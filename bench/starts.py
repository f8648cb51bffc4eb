"""Starts and kills: how long they take beside the start of a bare interpreter."""

import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.service import PAUSE, Service, serving, wait_until
from bench.table import Row
from bench.timing import timed, undisturbed

COMMAND = "exec sleep 1000"
BARE = "a bare `python -I -c pass`"


def measure(rounds: int) -> list[Row]:
    """Start and kill one run after the other, each beside a bare interpreter."""
    with tempfile.TemporaryDirectory(prefix="llm-shell-bench-") as base, serving(Path(base)) as service:
        return undisturbed(lambda: _in_a_row(service, 20 * rounds)) + undisturbed(lambda: _paused(service, 5 * rounds))


def _in_a_row(service: Service, repeats: int) -> list[Row]:
    bare, starts, kills, late_kills = [], [], [], []
    for _ in range(repeats):
        bare.append(_bare())
        starts.append(start(service))
        kills.append(timed(lambda: service.call("POST", "/kill")))
        late_kills.append(kill(service))
    return [
        _row("POST /start", "starts in a row", starts, bare),
        _row("POST /kill", "of a run that has just started", kills, bare),
        _row("POST /kill", "of a run whose record names its shim", late_kills, bare),
    ]


def _paused(service: Service, repeats: int) -> list[Row]:
    pairs = [(start_after_a_pause(service), _bare()) for _ in range(repeats)]
    starts, bare = map(list, zip(*pairs, strict=True))
    return [_row("POST /start", f"after a pause of {PAUSE:.0f} s", starts, bare)]


def start(service: Service) -> float:
    """Time a start where nothing lives."""
    with contextlib.suppress(RuntimeError):  # nothing to kill
        service.call("POST", "/kill?type=SIGKILL")
    return timed(lambda: service.start(COMMAND))


def start_after_a_pause(service: Service) -> float:
    """Time the same once the service has done all that follows a start and a kill."""
    service.start(COMMAND)
    service.call("POST", "/kill?type=SIGKILL")
    time.sleep(PAUSE)  # the pause that is measured
    return timed(lambda: service.start(COMMAND))


def kill_at_once(service: Service, command: str = COMMAND) -> float:
    """Time a kill that follows the answer to the start."""
    service.start(command)
    return timed(lambda: service.call("POST", "/kill"))


def kill(service: Service, command: str = COMMAND) -> float:
    """Time a kill once the shim has written its first record, and so named itself there."""
    record = Path(service.start(command)["log_file"]).with_suffix(".json")
    wait_until(lambda: '"shim":' in record.read_text())
    return timed(lambda: service.call("POST", "/kill"))


def _bare() -> float:
    return timed(lambda: subprocess.run([sys.executable, "-I", "-c", "pass"], check=True))


def _row(call: str, what: str, ours: list[float], bare: list[float]) -> Row:
    readings = f"{median(ours) * 1000:.1f} ms / {median(bare) * 1000:.1f} ms"
    return Row(call, f"{what}, p50 / {BARE}", f"{median(ours) / median(bare):.2f}", readings)
