"""`make chaos` itself: its plan is repeatable, and its checks find each kind of broken promise, planted here."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

from bench.chaos import checks
from bench.chaos.calls import Answer, Window, excuse_of
from bench.chaos.files import Log, Record, parse_record
from bench.chaos.notes import Noted, parse
from bench.chaos.plan import KINDS, Call, Limit, Reload, Step, Strike, plan


def steps(seed: int, count: int = 10 * len(KINDS)) -> list[Step]:
    """Return the first faults of a seed."""
    return list(itertools.islice(plan(seed), count))


def noted(written: int = 5, code: int | None = 3, refused: int = 0, said: int | None = 3) -> Noted:
    """Return what a command has noted that printed so many lines."""
    events = ["pid 4242 77 process", *(f"line {n}" for n in range(1, written + 1))]
    events += [f"refused {n}" for n in range(written + 1, written + refused + 1)]
    events += [] if said is None else [f"exit {said}"]
    return parse("talk-1.4242", "\n".join(events) + "\n", code)


def told(code: int | None = 3, reason: str | None = None) -> dict[str, Any]:
    """Return what a status object says at the end."""
    return {"exit_code": code, "reason": reason}


def record(takeovers: int = 0) -> Record:
    """Return the record of a run that is over."""
    state = {"ended": True, "trouble": {"takeovers": takeovers} if takeovers else {}}
    return parse_record({"run_id": "run", "spec": {"command": "talk-1"}, "process": [4242, 77], "state": state})


def logged(*lines: str, takeovers: int = 0) -> checks.Case:
    """Return a run with this log, of which so many takeovers are told."""
    log = Log(list(lines), list(range(1, len(lines) + 1)), 0)
    reason = "Incidents" if takeovers else None
    return KEPT._replace(log=log, content="\n".join(lines), record=record(takeovers), status=told(reason=reason))


def outcome(code: int | None, reason: str | None = None, notes: Noted | None = None) -> checks.Case:
    """Return a run with this outcome."""
    return KEPT._replace(status=told(code, reason), noted=notes or noted())


KEPT = checks.Case(
    record=record(),
    status=told(),
    log=Log(list("12345"), [1, 2, 3, 4, 5], 0),
    content="1\n2\n3\n4\n5",
    noted=noted(),
    told=frozenset(),
    keepers_killed=0,
    asked_to_end=False,
)
"""A run that kept all promises."""


def found(run: checks.Case) -> str:
    """Return all violations as one text."""
    return "; ".join(checks.violations(run))


def test_a_seed_gives_the_same_faults_again_and_another_gives_others() -> None:
    """The plan is a function of the seed alone."""
    assert steps(7) == steps(7)
    assert steps(7) != steps(8)
    assert [step.number for step in steps(7, 5)] == [1, 2, 3, 4, 5]


def test_every_kind_comes_once_before_any_comes_again() -> None:
    """However short a run is, no kind is left out by chance for long."""
    kinds = [step.kind for step in steps(3)]
    for first in range(0, len(kinds), len(KINDS)):
        assert Counter(kinds[first : first + len(KINDS)]) == Counter(KINDS)


def test_parts_of_a_fault_are_timed_from_its_beginning_and_bounded() -> None:
    """No part waits for a time that is over, and nothing stays stopped, lowered or delayed for long."""
    for step in steps(5):
        times = [action.at for action in step.actions]
        assert times[0] == 0
        assert times == sorted(times)
        assert times[-1] <= 1.2
        held = [action.seconds or 0 for action in step.actions if isinstance(action, Strike | Limit)]
        assert all(0 <= seconds <= 3 for seconds in held)


def test_a_lowered_limit_is_always_met_by_a_call() -> None:
    """A limit that nothing runs into would prove nothing."""
    limited = [step for step in steps(5) if any(isinstance(action, Limit) for action in step.actions)]
    assert limited
    assert all(any(isinstance(action, Call) for action in step.actions) for step in limited)


def test_a_shim_is_killed_within_a_second_of_a_reload() -> None:
    """The two are thrown together, in that order."""
    pairs = [step for step in steps(5) if step.kind == "reload, then kill shim"]
    for step in pairs:
        at = {type(action): action.at for action in step.actions}
        assert 0 <= at[Strike] - at[Reload] <= 1
    assert pairs


def test_a_run_that_kept_its_promises_has_no_violation() -> None:
    """Lines, code and reason as noted: nothing is found."""
    assert found(KEPT) == ""


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        pytest.param(logged(*"1245"), "lost lines: 3, in 1 stretches with 0 takeovers", id="lost"),
        pytest.param(logged(*"1234"), "lost lines: 5", id="lost at the end"),
        pytest.param(logged(*"245", takeovers=1), "lost lines: 1, 3, in 2 stretches", id="lost twice"),
        pytest.param(logged(*"23")._replace(keepers_killed=2), "lost lines: 1, 4, 5", id="lost without a word"),
        pytest.param(logged(*"122345"), "doubled lines: 2", id="doubled"),
        pytest.param(logged(*"122345", takeovers=1), "doubled lines: 2", id="doubled at a takeover"),
        pytest.param(logged(*"13245"), "lines out of order", id="out of order"),
        pytest.param(logged(*"123457"), "lines that were not printed: 7", id="never printed"),
        pytest.param(logged(*"12345", "6x"), "did not print: '6x'", id="of another"),
        pytest.param(KEPT._replace(noted=noted(refused=2)), "nobody read the output (EPIPE)", id="write refused"),
        pytest.param(outcome(0), "invented exit code: 0, the true one is 3", id="another code"),
        pytest.param(outcome(-9), "invented exit code: -9", id="a signal's code"),
        pytest.param(KEPT._replace(told=frozenset({3, 4})), "invented exit code: 4", id="another code before"),
        pytest.param(outcome(None), "exit_code is null without a reason", id="no reason"),
        pytest.param(outcome(None, "Lost.")._replace(told=frozenset({3})), "callers were given 3", id="withdrawn"),
        pytest.param(outcome(4, notes=noted(code=None)), "invented exit code: 4", id="other than it said"),
        pytest.param(outcome(1)._replace(noted=None), "invented exit code: 1", id="before its first note"),
        pytest.param(outcome(-9, notes=noted(code=-9, said=None)), "by signal 9, which was not", id="unasked"),
        pytest.param(outcome(-13, notes=noted(code=-13, said=None)), "by signal 13, which was not", id="no reader"),
        pytest.param(outcome(1, notes=noted(code=1, said=None)), "ended with 1, and has noted None", id="crashed"),
        pytest.param(KEPT._replace(content="1"), "/logs gives 1 lines, the file has 5", id="answer"),
    ],
)
def test_each_broken_promise_is_found(broken: checks.Case, words: str) -> None:
    """One planted fault is one violation, which says what is wrong."""
    assert [words in violation for violation in checks.violations(broken)] == [True]


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(logged(*"125", takeovers=1), id="one stretch for one takeover"),
        pytest.param(logged("1")._replace(keepers_killed=2, status=told(None, "Both died.")), id="both keepers killed"),
        pytest.param(logged(*"123456"), id="killed between the write and its note"),
        pytest.param(outcome(-9, notes=noted(code=-9, said=None))._replace(asked_to_end=True), id="killed as asked"),
        pytest.param(outcome(None, "Its shim was killed."), id="null with a reason"),
    ],
)
def test_what_is_told_is_no_violation(kept: checks.Case) -> None:
    """A loss that the service tells of, or that none could prevent, breaks no promise."""
    assert found(kept) == ""


def test_a_gap_in_seq_is_found() -> None:
    """Records that are missing show by their numbers, whatever the lines say."""
    assert "seq is not" in found(KEPT._replace(log=Log(list("12345"), [1, 2, 3, 4, 6], 0)))


@pytest.mark.parametrize(
    ("action", "call", "status", "excused"),
    [
        pytest.param(Strike(0, "worker"), "/status", 0, True, id="no answer while the worker is dead"),
        pytest.param(Strike(0, "master"), "/health", 0, True, id="nor while the service is"),
        pytest.param(Strike(0, "master", 2.0), "/health", 0, False, id="a stopped master answers nobody"),
        pytest.param(Strike(0, "shim"), "/status", 500, False, id="a dead shim is no reason not to read"),
        pytest.param(Strike(0, "shim"), "POST /kill", 500, True, id="a dead shim can't be asked"),
        pytest.param(Strike(0, "zygote"), "POST /start", 500, True, id="nor can a dead zygote"),
        pytest.param(Strike(0, "zygote"), "POST /start", 0, False, id="but the worker always answers"),
        pytest.param(Limit(0, "worker", "NOFILE", 1.0), "POST /start", 500, True, id="out of descriptors"),
        pytest.param(Reload(0), "/status", 0, False, id="a reload refuses no caller"),
        pytest.param(Strike(0, "process"), "POST /kill", 500, False, id="nor does a command's end"),
    ],
)
def test_a_fault_excuses_what_it_hits_and_nothing_more(
    action: Strike | Limit | Reload, call: str, status: int, excused: bool
) -> None:
    """An answer that went wrong during a fault is held against what that fault can do to it."""
    step = steps(1, 1)[0]._replace(actions=(action,))
    window = Window(1, step.kind, excuse_of(step), 100.0, 103.0)
    assert window.excuses(Answer(call, status, None, 101.0, 0.1, 5.0)) is excused
    assert not window.excuses(Answer(call, status, None, 104.0, 0.1, 5.0))


def test_an_unfinished_note_is_left_out() -> None:
    """A command may be killed in the middle of a note."""
    read = parse("talk-1.4242", "pid 4242 77 process\nline 1\nline 2")
    assert read.written == {1}
    assert read.process == (4242, 77)
