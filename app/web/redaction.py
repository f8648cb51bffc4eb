"""Runs in the worker: redact callers' texts for the log: the token in any form, control characters, and length."""

import json
import re
from collections.abc import Callable
from itertools import groupby

HIDDEN = "***"
# Characters of one character of the token, percent-encoded twice and escaped for JSON twice.
_LONGEST_FORM = 36


def make_show(token: str | None) -> Callable[[str, int], str]:
    """Return a function of a text and a limit: it returns the text up to that many characters, without the token.

    The token is removed before the text is cut, since a part of it left at the cut could not be recognised.
    """
    pattern = re.compile(_forms(token)) if token else None
    reach = _LONGEST_FORM * len(token or "")

    def show(text: str, limit: int) -> str:
        shown, position = "", 0
        while len(shown) <= limit and position < len(text):
            room = position + limit + 1 - len(shown)
            found = pattern.search(text, position, room + reach) if pattern else None
            if found is None or found.start() >= room:
                shown += text[position:room]
                break
            shown += text[position : found.start()] + HIDDEN
            position = found.end()
        return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"

    return show


def make_holds(token: str | None) -> Callable[[str], bool]:
    """Return a function that tells whether a text holds the token, in any form."""
    pattern = re.compile(_forms(token)) if token else None
    return lambda text: pattern is not None and pattern.search(text) is not None


def escape(text: str) -> str:
    """Escape all that a terminal would interpret, or not show, in JSON text.

    That includes bidi marks and surrogates: JSON itself escapes only U+0000 to U+001F.
    """
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in text)


def _forms(token: str) -> str:
    """Return a pattern for the token as it is, percent-encoded, escaped as in JSON or for a shell, or a mix of these.

    Every repetition is bounded, so that no text makes a search slow.
    """
    return "".join(_forms_of_run(character, len(list(run))) for character, run in groupby(token))


def _forms_of_run(character: str, count: int) -> str:
    number = f"(?i:{ord(character):02x})"
    encoded = rf"\\{{1,4}}+u00{number}|%(?:25)?{number}"
    if character == "\\":
        return rf"(?:{encoded}|\\){{{count},{4 * count}}}"
    return rf"(?:{encoded}|\\{{0,4}}+{re.escape(character)})" * count
