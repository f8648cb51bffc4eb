"""Runs in the worker, and in the master at its stop: what pkill, pgrep, killall and kill do, by their words."""

import re
import signal
from collections.abc import Collection, Sequence
from typing import NamedTuple

# As much of a process's name as the kernel keeps (TASK_COMM_LEN, proc_pid_comm(5)).
_NAME_LENGTH = 15
_LONG = {"--full": "f", "--exact": "x", "--ignore-case": "i", "--echo": "e", "--quiet": "q", "--verbose": "v"}
# How others are shown, and so matched, depends on the locale.
_ORDINARY = re.compile(r"(?![\\()*+?{}\[\].^$|])[ -~]")
_CLASS = re.compile(r"\[[A-Za-z0-9]+\]")


class NotSureError(Exception):
    """Report that what a command would do can't be told from its text."""


class _Options(NamedTuple):
    """Hold which options are understood: letters without a value, and names before a signal."""

    letters: str
    before_a_signal: Collection[str]


_PROGRAMS = {
    "pkill": _Options("fxie", ("--signal",)),
    "pgrep": _Options("fxi", ()),
    "killall": _Options("qveI", ("-s", "--signal")),
    "kill": _Options("", ("-s", "-n")),
}


class Asked(NamedTuple):
    """Hold what one of these programs is asked for: its name, the letters of its options, the signal, and the rest."""

    program: str
    letters: str
    number: int
    operands: Sequence[str]

    def finds(self, name: str, line: str) -> bool:
        """Tell whether it finds a process with this name and command line. Raises `NotSureError`."""
        any_case = bool({"i", "I"}.intersection(self.letters))
        name = name[:_NAME_LENGTH]
        if self.program == "killall":
            return any(_is_name(one, name, any_case) for one in self.operands)
        if len(self.operands) != 1 or self.program == "kill":
            raise NotSureError
        (pattern,) = self.operands
        if "x" in self.letters:
            if "f" in self.letters or not re.fullmatch(r"[\w.-]+", pattern):
                raise NotSureError
            return _is_name(pattern, name, any_case)
        return _matches(pattern, line if "f" in self.letters else name, any_case)


def asked(command: Sequence[str | None]) -> Asked:
    """Read a command, its program's name first. Raises `NotSureError` for what is not understood."""
    program = (command[0] or "").rpartition("/")[2]
    options = _PROGRAMS.get(program)
    rest = [one for one in command[1:] if one is not None]
    if options is None or None in command:
        raise NotSureError
    letters, number, operands = "", int(signal.SIGTERM), list[str]()
    while rest:
        option = rest.pop(0)
        name, equals, value = option.partition("=")
        if option == "--":
            operands += rest
            break
        if not option.startswith("-") or option == "-":
            operands.append(option)
        elif name in options.before_a_signal:
            number = _signal(value if equals else (rest or [""]).pop(0))
        elif _LONG.get(option, option.removeprefix("-")) in _combinations(option, options):
            letters += _LONG.get(option, option)
        else:
            number = _signal(option[1:])
    return Asked(program, letters, number, operands)


def _combinations(option: str, options: _Options) -> Collection[str]:
    """Return the option's letters where all of them are understood."""
    letters = _LONG.get(option, option.removeprefix("-"))
    return (letters,) if set(letters) <= set(options.letters) else ()


def _signal(text: str) -> int:
    if text.isdecimal():
        return int(text)
    try:
        return signal.Signals[f"SIG{text.upper().removeprefix('SIG')}"]
    except KeyError:
        raise NotSureError from None


def _is_name(operand: str, name: str, any_case: bool) -> bool:
    if "/" in operand:  # a file, whatever the name of what executes it
        raise NotSureError
    return operand.lower() == name.lower() if any_case else operand == name


def _matches(pattern: str, text: str, any_case: bool) -> bool:
    """Tell whether an extended regular expression of the simple kinds matches. Raises `NotSureError` for others.

    Each part between `.*` matches texts of one length, so that its first place is as good as any: it takes linear time,
    whatever the pattern.
    """
    return any(_alternative_matches(one, text, any_case) for one in pattern.split("|"))


def _alternative_matches(pattern: str, text: str, any_case: bool) -> bool:
    parts = [_translated(part) for part in pattern.removeprefix("^").split(".*")]
    if pattern.startswith("^"):
        parts[0] = rf"\A{parts[0]}"
    position = 0
    for part in parts:
        found = re.compile(part, re.DOTALL | (re.IGNORECASE if any_case else 0)).search(text, position)
        if found is None:
            return False
        position = found.end()
    return bool(pattern)


def _translated(part: str) -> str:
    """Return a part of a pattern as Python has it. Raises `NotSureError` where it is not of a simple kind."""
    done, rest = "", part
    while rest:
        found = _CLASS.match(rest)
        if rest[0] == "." or found:
            length, translated = (found.end(), found[0]) if found else (1, ".")
        elif rest[0] == "\\" and len(rest) > 1 and not rest[1].isalnum():
            length, translated = 2, re.escape(rest[1])
        elif _ORDINARY.match(rest):
            length, translated = 1, re.escape(rest[0])
        else:
            raise NotSureError
        done, rest = done + translated, rest[length:]
    return done
