"""Output becomes records."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.log.clock import RunClock, parse_time
from app.log.record import LINE_LIMIT, Record, encode
from app.shim.log_writer import UNFINISHED_TIMEOUT, LogWriter
from tests.unit.logs import records_of, text_of

Make = Callable[[], LogWriter]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return where the log is to be."""
    return tmp_path / "logs" / "run.log"


@pytest.fixture
def make(log: Path) -> Make:
    """Return a maker of writers on the log, as shims that follow one another would make them."""

    def make() -> LogWriter:
        writer = LogWriter(str(log), RunClock.start())
        writer.resume()
        return writer

    return make


def test_lines_are_numbered_from_one(make: Make, log: Path) -> None:
    """Each line is a record of its own, numbered from 1."""
    make().feed(b"one\n\ntwo\n")
    assert [(r.seq, r.line, r.part, r.partial) for r in records_of(log)] == [
        (1, "one", 0, False),
        (2, "", 0, False),
        (3, "two", 0, False),
    ]


def test_one_read_has_one_time(make: Make, log: Path) -> None:
    """The lines of one read share a timestamp, and a later read's is not earlier."""
    writer = make()
    writer.feed(b"a\nb\n" * 20_000)
    writer.feed(b"c\n")
    times = [r.timestamp for r in records_of(log)]
    assert len(set(times[:-1])) == 1
    assert times == sorted(times)


def test_only_a_newline_ends_a_line(make: Make, log: Path) -> None:
    """Carriage returns, form feeds and Unicode's own separators stay where the process wrote them."""
    text = "a\rb\r\x0b\x0c\x1b[0m\x1c\x85\u2028\u2029é"
    make().feed(text.encode() + b"\n")
    assert [r.line for r in records_of(log)] == [text]


def test_an_unfinished_line_waits_for_its_deadline(make: Make, log: Path) -> None:
    """What has no newline yet is held until the deadline, 200 ms after its first byte, and shown then."""
    writer = make()
    before = time.monotonic()
    writer.feed(b"done\nprompt> ")
    after = time.monotonic()
    assert writer.deadline is not None
    assert before + UNFINISHED_TIMEOUT <= writer.deadline <= after + UNFINISHED_TIMEOUT
    writer.flush_due(writer.deadline - 0.001)
    assert [r.line for r in records_of(log)] == ["done"]
    writer.flush_due(writer.deadline)
    assert [(r.seq, r.line, r.part, r.partial) for r in records_of(log)[1:]] == [(2, "prompt> ", 1, True)]
    assert writer.deadline is None


def test_more_of_an_unfinished_line_does_not_move_its_deadline(make: Make) -> None:
    """A line that trickles in is shown 200 ms after its first byte, not after its last."""
    writer = make()
    writer.feed(b"a")
    deadline = writer.deadline
    writer.feed(b"b")
    assert writer.deadline == deadline


def test_a_line_that_ends_in_time_is_whole(make: Make, log: Path) -> None:
    """A line whose end comes before the deadline is one record, and no deadline is left."""
    writer = make()
    writer.feed(b"he")
    writer.feed(b"llo\n")
    assert writer.deadline is None
    assert [(r.line, r.part) for r in records_of(log)] == [("hello", 0)]


def test_the_pieces_of_a_line_share_its_number(make: Make, log: Path) -> None:
    """A line shown in pieces keeps its seq, counts its parts, and the last one is not partial."""
    writer = make()
    for piece in (b"10%", b"\r50%"):
        writer.feed(piece)
        writer.flush_due(time.monotonic() + 1)
    writer.feed(b"\r100%\nnext\n")
    assert [(r.seq, r.line, r.part, r.partial) for r in records_of(log)] == [
        (1, "10%", 1, True),
        (1, "\r50%", 2, True),
        (1, "\r100%", 3, False),
        (2, "next", 0, False),
    ]


def test_a_character_is_never_cut_by_a_deadline(make: Make, log: Path) -> None:
    """The first bytes of a character wait for the rest, without a deadline that could never be met."""
    writer = make()
    writer.feed("a😀".encode()[:3])
    writer.flush_due(time.monotonic() + 1)
    assert writer.deadline is None
    writer.feed("😀".encode()[2:])
    writer.flush_due(time.monotonic() + 1)
    assert [r.line for r in records_of(log)] == ["a", "😀"]


def test_nothing_but_half_a_character_makes_no_piece(make: Make, log: Path) -> None:
    """A deadline that passes with nothing to show writes nothing."""
    writer = make()
    writer.feed(b"\xf0\x9f")
    writer.flush_due(time.monotonic() + 1)
    assert writer.deadline is None
    assert not log.exists() or records_of(log) == []


def test_half_a_character_at_the_end_is_shown_as_bytes(make: Make, log: Path) -> None:
    r"""A character that never got its rest reads \xNN."""
    writer = make()
    writer.feed(b"x\xf0\x9f")
    writer.finish()
    assert [(r.line, r.part) for r in records_of(log)] == [("x\\xf0\\x9f", 0)]


