"""Runs in the worker, and in the master at its stop: one sentence about why a run has ended so soon, if it is sure."""

import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import PurePath
from typing import NamedTuple

from app.log.clock import parse_time
from app.runs.record import RunRecord, State
from app.runs.spec import EMPTY
from app.supervisor.naming import shown
from app.supervisor.shell_text import ASSIGNMENT, Call, calls_of, in_background
from app.supervisor.signallers import NotSureError, asked

# Seconds within which a run has ended by what its text does first; or since a watcher found its input at its end, which
# took those below up to 0.9 s by themselves, and `npx` may have to fetch them.
AT_ONCE = 1.0
WATCHERS_AT_ONCE = 10.0
# Characters of a text that is looked at: a look takes less than a millisecond then, 30 at the very most, and only the
# first one of the last few.
MAX_TEXT = 4096
KEPT = 64
MAX_SHOWN = 60
# Shells that give their process to the last program of a text, which these programs don't signal: it is they.
_REPLACED = frozenset({"bash", "rbash", "zsh", "ksh", "mksh"})
# What may signal the shell: after one of these that is not understood nothing is sure.
_SIGNALLERS = frozenset({"kill", "pkill", "killall", "skill", "xargs", "eval", "source", ".", "trap"})
# They name processes that hold a file or a port, as the shell of a text does not.
_NAME_OTHERS = frozenset({"lsof", "fuser"})
_PIPES = frozenset({"|", "|&"})


class _Sent(NamedTuple):
    """Hold which call has found the processes to be signalled, with which signal, and what to show of both."""

    finder: Call
    number: int
    text: str


class _Watcher(NamedTuple):
    """Tell by its arguments whether a program watches, and ends with its standard input.

    It does with one of `some`, all of `needed` and none of `without`.
    """

    some: Collection[str]
    without: Collection[str] = ()
    needed: Collection[str] = ()


_TAILWIND = _Watcher(("--watch", "-w"), without=("--watch=always",))
# Each was tried: with an input at its end it exits with 0, and with an open one it goes on.
_WATCHERS = {
    "esbuild": _Watcher(("--watch", "--watch=true", "--serve"), without=("--watch=forever",)),
    "tailwindcss": _TAILWIND,
    "@tailwindcss/cli": _TAILWIND,
    "webpack": _Watcher(("--watch", "-w", "watch"), needed=("--watch-options-stdin",)),
}
_SOMETHING_ELSE = ("-h", "--help", "--version", "-v")
# They run a package's program, and no script of the same name.
_RUNNERS = (("npx",), ("npm", "exec"), ("pnpm", "exec"))
_OF_RUNNERS = frozenset({"--", "-y", "--yes", "--no-install"})
_VERSION = re.compile(r"(?<=.)@[^/]*\Z")


def hint_of(record: RunRecord, state: State) -> str | None:
    """Return one sentence about why a run has ended so soon; None where nothing is sure."""
    spec, code = record.spec, state.exit_code
    if code is None or code > 0 or state.killed_by or len(spec.command) > MAX_TEXT:
        return None
    if not any(word in spec.command for word in (_WATCHERS if code == 0 else ("kill",))):
        return None
    lasted = _lasted(record, state)
    if code < 0:
        return _signalled_itself(spec.command, spec.shell, -code) if lasted <= AT_ONCE else None
    return _had_no_input(spec.command) if spec.stdin == EMPTY and lasted <= WATCHERS_AT_ONCE else None


def _lasted(record: RunRecord, state: State) -> float:
    """Return the seconds from a run's start to its process's end; infinity where they are not known."""
    try:
        return (parse_time(state.stopped_at or "") - parse_time(record.created_at)) / 1e9
    except ValueError:  # a record that was changed by hand
        return float("inf")


@lru_cache(maxsize=KEPT)
def _signalled_itself(text: str, shell: str, number: int) -> str | None:
    """Say which call of a text has signalled the shell that ran it, if its signal is the one that ended that."""
    calls = calls_of(text)
    signallers = [place for place, call in enumerate(calls) if call.name in _SIGNALLERS]
    for place in signallers:
        try:
            sent = _sent(calls, place)
            found = sent is not None and _finds_shell(sent, calls, shell, text)
        except NotSureError:
            return None
        if sent is not None and found:
            if sent.number != number or (calls[place].conditional and place != signallers[-1]):
                return None
            return _words_for(sent)
    return None


