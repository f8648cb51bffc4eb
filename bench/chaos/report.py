"""Runs in the chaos runner: the account of a storm as rows of the bench's table."""

from __future__ import annotations

from collections.abc import Iterator

from bench.chaos.ledger import Ledger
from bench.chaos.plan import KINDS
from bench.table import Row


def rows(ledger: Ledger) -> list[Row]:
    """Return a row for each kind of fault, and those of the whole."""
    return [*_kinds(ledger), *_whole(ledger)]


def _kinds(ledger: Ledger) -> Iterator[Row]:
    for kind in dict.fromkeys(KINDS):
        left_out = [f"left out {count} times: {why}" for (what, why), count in ledger.skipped.items() if what == kind]
        faulty = [f"{count} x {what}" for (where, what), count in sorted(ledger.seen.items()) if where == kind]
        slowest = [
            f"{what} {seconds:.2f} s" for (where, what), seconds in sorted(ledger.slowest.items()) if where == kind
        ]
        told = "; ".join([*left_out, *faulty, f"slowest: {', '.join(slowest)}" if slowest else ""])
        yield Row(kind, "faults", str(ledger.done[kind]), told.strip("; "))


def _whole(ledger: Ledger) -> Iterator[Row]:
    yield Row("all", "faults", str(ledger.done.total()), f"{ledger.skipped.total()} left out")
    yield Row(
        "all",
        "runs checked",
        str(ledger.runs),
        f"{ledger.unknown_codes} exit codes told as unknown, {ledger.silent} ended before their first line",
    )
    yield Row("all", "lines lost as told", str(ledger.lost), "that a killed shim had read, or nothing could read")
    yield Row("all", "rests", str(ledger.rests), "measured: descriptors, threads, zombies, what is left")
    yield Row("all", "violations", str(len(ledger.violations)), "")
