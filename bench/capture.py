"""Capture: how long until everything that a command printed can be read, beside the peers."""

import shlex
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import median

from bench.contestants import PEERS, Result, llm_shell
from bench.service import Service, serving
from bench.table import Row
from bench.timing import undisturbed

OURS = "LLM Shell"
RICH = '\x1b[32mok\x1b[0m "quoted" back\\slash \U0001f680 done in 12 ms: src/components/App.tsx, 42 modules, ünïcödé!!!'

GIGABYTES = {
    "108-byte lines": "x" * 107,
    "1 KB lines": "x" * 1023,
    "64 KB lines": "x" * 65_000,
    "108-byte lines with colours, quotes, emoji": RICH,
}


def cases(scale: float) -> dict[str, tuple[str, int, list[str]]]:
    """Return each case's command, number of lines, and contestants beside ours."""
    everybody = list(PEERS)
    short = ["plain file", "conmon", "conmon --no-sync-log"]

    def lines(text: str, count: int, who: list[str]) -> tuple[str, int, list[str]]:
        wanted = max(1000, int(count * scale))
        return f"yes {shlex.quote(text)} | head -n {wanted}", wanted, who

    return {
        "108-byte lines, 2 million": lines("x" * 107, 2_000_000, everybody),
        "8-byte lines, 10 million": lines("x" * 7, 10_000_000, short),
        "1 KB lines, 200,000": lines("x" * 1023, 200_000, short),
        "64 KB lines, 3,000": lines("x" * 65_000, 3_000, short),
        "108-byte lines with colours, quotes, emoji, 2 million": lines(RICH, 2_000_000, short),
    }


def measure(rounds: int, scale: float, absent: set[str]) -> list[Row]:
    """Run every case `rounds` times, each contestant in another place from round to round."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="llm-shell-bench-") as base, serving(Path(base)) as service:
        for case, (command, lines, peers) in cases(scale).items():
            who = [OURS, *(peer for peer in peers if peer not in absent)]
            rows += _rows(case, lines, _results(service, command, lines, who, rounds))
    return rows


def measure_cpu(rounds: int, scale: float, absent: set[str]) -> list[Row]:
    """Let a gigabyte pass, which the start of a shim hardly shows in, and compare the processors' time."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="llm-shell-bench-") as base, serving(Path(base)) as service:
        who = [OURS, *({"conmon", "conmon --no-sync-log"} - absent)]
        for case, text in GIGABYTES.items():
            lines = int(10**9 * scale / (len(text.encode()) + 1))
            command = f"yes {shlex.quote(text)} | head -n {lines}"
            rows += _cpu_rows(f"1 GB of {case}", _results(service, command, lines, who, rounds))
    return rows


def _results(service: Service, command: str, lines: int, who: list[str], rounds: int) -> dict[str, list[Result]]:
    results: dict[str, list[Result]] = defaultdict(list)
    for number in range(rounds):
        turn = number % len(who)
        for contestant in who[turn:] + who[:turn]:
            results[contestant].append(undisturbed(partial(_run, contestant, service, command)))
    if any(result.lines != lines for result in results[OURS]):
        raise RuntimeError(f"we kept {[result.lines for result in results[OURS]]} of {lines} lines: {command}")
    return results


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
    rows += _cpu_rows(case, results)
    peak = max(result.peak_kib or 0 for result in results[OURS])
    rows.append(Row(case, "shim's peak memory", f"{peak / 1024:.1f} MB", "VmHWM"))
    return rows


def _cpu_rows(case: str, results: dict[str, list[Result]]) -> list[Row]:
    cpu = {who: median(result.cpu for result in found if result.cpu) for who, found in results.items() if found[0].cpu}
    ours = cpu.pop(OURS)
    what = "CPU of shim and worker, from the shim's start / {}"
    return [
        Row(case, what.format(who), f"{ours / theirs:.2f}", f"{ours:.2f} s / {theirs:.2f} s")
        for who, theirs in cpu.items()
    ]


def _missing(results: list[Result], lines: int) -> str:
    """Say it when a peer did not keep everything: its time then says little."""
    least = min(result.lines for result in results)
    return f" (kept {least} of {lines} lines)" if least != lines else ""
