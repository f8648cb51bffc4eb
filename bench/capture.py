"""Capture: how long until everything that a command printed can be read, beside the peers."""

import shlex
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median

from bench.contestants import PEERS, Result, llm_shell
from bench.service import Service, serving
from bench.table import Row
from bench.timing import undisturbed

OURS = "LLM Shell"
CONMONS = ["conmon", "conmon --no-sync-log"]
RICH = (
    '\x1b[32mok\x1b[0m "quoted" back\\slash \U0001f680 done in 12 ms: '
    "src/components/App.tsx, 42 modules, ünïcödé, all ok"
)
Texts = Mapping[str, tuple[str, int]]
# What lines hold, without their newlines, and how many of them make a case.
TEXTS: Texts = {
    "108-byte lines": ("x" * 107, 2_000_000),
    "8-byte lines": ("x" * 7, 10_000_000),
    "1 KB lines": ("x" * 1023, 200_000),
    "64 KB lines": ("x" * 65_000, 3_000),
    "108-byte lines with colours, quotes, emoji": (RICH, 2_000_000),
}


def measure(texts: Texts, rounds: int, scale: float, absent: set[str]) -> list[Row]:
    """Run every case `rounds` times, each contestant in another place from round to round."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="llm-shell-bench-") as base, serving(Path(base)) as service:
        for case, (text, count) in texts.items():
            lines = max(1000, int(count * scale))
            peers = PEERS if case == "108-byte lines" else ["plain file", *CONMONS]
            who = [OURS, *(peer for peer in peers if peer not in absent)]
            rows += _rows(f"{case}, {lines:,}", lines, _results(service, text, lines, who, rounds))
    return rows


def measure_cpu(texts: Texts, rounds: int, scale: float, absent: set[str]) -> list[Row]:
    """Let a gigabyte pass, which the start of a shim hardly shows in, and compare the processors' time."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="llm-shell-bench-") as base, serving(Path(base)) as service:
        who = [OURS, *(peer for peer in CONMONS if peer not in absent)]
        for case, (text, _count) in texts.items():
            if case == "8-byte lines":  # a gigabyte would be 125 million of them
                continue
            lines = int(10**9 * scale / (len(text.encode()) + 1))
            rows += _cpu_rows(f"1 GB of {case}", lines, _results(service, text, lines, who, rounds))
    return rows


def _results(service: Service, text: str, lines: int, who: list[str], rounds: int) -> dict[str, list[Result]]:
    command = f"yes {shlex.quote(text)} | head -n {lines}"
    results: dict[str, list[Result]] = defaultdict(list)
    for number in range(rounds):
        for contestant in _order(who, number):
            results[contestant].append(undisturbed(partial(_run, contestant, service, command)))
    if any(result.lines != lines for result in results[OURS]):
        raise RuntimeError(f"we kept {[result.lines for result in results[OURS]]} of {lines} lines of {text[:20]}")
    return results


def _order(who: list[str], number: int) -> list[str]:
    """Return who comes when in this round: whom one's write-back burdens, and its freed memory serves, changes."""
    turn = number % len(who)
    order = who[turn:] + who[:turn]
    return order[::-1] if number % 2 else order


def _run(contestant: str, service: Service, command: str) -> Result:
    if contestant == OURS:
        return llm_shell(service, command)
    with tempfile.TemporaryDirectory(prefix="llm-shell-bench-", ignore_cleanup_errors=True) as folder:
        return PEERS[contestant](Path(folder), command)


def _rows(case: str, lines: int, results: dict[str, list[Result]]) -> list[Row]:
    times = {who: median(result.seconds for result in found) for who, found in results.items()}
    rows = [
        Row(
            case,
            f"{OURS} / {who}",
            f"{times[OURS] / seconds:.2f}",
            f"{times[OURS]:.2f} s / {seconds:.2f} s{_missing(results[who], lines)}",
        )
        for who, seconds in times.items()
        if who != OURS
    ]
    rows += _cpu_rows(case, lines, results)
    peak = max(result.peak_kib or 0 for result in results[OURS])
    rows.append(Row(case, "shim's peak memory", f"{peak / 1024:.1f} MB", "VmHWM"))
    return rows


def _cpu_rows(case: str, lines: int, results: dict[str, list[Result]]) -> list[Row]:
    cpu = {who: median(result.cpu for result in found if result.cpu) for who, found in results.items() if found[0].cpu}
    ours = cpu.pop(OURS)
    what = "CPU of shim and worker, from the shim's start / {}"
    rows = []
    for who, theirs in cpu.items():
        readings = f"{ours:.2f} s / {theirs:.2f} s{_missing(results[who], lines)}"
        rows.append(Row(case, what.format(who), f"{ours / theirs:.2f}", readings))
    return rows


def _missing(results: list[Result], lines: int) -> str:
    """Say it when a peer did not keep everything: its time then says little."""
    least = min(result.lines for result in results)
    return f" (kept {least} of {lines} lines)" if least != lines else ""
