"""Output that a program makes non-blocking for all others: in how many runs a flood loses lines then."""

import tempfile
from pathlib import Path

from bench.contestants import llm_shell
from bench.service import serving
from bench.table import Row

SETS = "/usr/bin/python3 -c 'import os, time; {}os.set_blocking(1, False); {}'"
LATER = SETS.format("time.sleep(0.2); ", "time.sleep(3)")
STAYS = "print(flush=True); time.sleep(3)"
SEQ = 'seq -f "%.0f, and some words more" 1 {0}'
CAT = "cat {1}"
CASES = {
    "set at once before a flood of seq": f"{SETS.format('', '')}; {SEQ}",
    "set at once before a flood of cat": f"{SETS.format('', '')}; {CAT}",
    "set by a program that prints, and stays": f"{SETS.format('', STAYS)} & sleep 0.5; {CAT}",
    "set amid a flood of seq": f"{LATER} & {SEQ}",
    "set amid a flood of cat": f"{LATER} & {CAT}; {CAT}",
}
LINES = 1_000_000
LINE = "0123456789" * 9 + "\n"
RUNS = 10


def measure(rounds: int) -> list[Row]:
    """Run each case ten times a round."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="llm-shell-bench-") as base, serving(Path(base)) as service:
        lines = Path(base) / "lines"
        lines.write_text(LINE * LINES)
        for case, command in CASES.items():
            wanted = LINES * max(1, command.count(CAT))
            found = [llm_shell(service, command.format(LINES, lines)).lines for _ in range(RUNS * rounds)]
            lost = [max(0, wanted - kept) for kept in found]
            runs = sum(map(bool, lost))
            readings = f"{sum(lost) / len(lost) / wanted:.0%} of all lines"
            rows.append(Row(f"O_NONBLOCK {case}", "runs that lost lines", f"{runs} of {len(found)}", readings))
    return rows
