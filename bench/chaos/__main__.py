"""`python -m bench.chaos`, or `make chaos`: random faults for a time; fails when any promise was broken."""

import argparse
import contextlib
import itertools
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench.chaos.calls import Caller
from bench.chaos.faults import World
from bench.chaos.host import BrokenPromiseError, Host
from bench.chaos.ledger import Ledger
from bench.chaos.notes import Notebook
from bench.chaos.plan import plan
from bench.chaos.report import rows
from bench.chaos.storm import Storm
from bench.table import machine, render

SHOWN = 40


def main() -> None:
    """Throw faults as long as asked for, and print what was done and seen."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description="Throw random faults at LLM Shell.")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, help="repeat the faults of a run that printed this (default: a random one)")
    parser.add_argument("--steps", help="only these faults of the plan, as in 12 or 3-40 (default: all)")
    asked = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if asked.seed is None else asked.seed
    first, _, last = (asked.steps or "1-").partition("-")
    bounds = int(first), int(last or first) if asked.steps else None
    # So that what was started is ended on the way out, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="llm-shell-chaos-"))
    print(f'seed {seed} in {folder}: CHAOS="--minutes {asked.minutes:g} --seed {seed}" repeats it', flush=True)
    ledger = run(folder, seed, asked.minutes * 60, bounds)
    print(f"{machine()}\n\n{render(rows(ledger))}")
    if not ledger.violations:
        shutil.rmtree(folder)
        return
    told = "\n".join(map(str, ledger.violations[:SHOWN]))
    sys.exit(
        f"\n{len(ledger.violations)} violations with seed {seed}; logs, notes and journal are kept in {folder}\n{told}"
    )


def run(folder: Path, seed: int, seconds: float, bounds: tuple[int, int | None]) -> Ledger:
    """Throw the faults of a seed for so long, and return what was done and seen."""
    notes = folder / "notes"
    notes.mkdir()
    host = Host(folder)
    ledger = Ledger(folder / "journal.log")
    notebook = Notebook(notes)
    caller = Caller(lambda: host.port)
    storm = Storm(World(host, caller, notebook, ledger))
    steps = itertools.islice(plan(seed), bounds[0] - 1, bounds[1])
    try:
        storm.prepare()
        until = time.monotonic() + seconds
        for step in itertools.takewhile(lambda _: time.monotonic() < until, steps):
            storm.throw(step)
        storm.finish()
    except BrokenPromiseError as error:
        ledger.violate(f"{error}; nothing more could be tried")
    finally:
        caller.pause()
        host.end_everything()
        notebook.close()
        with contextlib.suppress(OSError):  # the disk is full, perhaps; the rest was written
            ledger.close()
    return ledger


if __name__ == "__main__":
    main()
