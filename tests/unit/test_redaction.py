"""Texts of callers are cut for the log, and hold the token in no form."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web.redaction import escape, make_show

LIMIT = 200
tokens = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=16, max_size=60)
FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "percent": lambda text: quote(text, safe=""),
    "percent all": lambda text: "".join(f"%{ord(character):02x}" for character in text),
    "percent twice": lambda text: quote(quote(text, safe=""), safe=""),
    "json": lambda text: json.dumps(text)[1:-1],
    "json twice": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "json numbers": lambda text: "".join(f"\\u{ord(character):04X}" for character in text),
    "shell": lambda text: re.sub(r"([^A-Za-z0-9])", r"\\\1", text),
    "repr": lambda text: repr(text)[1:-1],
}


@given(tokens, st.sampled_from(sorted(FORMS)), st.integers(0, LIMIT + 20), st.integers(1, 40))
def test_no_form_of_the_token_is_shown(token: str, form: str, before: int, times: int) -> None:
    """Wherever the token stands, at the cut too, and however often and in what form, none of it is shown."""
    shown = make_show(token)("é" * before + f"{FORMS[form](token)}é" * times + "é" * 300, LIMIT)
    assert set(shown) <= {"é", "*", "…"}
    assert len(shown) <= LIMIT


@given(st.text("éя\n…"), st.integers(1, 20), tokens)
def test_other_texts_are_shown_from_their_beginning(text: str, limit: int, token: str) -> None:
    """A text without the token is shown whole where it fits, and cut with a mark where not."""
    expected = text if len(text) <= limit else f"{text[: limit - 1]}…"
    assert make_show(token)(text, limit) == make_show(None)(text, limit) == expected


def test_the_token_s_neighbours_stay() -> None:
    """What is around the token is shown as it is."""
    show = make_show('a"very\\odd"token')
    assert show('echo a"very\\odd"token | cat; a"very\\odd"toke', LIMIT) == 'echo *** | cat; a"very\\odd"toke'


@pytest.mark.parametrize("token", ["\\" * 40, "%" * 40, "u0" * 20, "%25" * 14, "a" * 60, '\\"' * 20])
@pytest.mark.parametrize(
    "text", ["\\" * 1_000_000, "%25" * 300_000, "\\u005c" * 150_000, "a" * 1_000_000, "\\u0" * 300_000]
)
def test_no_text_takes_long(token: str, text: str) -> None:
    """No token and no text of a megabyte make the search slow."""
    began = time.thread_time()
    assert len(make_show(token)(text, LIMIT)) <= LIMIT
    assert time.thread_time() - began < 0.2


@given(st.text())
def test_what_a_terminal_would_obey_is_escaped(text: str) -> None:
    """What is written is one printable line, and reads back as what it was."""
    written = escape(json.dumps(text, ensure_ascii=False))
    assert written.isprintable()
    assert json.loads(written) == text


@pytest.mark.parametrize(
    "character", ["\x00", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\u200f", "\u2028", "\ud800", "\U000e0041"]
)
def test_controls_and_bidi_characters(character: str) -> None:
    """Controls of both sets, bidi characters, line separators, surrogates and tags are escaped; letters are not."""
    written = escape(json.dumps(f"é{character}я", ensure_ascii=False))
    assert written.startswith('"é\\u')
    assert character not in written
