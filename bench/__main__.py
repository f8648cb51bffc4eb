"""Measure everything and print one table: `python -m bench`, or `make bench`."""

import argparse
import sys

from bench import capture, contestants, latency, reading, steps
from bench.table import Row, machine, render
from bench.timing import ATTEMPTS, undisturbed

PARTS = ("capture", "cpu", "reading", "latency", "steps")


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure LLM Shell beside its peers.")
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)}; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contestant runs (default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="size of outputs and logs (default: 1.0)")
    parser.add_argument("--lines", default="", help="only the floods whose name holds this, such as emoji")
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    texts = {name: text for name, text in capture.TEXTS.items() if arguments.lines in name}
    if not texts:
        parser.error(f"no such flood: {arguments.lines}; there are {', '.join(capture.TEXTS)}")
    absent = contestants.install() if {"capture", "cpu", "latency"} & set(parts) else set()
    rows: list[Row] = []
    if "capture" in parts:
        rows += capture.measure(texts, arguments.rounds, arguments.scale, absent)
    if "cpu" in parts:
        rows += capture.measure_cpu(texts, arguments.rounds, arguments.scale, absent)
    if "reading" in parts:
        rows += reading.measure(arguments.scale)
    if "latency" in parts:
        rows += latency.measure(arguments.rounds)
    if "steps" in parts:
        rows += steps.measure()
    if set(parts) - {"steps"}:
        what = f"at most taken from the processors by the host in what counts ({ATTEMPTS} attempts each)"
        rows.append(Row("the host", what, f"{undisturbed.worst:.0%}", "steal in /proc/stat"))
    print(f"{machine()}\n\n{render(rows)}")
    if absent:
        print(f"\nnot here, so not measured: {', '.join(sorted(absent))}", file=sys.stderr)


if __name__ == "__main__":
    main()
