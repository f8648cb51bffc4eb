"""Runs in the chaos runner: what was done and when, and what broke a promise meanwhile."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from bench.chaos.calls import Answer, Window
from bench.chaos.plan import Step

# After an answer that did not come, the shim may go on with the stop for its grace and a little.
UNHEARD_FOR = 15.0


class Violation(NamedTuple):
    """One broken promise, and the faults in whose time it was broken: for a run all since its start."""

    steps: str
    run_id: str
    what: str

    def __str__(self) -> str:
        return f"fault {self.steps}{f'; run {self.run_id}' if self.run_id else ''}: {self.what}"


class Ending(NamedTuple):
    """The wall-clock time in which something of ours could end a run; one created later only if `newer` is set."""

    began: float
    ended: float
    newer: bool


class Ledger:
    """Keep the account of one storm; several threads write it."""

    def __init__(self, journal: Path) -> None:
        self.done: Counter[str] = Counter()
        self.skipped: Counter[tuple[str, str]] = Counter()
        self.seen: Counter[tuple[str, str]] = Counter()
        self.slowest: dict[tuple[str, str], float] = {}
        self.violations: list[Violation] = []
        self.runs = 0
        self.lost = 0
        self.unknown_codes = 0
        self.silent = 0
        self.rests = 0
        self._journal = journal.open("w")
        self._lock = threading.Lock()
        self._begun: list[tuple[float, str]] = [(0.0, "0, before the first")]
        self._windows: list[Window] = []
        self._endings: list[Ending] = []

    def begin(self, step: Step) -> None:
        """Note which fault comes now."""
        self._begun.append((time.time(), str(step)))
        self.write(str(step))

    def skip(self, step: Step, reason: str) -> None:
        """Note that a fault could not be thrown."""
        self.skipped[step.kind, reason] += 1
        self.write(f"{step.number} {step.kind} is left out: {reason}")

    def violate(self, what: str, run_id: str = "", since: float | None = None) -> None:
        """Note a broken promise, of a run that was started at a time, or of the service now."""
        steps = [step for at, step in self._begun if since is not None and at >= since]
        violation = Violation("; ".join(steps or [step for _, step in self._begun[-1:]]), run_id, what)
        with self._lock:
            self.violations.append(violation)
        self.write(f"VIOLATION {violation}")

    def write(self, text: str) -> None:
        """Add a line to the journal."""
        with self._lock:
            self._journal.write(f"{datetime.now().astimezone().isoformat(timespec='milliseconds')} {text}\n")
            self._journal.flush()

    def could_end(self, began: float, answer: Answer | None, *, newer: bool, ok: int = 200) -> None:
        """Note that something of ours could end a run, from `began` until its answer, or for a while without one."""
        unheard = answer is None or answer.status not in {ok, 400, 404, 409, 429}
        self._endings.append(Ending(began, time.time() + (UNHEARD_FOR if unheard else 0.0), newer))

    def asked_to_end(self, created: float, stopped: float) -> bool:
        """Tell whether something of ours could have ended a run of this time."""
        return any(
            each.began <= stopped and each.ended >= created and (each.newer or each.began >= created)
            for each in self._endings
        )

    def judge(self, window: Window, answers: list[Answer]) -> None:
        """Count the answers of a fault's time, and find those that it does not explain, nor do the last before it."""
        self._windows = [*self._windows[-2:], window]
        for answer in answers:
            what = "reads" if answer.reads else answer.call.partition("?")[0]
            key = window.kind, what
            self.slowest[key] = max(self.slowest.get(key, 0.0), answer.took)
            if answer.fault is None:
                continue
            self.seen[window.kind, answer.fault] += 1
            if not any(each.excuses(answer) for each in self._windows):
                self.violate(
                    f"{answer.call}: {answer.fault} after {answer.took:.2f} s, explained by no fault: {answer.body}"
                )

    def close(self) -> None:
        """End the journal."""
        self._journal.close()
