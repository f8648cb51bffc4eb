"""How names and texts of a caller's, or an operator's, are told back to them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# A longer name is nobody's slip of the pen, and comparing takes time.
_LONGEST_NAME = 40


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the one of the `known` names that `name` looks like, in upper or lower case; None when none does."""
    if len(name) > _LONGEST_NAME:
        return None
    by_lower = {candidate.lower(): candidate for candidate in known}
    closest = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[closest[0]] if closest else None


def shorten(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters: one that is longer without its middle."""
    if len(text) <= limit:
        return text
    end = limit // 4
    return f"{text[: limit - end - 1]}…{text[-end:]}"
