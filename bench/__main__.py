"""Measure everything and print one table: `python -m bench`, or `make bench`."""

import argparse
import sys
from collections.abc import Callable, Sequence

from bench import (
    builds,
    capture,
    contestants,
    footprint,
    latency,
    names,
    nonblocking,
    programs,
    reading,
    scale,
    starts,
    steps,
)
from bench.table import Row, machine, render
from bench.timing import ATTEMPTS, undisturbed

PARTS = ("capture", "cpu", "reading", "starts", "latency", "footprint", "names", "scale", "nonblocking", "steps")


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure LLM Shell beside its peers.")
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)}; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contestant runs (default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="size of outputs and logs (default: 1.0)")
    parser.add_argument("--lines", default="", help="only the floods whose name holds this, such as emoji")
    parser.add_argument("--before", metavar="COMMIT", help="measure this build beside that commit's, and nothing else")
    parser.add_argument(
        "--only", default="", help="with --before or programs: only what has this in its name, such as /kill"
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="programs: begin none after these (default: 20)")
    arguments = parser.parse_args()
    if arguments.parts == ["programs"]:
        programs.measure(arguments.only, arguments.minutes)
        return
    if arguments.before:
        rows = builds.measure(arguments.before, arguments.rounds, arguments.scale, arguments.only)
        print(f"{machine()}\n\n{render(rows)}")
        return
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    texts = {name: text for name, text in capture.TEXTS.items() if arguments.lines in name}
    if not texts:
        parser.error(f"no such flood: {arguments.lines}; there are {', '.join(capture.TEXTS)}")
    _measure(arguments.parts or PARTS, texts, arguments.rounds, arguments.scale)


def _measure(parts: Sequence[str], texts: capture.Texts, rounds: int, size: float) -> None:
    """Measure these parts beside the peers, and print the table."""
    absent = contestants.install() if {"capture", "cpu", "latency", "footprint", "names"} & set(parts) else set()
    measures: dict[str, Callable[[], list[Row]]] = {
        "capture": lambda: capture.measure(texts, rounds, size, absent),
        "cpu": lambda: capture.measure_cpu(texts, rounds, size, absent),
        "reading": lambda: reading.measure(size),
        "starts": lambda: starts.measure(rounds),
        "latency": lambda: latency.measure(rounds),
        "footprint": lambda: footprint.measure(rounds, absent),
        "names": lambda: names.measure(rounds, absent),
        "scale": lambda: scale.measure(rounds),
        "nonblocking": lambda: nonblocking.measure(rounds),
        "steps": steps.measure,
    }
    rows = [row for part, measure in measures.items() if part in parts for row in measure()]
    if set(parts) - {"steps"}:
        what = f"at most taken from the processors by the host in what counts ({ATTEMPTS} attempts each)"
        rows.append(Row("the host", what, f"{undisturbed.worst:.0%}", "steal in /proc/stat"))
    print(f"{machine()}\n\n{render(rows)}")
    if absent:
        print(f"\nnot here, so not measured: {', '.join(sorted(absent))}", file=sys.stderr)


if __name__ == "__main__":
    main()
