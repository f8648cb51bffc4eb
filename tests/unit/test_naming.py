"""What a process calls itself can't break the sentence that names it, nor make it long."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.supervisor.naming import SHOWN_CHARACTERS, count_rest, listed, name_some, shown

GONE = 4_194_304 + 1  # beyond the highest pid that there may be (PID_MAX_LIMIT, proc_sys_kernel(5))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("sleep 60", "sleep 60"),
        ("node --title=сервер 服务 🚀", "node --title=сервер 服务 🚀"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x7f\x9b\x85", r"\x7f\x9b\x85"),
        ("abc\u202edef\u2066\u200f", r"abc\u202edef\u2066\u200f"),
        ("\u2028\u2029\u00a0", r"\u2028\u2029\xa0"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud800", r"\ud800"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 79 + "…"),
        ("x" * 79 + "\n", "x" * 79 + "…"),
        ("x" * 78 + "\n", "x" * 78 + r"\n"),
        ("\n" * 41, r"\n" * 39 + "…"),
    ],
)
def test_shown(text: str, expected: str) -> None:
    """Printable text stays as it is, all else is an escape, and what is longer is cut between two characters."""
    assert shown(text) == expected


@given(st.text(max_size=200))
def test_nothing_shown_is_long_or_unprintable(text: str) -> None:
    """Whatever the text, what is shown of it fits and is printable, and tells where something was left out."""
    result = shown(text)
    assert len(result) <= SHOWN_CHARACTERS
    assert result.isprintable()
    assert result.endswith("…") or len(result) >= len(text)


def test_five_are_named_and_the_rest_counted() -> None:
    """Of many processes the first five are named and the others are a number."""
    pids = [os.getpid()] * 40
    assert [entry["pid"] for entry in name_some(pids)] == pids[:5]
    assert set(name_some(pids)[0]) == {"pid", "name", "command_line"}
    assert count_rest(pids) == 35
    assert listed(pids).endswith(" and 35 more")
    assert listed(pids).count("(") == 5
    assert (count_rest(pids[:5]), "more" in listed(pids[:5])) == (0, False)


def test_one_that_has_gone_is_named_by_its_pid() -> None:
    """A process that ended while it was looked at has a pid and nothing else."""
    assert listed([GONE]) == str(GONE)
    assert name_some([GONE]) == [{"pid": GONE, "name": "", "command_line": ""}]
    assert listed([]) == ""