def _sent(calls: list[Call], place: int) -> _Sent | None:
    """Return what a call signals, None where its shell can't be among that. Raises `NotSureError`."""
    call = calls[place]
    if call.depth or in_background(calls, place):
        raise NotSureError
    before = calls[place - 1] if place else Call()
    if call.name in {"pkill", "killall"} and not call.inner:
        return _Sent(call, asked(call.command()).number, call.text)
    if call.name == "kill" and len(call.inner) == 1:
        (finder,), kill, text = call.inner, call.command(), call.text
    elif call.name == "xargs" and before.after == "|" and before.before not in _PIPES:
        kill = [one for one in call.command()[1:] if one not in {"-r", "--no-run-if-empty"}]
        finder, text = before, f"{before.text} | {call.text}"
    else:
        raise NotSureError
    if finder.name in _NAME_OTHERS:
        return None
    what = asked(kill or [None])
    if what.program != "kill" or what.operands or finder.name != "pgrep" or finder.inner:
        raise NotSureError
    return _Sent(finder, what.number, text)


def _finds_shell(sent: _Sent, calls: list[Call], shell: str, text: str) -> bool:
    """Tell whether the shell was among the processes found. Raises `NotSureError`."""
    name = PurePath(shell).name
    if name in _REPLACED and sent.finder is calls[-1] and _replaces_shell(sent.finder):
        return False
    return asked(sent.finder.command()).finds(name, f"{shell} -c {text}")


def _replaces_shell(last: Call) -> bool:
    """Tell whether bash gives its process to a text's last call, as far as that was tried (5.2)."""
    return last.before not in _PIPES and not last.prefixed and not last.redirections


def _words_for(sent: _Sent) -> str:
    text = shown(sent.text, MAX_SHOWN)
    if "f" in asked(sent.finder.command()).letters:
        return (
            f"Its own `{text}` ended it, as the command line of its shell holds what that looks for: send that as a "
            "command of its own, with a letter of the pattern in brackets ('[v]ite')."
        )
    return f"Its own `{text}` ended it, as its shell has such a name, too."


@lru_cache(maxsize=KEPT)
def _had_no_input(text: str) -> str | None:
    """Say that a text's last program, which was to watch, has ended since its standard input was at its end."""
    calls = calls_of(text)
    if not calls or any(call.name in {"exit", "exec"} for call in calls[:-1]):
        return None
    call = calls[-1]
    if call.before not in {"", ";", "\n", "&&"} or call.after not in {"", ";"} or call.depth:
        return None
    words = [one for one in call.words if one is not None]
    if call.inner or len(words) < len(call.words) or any("<" in one for one in call.redirections):
        return None
    words = _without_runner(words)
    if not words or not _watches(*words):
        return None
    return f'{_program(words[0])} ends with its standard input, which was empty: start it with "stdin": "open".'


def _without_runner(words: list[str]) -> list[str]:
    """Return a command without assignments, and without what only leads to its program."""
    while words and (words[0] == "exec" or ASSIGNMENT.match(words[0])):
        words = words[1:]
    runner = next((one for one in _RUNNERS if tuple(words[: len(one)]) == one), ())
    words = words[len(runner) :]
    while runner and words and words[0] in _OF_RUNNERS:
        words = words[1:]
    return words


def _watches(program: str, *arguments: str) -> bool:
    watcher = _WATCHERS.get(_program(program))
    given = {re.sub(r"\A--serve=.*", "--serve", one) for one in arguments}
    if watcher is None or not given.isdisjoint((*watcher.without, *_SOMETHING_ELSE)):
        return False
    return not given.isdisjoint(watcher.some) and given.issuperset(watcher.needed)


def _program(word: str) -> str:
    """Return a program's or package's name without directory and version."""
    return _VERSION.sub("", word if word.startswith("@") else word.rpartition("/")[2])
