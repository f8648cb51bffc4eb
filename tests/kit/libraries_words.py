"""The words that marshmallow has for what is wrong, which no caller and no operator may meet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from marshmallow import Schema, fields, validate


def _subclasses(base: type[Any]) -> Iterator[type[Any]]:
    for found in base.__subclasses__():
        yield found
        yield from _subclasses(found)


def _texts() -> Iterator[str]:
    marshmallows = [kind for kind in (fields.Field, *_subclasses(fields.Field)) if kind.__module__ == fields.__name__]
    for kind in marshmallows:
        yield from vars(kind).get("default_error_messages", {}).values()
    for kind in _subclasses(validate.Validator):
        yield from (text for name, text in vars(kind).items() if "message" in name and isinstance(text, str))
    yield from Schema._default_error_messages.values()


def _pattern(text: str) -> str:
    text = re.sub(r"\{m.._op\}", "greater than or equal to", text)  # or another of Range's, whose default this is
    return "".join(".*" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{+[^{}]*\}+)", text))


LIBRARIES_WORDS = sorted({text for text in _texts() if text})
_ANY = re.compile("|".join(map(_pattern, LIBRARIES_WORDS)), re.DOTALL)


def assert_own_words(texts: Iterable[str]) -> None:
    """Fail when one of these is what marshmallow says by itself."""
    assert [text for text in texts if _ANY.fullmatch(text)] == []
