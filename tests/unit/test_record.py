"""The log format."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.log.record import (
    LINE_LIMIT,
    RECORD_LIMIT,
    Record,
    count_whole_lines,
    decode,
    decode_block,
    encode,
    encode_lines,
    show,
    whole_characters,
)

AT = "2026-11-22T06:08:00.123456Z"
STAND_INS = "\x7f~`^|$\ufdd0"
lines = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))


def blocks_of(first: int, texts: list[str]) -> list[tuple[bytes, int]]:
    """Return the blocks of records of these lines, which stand between others."""
    output = "".join(f"{text}\n" for text in ["before", *texts, "behind"]).encode()
    return list(encode_lines(first, AT, output, len("before\n"), len(output) - len("behind\n")))


def test_a_record_is_one_json_line_with_the_fields_of_the_contract() -> None:
    """A whole line carries seq, timestamp and line, and nothing more."""
    raw = encode(Record(1, AT, "text"))
    assert raw == b'{"seq":1,"timestamp":"2026-11-22T06:08:00.123456Z","line":"text"}\n'


def test_pieces_are_numbered_and_all_but_the_last_are_partial() -> None:
    """A piece carries its part, and partial only where more follows."""
    first, last = json.loads(encode(Record(7, AT, "a", 1, partial=True))), json.loads(encode(Record(7, AT, "b", 2)))
    assert first == {"seq": 7, "timestamp": AT, "line": "a", "part": 1, "partial": True}
    assert last == {"seq": 7, "timestamp": AT, "line": "b", "part": 2}


@given(st.integers(1, 10**12), st.lists(lines, min_size=1))
def test_any_lines_survive_the_log(first: int, texts: list[str]) -> None:
    """What is encoded is decoded again, numbered one by one, by us and by any JSON parser."""
    blocks = blocks_of(first, texts)
    raw = b"".join(records for records, _count in blocks)
    assert raw.count(b"\n") == sum(count for _records, count in blocks) == len(texts)
    assert decode_block(raw) == [Record(first + i, AT, text) for i, text in enumerate(texts)]
    assert [json.loads(line)["line"] for line in raw.split(b"\n")[:-1]] == texts


@pytest.mark.parametrize("held", [STAND_INS[:length] for length in range(len(STAND_INS) + 1)])
def test_lines_that_hold_what_stands_in_for_a_newline(held: str) -> None:
    """Whichever of the characters that could stand in for a newline the output holds, its lines come out whole."""
    texts = [held, "", held * 2, "plain"]
    assert [record.line for block, _count in blocks_of(1, texts) for record in decode_block(block)] == texts


@pytest.mark.parametrize("held", ["", STAND_INS])
@pytest.mark.parametrize("text", ["", "x", "50% %b %% %d", "x" * 300, "\U0001f680" * 40_000])
@pytest.mark.parametrize("first", [1, 2, 9_000, 9_999, 10_000, 10_001, 1_009_999, 10**12 - 1])
def test_numbers_go_on_where_their_first_digits_change(first: int, text: str, held: str) -> None:
    """Many lines are numbered one by one, whatever they hold, and no block has more than a thousand of them."""
    texts = [text + held] * (20 if len(text) > 10_000 else 3001)
    blocks = blocks_of(first, texts)
    records = [record for block, _count in blocks for record in decode_block(block)]
    assert records == [Record(first + i, AT, line) for i, line in enumerate(texts)]
    assert all(block.count(b"\n") == count <= 1000 for block, count in blocks)


@given(st.binary() | st.text().map(lambda text: text.encode(errors="surrogatepass")))
def test_bad_bytes_are_shown_as_backslash_x(output: bytes) -> None:
    r"""Bytes that are not UTF-8 read \xNN, the rest is untouched."""
    assert show(output) == output.decode("utf-8", "backslashreplace")


def test_output_that_spells_an_escape_is_not_mistaken_for_a_bad_byte() -> None:
    r"""A program that prints \udc80 beside a bad byte gets both shown as they are."""
    assert show(b"\\udc80 \x80") == "\\udc80 \\x80"


@given(st.binary() | st.text().map(str.encode), st.integers(0))
def test_cutting_at_whole_characters_changes_nothing(output: bytes, where: int) -> None:
    """Text shown in two halves, cut wherever whole_characters says, is the text shown at once."""
    cut = whole_characters(output[: where % (len(output) + 1)])
    assert show(output[:cut]) + show(output[cut:]) == show(output)


@pytest.mark.parametrize("character", ["é", "€", "😀"])
def test_the_beginning_of_a_character_waits(character: str) -> None:
    """An incomplete character at the end is not counted as whole, a complete one is."""
    raw = character.encode()
    assert [whole_characters(b"x" + raw[:n]) for n in range(1, len(raw))] == [1] * (len(raw) - 1)
    assert whole_characters(b"x" + raw) == 1 + len(raw)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\0" * 5000,
        b"not json",
        b'{"seq":1,"timestamp":"t","line":"torn',
        b'{"seq":1,"timestamp":"t","line":"\xff"}',
        b'{"seq":1,"timestamp":"t","line":"\\ud800"}',
        b'{"seq":1,"timestamp":"t","line":"\\q"}',
        b'{"seq":1,"timestamp":"t","line":2}',
        b'{"seq":1,"timestamp":"t"}',
        b'{"seq":0,"timestamp":"t","line":"x"}',
        b'{"seq":true,"timestamp":"t","line":"x"}',
        b'{"seq":"1","timestamp":"t","line":"x"}',
        b'{"timestamp":"t","line":"x"}',
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"x":' * 100_000,
        b"9" * 100_000,
    ],
)
def test_garbage_is_no_record_and_hides_none(garbage: bytes) -> None:
    """What is no record is skipped without an exception, and its neighbours are read."""
    assert decode(garbage) is None
    before, after = Record(1, AT, "before"), Record(2, AT, "after")
    assert decode_block(encode(before) + garbage + b"\n" + encode(after)) == [before, after]


def test_white_space_and_unknown_fields_are_free() -> None:
    """A record written by another JSON writer, or by a later version, is read as well."""
    assert decode(json.dumps({"seq": 3, "more": [1], "line": "x", "timestamp": AT}).encode()) == Record(3, AT, "x")


def test_a_record_behind_nul_bytes_is_read() -> None:
    """NUL bytes that a power cut left before a record don't cost the record."""
    assert decode(b"\0" * 100 + encode(Record(3, AT, "x"))) == Record(3, AT, "x")


