"""Runs in the worker, and in the master at its stop: the simple commands of a shell's text, as far as it tells them."""

import re
import shlex
from dataclasses import dataclass, field

# The parts of a text, each at a place where a word may begin. The alternatives of a word differ in their first
# character, so that no text takes more than linear time.
_TOKEN = re.compile(
    r"""
      (?P<blank>(?:[ \t\r]|\\\n)+|\#[^\n]*)
    | (?P<unknown>\d*<<-?(?!<)|;;)
    | (?P<redirection>\d*(?:&>>|&>|>>|>&|>\||<<<|<>|<&|<|>))
    | (?P<operator>\$\(|&&|\|\||\|&|[\n;&|()`])
    | (?P<word>(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|\$(?!\()|[^\s;&|()<>'"\\`$])+)
    """,
    re.VERBOSE | re.DOTALL,
)
_SINGLE_QUOTED = re.compile(r"'[^']*'|\\.", re.DOTALL)
ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
# Words of the shell, or programs, that a command may follow.
_BEFORE_A_COMMAND = frozenset(
    ["then", "do", "else", "elif", "if", "while", "until", "!", "{", "time", "sudo", "command"]
)
_CONDITIONAL = frozenset({"then", "do", "else"})
# What these begin reads otherwise than a list of simple commands.
_UNKNOWN = frozenset({"case", "function", "for", "select", "alias", "[["})


@dataclass(slots=True, eq=False)
class Call:
    """Hold one simple command: its words without quotes, None for a word that only the shell knows.

    `before` and `after` are the operators around it, `text` is it as it was written, from its program's name on.
    `depth` is how many parentheses it is in, `inner` are the calls whose output becomes words of it. `redirections` are
    the operators of these.
    """

    before: str = ""
    depth: int = 0
    words: list[str | None] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    inner: list["Call"] = field(default_factory=list)
    after: str = ""
    redirections: list[str] = field(default_factory=list)
    text: str = ""

    def command(self) -> list[str | None]:
        """Return the words from the program's name on."""
        for number, word in enumerate(self.words):
            if word is None or not (word in _BEFORE_A_COMMAND or ASSIGNMENT.match(word)):
                return self.words[number:]
        return []

    @property
    def name(self) -> str | None:
        """Return the program's name without its directory; None where it has none, or only the shell knows it."""
        command = self.command()
        return command[0].rpartition("/")[2] if command and command[0] else None

    @property
    def prefixed(self) -> bool:
        """Tell whether a word of the shell, or a program that starts another, stands before the program's name."""
        before = self.words[: len(self.words) - len(self.command())]
        return any(word is None or not ASSIGNMENT.match(word) for word in before)

    @property
    def conditional(self) -> bool:
        """Tell whether it may not have been run although the shell came to it."""
        return self.before in {"&&", "||"} or not _CONDITIONAL.isdisjoint(self.words)


class _Parser:
    """Read one text; `calls` are the simple commands outside of substitutions, in their order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._current = Call()
        self._open: list[tuple[str, Call]] = []
        self._target = False  # whether the next word is a redirection's
        self.calls: list[Call] = []

    def parse(self) -> bool:
        """Read all of it; False where it holds what is not understood here."""
        position = 0
        while position < len(self._text):
            token = _TOKEN.match(self._text, position)
            if token is None or not self._take(token):
                return False
            position = token.end()
        self._end("", position)
        return not self._open and all(call.name not in _UNKNOWN for call in self.calls)

    def _take(self, token: re.Match[str]) -> bool:
        part = token[0]
        match token.lastgroup:
            case "unknown":
                return False
            case "word":
                self._take_word(part, token.start())
            case "redirection":
                self._target = True
                self._current.redirections.append(part)
            case "operator":
                return not self._target and self._take_operator(part, token.start())
        return True

    def _take_word(self, part: str, start: int) -> None:
        if self._target:
            self._target = False
            return
        self._current.places.append(start)
        self._current.words.append(_unquoted(part))

    def _take_operator(self, part: str, start: int) -> bool:
        closes = part == ")" or (part == "`" and bool(self._open) and self._open[-1][0] == "`")
        if closes:
            return self._close(part, start)
        if part in {"$(", "`", "("}:
            return self._begin(part)
        if part != "\n" or self._current.words:  # a newline after an operator is none
            self._end(part, start)
            self._current = Call(before=part, depth=len(self._open))
        return True

    def _begin(self, part: str) -> bool:
        if part == "(" and self._current.words:  # a function, or an array
            return False
        self._open.append((part, self._current))
        self._current = Call(depth=len(self._open))
        return True

    def _close(self, part: str, start: int) -> bool:
        if not self._open or (part == "`") != (self._open[-1][0] == "`"):
            return False
        self._end("", start)
        opener, outer = self._open.pop()
        self._current = Call(before=")", depth=len(self._open)) if opener == "(" else outer
        return True

    def _end(self, after: str, end: int) -> None:
        """Note the end of the current call."""
        call = self._current
        call.after = after
        if not call.words:
            return
        if command := call.command():
            call.text = self._text[call.places[-len(command)] : end].strip()
        substituted = [outer for opener, outer in self._open if opener != "("]
        (substituted[-1].inner if substituted else self.calls).append(call)


def calls_of(text: str) -> list[Call]:
    """Return the simple commands of a text outside of substitutions, in their order.

    There are none where the text holds what is not understood here, such as here-documents and functions.
    """
    parser = _Parser(text)
    return parser.calls if parser.parse() else []


def in_background(calls: list[Call], number: int) -> bool:
    """Tell whether the shell does not wait for this call, or for the list that it is part of."""
    for call in calls[number:]:
        if call.after in {"&", ";", "\n", ""}:
            return call.after == "&"
    return False


def _unquoted(part: str) -> str | None:
    if "$" in _SINGLE_QUOTED.sub("", part) or "`" in _SINGLE_QUOTED.sub("", part):
        return None
    try:
        return shlex.split(part)[0]
    except (ValueError, IndexError):
        return None
