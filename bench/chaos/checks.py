"""Runs in the chaos runner: what a run's log and outcome say, held against what its command has noted; no process."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from bench.chaos.files import Log, Record
from bench.chaos.notes import Noted

SHOWN = 8


class Case(NamedTuple):
    """All that is known about a run that is over.

    `noted` is None where the command ended before its first note. `told` are the exit codes that callers were given
    at any time. `keepers_killed` counts its shims and understudies that a fault killed. `asked_to_end` tells whether a
    call or signal of ours could have ended it.
    """

    record: Record
    status: dict[str, Any]
    log: Log
    content: str
    noted: Noted | None
    told: frozenset[int]
    keepers_killed: int
    asked_to_end: bool


def violations(case: Case) -> list[str]:
    """Return, in words, what this run breaks of the promises."""
    return [*_lines(case), *_code(case), *_end(case)]


def _lines(case: Case) -> Iterator[str]:
    odd = [line for line in case.log.lines if not line.isdecimal()]
    if odd:
        yield f"lines that its command did not print: {_some(odd)}"
    numbers = [int(line) for line in case.log.lines if line.isdecimal()]
    if doubled := [number for number, times in Counter(numbers).items() if times > 1]:
        yield f"doubled lines: {_some(doubled)}"
    elif numbers != sorted(numbers):
        yield "lines out of order"
    if case.log.numbers != list(range(1, len(case.log.numbers) + 1)) and not case.record.losses:
        yield "seq is not 1, 2, 3, … and no incident says why"
    if case.log.damaged > case.record.takeovers:
        yield f"{case.log.damaged} damaged records of the log, {case.record.takeovers} takeovers"
    if case.content != "\n".join(case.log.lines):
        yield f"/logs gives {len(case.content.splitlines())} lines, the file has {len(case.log.lines)}, or others"
    if case.noted is not None:
        yield from _gaps(case, case.noted, frozenset(numbers))


def _gaps(case: Case, noted: Noted, logged: frozenset[int]) -> Iterator[str]:
    # A process may be killed between write(2) and its note of it.
    after = {max(noted.written | noted.refused, default=0) + 1}
    if invented := logged - noted.written - after:
        yield f"lines that were not printed: {_some(sorted(invented))}"
    if noted.refused and not _both_keepers_killed(case):
        yield f"nobody read the output (EPIPE): {_some(sorted(noted.refused))}"
    lost = sorted(noted.written - logged)
    gaps = [number for number in lost if number - 1 not in lost]
    # What a shim had read and not yet written is one stretch for each that died.
    told = _both_keepers_killed(case) and case.status["reason"]
    if len(gaps) > case.record.takeovers and not told:
        yield f"lost lines: {_some(lost)}, in {len(gaps)} stretches with {case.record.takeovers} takeovers told"


def _both_keepers_killed(case: Case) -> bool:
    """Tell whether nothing was left to read the output. One keeper's end must lose none, whatever else was killed."""
    return case.keepers_killed > 1


def _code(case: Case) -> Iterator[str]:
    code, reason = case.status["exit_code"], case.status["reason"]
    given = set(case.told)
    if code is not None:
        given.add(code)
    if code is None and not reason:
        yield "exit_code is null without a reason"
    if case.told and code is None:
        yield f"exit_code is null, after callers were given {_some(sorted(case.told))}"
    if case.noted is None:
        # Killed before its first note, or it never came to its program.
        invented = {each for each in given if each >= 0}
        true = "a signal's, for it noted nothing"
    elif case.noted.code is not None:
        invented = given - {case.noted.code}
        true = str(case.noted.code)
    else:
        # No kernel's word: it ended as it said, or was ended by a signal before or while it said so.
        invented = {each for each in given if each >= 0} - {case.noted.said}
        true = f"{case.noted.said} or a signal's"
    if invented:
        yield f"invented exit code: {_some(sorted(invented))}, the true one is {true}"


def _end(case: Case) -> Iterator[str]:
    if case.noted is None:
        return
    code = case.noted.code
    if code == -signal.SIGPIPE and _both_keepers_killed(case):
        return
    if code is not None and code < 0 and not case.asked_to_end:
        yield f"it ended by signal {-code}, which was not asked for"
    if code is not None and code >= 0 and code != case.noted.said:
        yield f"its command ended with {code}, and has noted {case.noted.said}"


def _some(values: list[Any]) -> str:
    rest = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(map(repr, values[:SHOWN])) + rest
