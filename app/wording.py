"""Runs in the master and the worker: quote a caller's or operator's text in a message, and suggest a similar name."""

import difflib
from collections.abc import Iterable

# A longer name is no typing error, and comparing takes time.
_LONGEST_NAME = 40


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most similar to `name`, whatever their case; None when none is."""
    if len(name) > _LONGEST_NAME:
        return None
    by_lower = {candidate.lower(): candidate for candidate in known}
    closest = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[closest[0]] if closest else None


def shorten(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters, the middle of a longer one left out."""
    if len(text) <= limit:
        return text
    end = limit // 4
    return f"{text[: limit - end - 1]}…{text[-end:]}"