def test_a_last_line_without_a_newline_is_a_line(make: Make, log: Path) -> None:
    """Output that ends without a newline loses nothing, and finishing twice adds nothing."""
    writer = make()
    writer.feed(b"a\nb")
    writer.finish()
    writer.finish()
    assert [(r.seq, r.line, r.part) for r in records_of(log)] == [(1, "a", 0), (2, "b", 0)]


def test_a_line_in_pieces_ends_with_the_output(make: Make, log: Path) -> None:
    """When the output ends amid a line in pieces, its last piece is not partial."""
    writer = make()
    writer.feed(b"prompt> ")
    writer.flush_due(time.monotonic() + 1)
    writer.finish()
    assert [(r.line, r.part, r.partial) for r in records_of(log)] == [("prompt> ", 1, True), ("", 2, False)]


@pytest.mark.parametrize("length", [LINE_LIMIT - 1, LINE_LIMIT])
def test_a_line_up_to_the_limit_is_whole(make: Make, log: Path, length: int) -> None:
    """A line of 64 KiB is one record, even when its newline comes later."""
    writer = make()
    writer.feed(b"x" * length)
    writer.feed(b"\n")
    assert [(len(r.line), r.part) for r in records_of(log)] == [(length, 0)]


def test_a_longer_line_is_written_in_pieces_as_it_comes(make: Make, log: Path) -> None:
    """A line over 64 KiB is written in pieces of at most 64 KiB, none of which cuts a character, without waiting."""
    writer = make()
    text = "x" + "😀" * 100_000
    raw = text.encode()
    for start in range(0, len(raw), 100_000):
        writer.feed(raw[start : start + 100_000])
    assert len(raw) - sum(len(r.line.encode()) for r in records_of(log)) <= LINE_LIMIT
    writer.feed(b"\n")
    pieces = records_of(log)
    assert "".join(r.line for r in pieces) == text
    assert {r.seq for r in pieces} == {1}
    assert [r.part for r in pieces] == list(range(1, len(pieces) + 1))
    assert max(len(r.line.encode()) for r in pieces) <= LINE_LIMIT
    assert [r.partial for r in pieces] == [True] * (len(pieces) - 1) + [False]


chunks = st.lists(st.tuples(st.binary() | st.text("aé😀\n\\\r").map(str.encode), st.booleans()))


@given(chunks)
def test_content_is_what_was_printed(tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[bytes, bool]]) -> None:
    """However the output is cut into reads and pieces, its text is the output's, without the last newline."""
    log = tmp_path_factory.mktemp("run") / "run.log"
    writer = LogWriter(str(log), RunClock.start())
    for data, due in parts:
        writer.feed(data)
        if due:
            writer.flush_due(time.monotonic() + 1)
    writer.finish()
    writer.close()
    output = b"".join(data for data, _ in parts)
    if output:
        assert text_of(log) == output.removesuffix(b"\n").decode("utf-8", "backslashreplace")
        assert writer.seq == output.count(b"\n") + (not output.endswith(b"\n"))
        assert sorted({r.seq for r in records_of(log)}) == list(range(1, writer.seq + 1))


def test_a_new_writer_goes_on_after_the_last_record(make: Make, log: Path) -> None:
    """A writer on a log with records goes on with the next number and never with an earlier time."""
    log.parent.mkdir()
    log.write_bytes(encode(Record(41, "2999-01-01T00:00:00.000000Z", "x")))
    make().feed(b"y\n")
    assert [(r.seq, r.timestamp) for r in records_of(log)][1:] == [(42, "2999-01-01T00:00:00.000000Z")]


def test_a_new_writer_continues_a_line_in_pieces(make: Make, log: Path) -> None:
    """A line that the earlier writer left unfinished keeps its number and counts on."""
    first = make()
    first.feed(b"a\nprom")
    first.flush_due(time.monotonic() + 1)
    make().feed(b"pt\n")
    assert [(r.seq, r.line, r.part, r.partial) for r in records_of(log)[1:]] == [
        (2, "prom", 1, True),
        (2, "pt", 2, False),
    ]


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_last_record_harms_no_other(make: Make, log: Path, cut: int) -> None:
    """A record whose end is missing does not swallow the next one."""
    make().feed(b"a\nb\n")
    os.truncate(log, log.stat().st_size - cut)
    make().feed(b"c\n")
    assert [r.line for r in records_of(log)] == (["a", "b", "c"] if cut == 1 else ["a", "c"])


def test_a_log_of_garbage_is_gone_on_with(make: Make, log: Path) -> None:
    """A log that holds no record gets its first one."""
    log.parent.mkdir()
    log.write_bytes(b"\0" * 200_000 + b"garbage")
    make().feed(b"a\n")
    assert [(r.seq, r.line) for r in records_of(log)] == [(1, "a")]


def test_a_record_without_a_readable_time_is_gone_on_with(make: Make, log: Path) -> None:
    """A last record whose timestamp is none gives its number all the same."""
    log.parent.mkdir()
    log.write_bytes(encode(Record(5, "noon", "x")))
    make().feed(b"y\n")
    assert records_of(log)[1].seq == 6
    assert parse_time(records_of(log)[1].timestamp) > 0