@pytest.mark.parametrize("byte", [b"\0", b"\x1b", b"\xff", b'"'])
def test_no_record_is_longer_than_the_limit(byte: bytes) -> None:
    """The worst line there is, escaped, stays far below what a reader is prepared for."""
    assert len(encode(Record(10**15, AT, show(byte * LINE_LIMIT), 10**9, partial=True))) < RECORD_LIMIT / 2


@given(st.integers(1, 20_000), st.lists(lines, min_size=1, max_size=30))
def test_whole_lines_are_counted_or_left_to_decoding(first: int, texts: list[str]) -> None:
    """A block that the writer wrote has as many lines as it has records; where the count can't tell, it says so."""
    block = b"".join(records for records, _count in blocks_of(first, texts))
    undecided = any(text.endswith("\\") for text in texts)
    assert count_whole_lines(block) == (None if undecided else (first, len(texts)))


THREE = [encode(Record(seq, AT, f'line "{seq}"')) for seq in (8, 9, 10)]


@pytest.mark.parametrize(
    "second",
    [
        b"",
        b"\n",
        b"{}\n",
        THREE[1][:-2] + b"\n",
        THREE[1][: THREE[1].index(b"9\\") + 3] + b"}\n",
        THREE[1][:-12],
        THREE[1][3:],
        b"\0" * 100 + THREE[1],
        encode(Record(9, AT, "a", 1, partial=True)) + encode(Record(9, AT, "b", 2)),
        encode(Record(9, AT, "a", 1)),
    ],
)
def test_what_is_not_whole_is_not_counted(second: bytes) -> None:
    """A line lost, torn, run into the next, in pieces or no record at all is for decoding to tell."""
    assert count_whole_lines(b"".join(THREE)) == (8, 3)
    assert count_whole_lines(THREE[0] + second + THREE[2]) is None
