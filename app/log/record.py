"""Runs in every process of ours: the log's format, one JSON record a line, which no other module knows."""

from codecs import utf_8_decode
from collections.abc import Iterator
from functools import cache
from typing import Annotated

from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder, Encoder

from app.log.quoting import encode_text, quote

LINE_LIMIT = 64 * 1024
"""Bytes of output that one record holds at most; a longer line is written in pieces."""

RECORD_LIMIT = 1024 * 1024
"""Bytes that one record takes on disk at most, with a margin: a byte of output is escaped to six at most."""


class Record(Struct, omit_defaults=True, gc=False):
    """Hold one line of output, or one piece of it.

    Pieces share their line's `seq`, count `part` from 1, and all but the last are `partial`.
    """

    seq: Annotated[int, Meta(ge=1)]
    timestamp: str
    line: str
    part: int = 0
    partial: bool = False


_BLOCK = 64 * 1024  # of output: with its records it fits the processor's cache
# Placeholders for a newline: not escaped in JSON, and part of no record's frame.
# The last is a noncharacter (U+FDD0), for binary output, which holds every byte.
_STAND_INS = (b"\x7f", b"~", b"`", b"^", b"|", b"$", "\ufdd0".encode())
_MOST = 1000  # records made at once: those of empty lines take sixty times as much memory as the lines
_SHARING = 10_000  # records whose heads share all but the last four digits of `seq`
_encoder = Encoder()
_decoder = Decoder(Record)
_UNREADABLE = (DecodeError, UnicodeDecodeError, RecursionError)
# How the record of a whole line begins and ends, as written here. Neither occurs inside one, where each quote of the
# text has a backslash before it, and a newline is escaped.
_HEAD, _TAIL = b'{"seq":', b'"}\n'


def show(output: bytes) -> str:
    r"""Return output as text, bytes that are not UTF-8 as `\xNN`."""
    return _in_utf8(output).decode()


def _in_utf8(output: bytes) -> bytes:
    r"""Return output unchanged, but bytes that are not UTF-8 as `\xNN`.

    This is `backslashreplace`, which calls back for every bad byte; the two handlers used in its place are inlined in
    CPython's codecs and raise binary output from 3 to 15 MB/s. Output that contains `\udc` itself takes the slow path.
    """
    if output.isascii():
        return output
    try:
        output.decode()
    except UnicodeDecodeError:
        if b"\\udc" in output:
            return output.decode(errors="backslashreplace").encode()
    else:
        return output
    text = output.decode(errors="surrogateescape")
    return text.encode(errors="backslashreplace").replace(b"\\udc", b"\\x")


def whole_characters(output: bytes) -> int:
    """Return the length of `output` without the beginning of a character that more output may complete."""
    return utf_8_decode(output, "surrogateescape", False)[1]  # not final


def encode_lines(first_seq: int, timestamp: str, output: bytes, start: int, end: int) -> Iterator[tuple[bytes, int]]:
    """Yield the records of the lines in `output[start:end]`, which ends with a newline, in counted blocks.

    Floods of output spend their time here, so no Python runs for each line: only the numbers of the first ten thousand
    are formatted one by one, and binary output that holds every placeholder is escaped line by line.
    """
    seq = first_seq
    while start < end:
        stop = _end_of_block(output, start, min(start + _BLOCK, end))
        for records, count in _encode_block(seq, timestamp.encode(), output[start : stop - 1]):
            yield records, count
            seq += count
        start = stop


def _end_of_block(output: bytes, start: int, wanted: int) -> int:
    """Return the end of the last line that ends before `wanted`, or of the first where that is longer."""
    return output.rfind(b"\n", start, wanted) + 1 or output.index(b"\n", wanted) + 1


def _encode_block(seq: int, timestamp: bytes, lines: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the records of lines, of which the last lacks its newline, and their number.

    The lines are escaped as one string. Where one ended, the end of a record and the head of the next are inserted; ten
    thousand heads share all but the last four digits of `seq`, which the `%` of bytes fills in. Of lines 19999 to
    20001, `a`, `b` and `c`, `~` standing for a newline, this makes first

        {"seq":1%b,…,"line":"a~b~c"}                            text
        {"seq":1%b,…,"line":"a~b~c"}                            framed: only 19999 begins so
        {"seq":19999,…,"line":"a"}                              yielded; left is "b~c"

    and then

        {"seq":2%b,…,"line":"b"}⏎{"seq":2%b,…,"line":"c"}       framed, and both yielded
    """
    quoted, stand_in = _quote_lines(lines)
    left = quoted.replace(b"%", b"%%")
    while left:
        shared, rest = divmod(seq, _SHARING)
        head = b'{"seq":%b%%b,"timestamp":"%b","line":' % (b"%d" % shared if shared else b"", timestamp)
        text, frame = b"".join((head, left, b"}\n")), b'"}\n%b"' % head
        most = min(_MOST, _SHARING - rest)
        framed = text.replace(stand_in, frame, most - 1)
        count = (len(framed) - len(text)) // (len(frame) - len(stand_in)) + 1
        left = b""
        if count == most and (end := framed.find(stand_in)) >= 0:
            left = b'"' + framed[end + len(stand_in) : -len(b"}\n")]
            framed = framed[:end] + b'"}\n'
        yield framed % (_digits()[rest : rest + count] if shared else _numbers(seq, count)), count
        seq += count


@cache
def _digits() -> tuple[bytes, ...]:
    """Return all values of the last four digits of `seq`: half a megabyte, which only a log of so many lines needs."""
    return tuple(b"%04d" % number for number in range(_SHARING))


def _numbers(seq: int, count: int) -> tuple[bytes, ...]:
    """Return the numbers of lines in full, for heads that share no digit."""
    return tuple(b"%d" % number for number in range(seq, seq + count))


def _quote_lines(lines: bytes) -> tuple[bytes, bytes]:
    """Return lines as one JSON string, and the placeholder in it for a newline.

    An escaped newline could not be told from a backslash and an n, so a character that the lines do not contain
    replaces it first. For lines that contain all of those it is NUL, which JSON never contains unescaped.
    """
    stand_in = next((character for character in _STAND_INS if character not in lines), None)
    if stand_in is None:
        return b'"%b"' % b"\0".join(encode_text(show(line)) for line in lines.split(b"\n")), b"\0"
    return quote(_in_utf8(lines.replace(b"\n", stand_in))), stand_in


def encode(record: Record) -> bytes:
    """Return one record as a line of the log."""
    return _encoder.encode(record) + b"\n"


def decode(raw: bytes) -> Record | None:
    """Return the record on one line of a log, or None where the line holds none.

    NUL bytes before it are skipped: a file system may leave them after a loss of power.
    """
    try:
        return _decoder.decode(raw.lstrip(b"\0"))
    except _UNREADABLE:
        return None


def decode_block(raw: bytes) -> list[Record]:
    """Return the records on many lines of a log, skipping lines that hold none."""
    try:
        return _decoder.decode_lines(raw)
    except _UNREADABLE:
        return [record for line in raw.split(b"\n") if (record := decode(line)) is not None]


def count_whole_lines(raw: bytes) -> tuple[int, int] | None:
    """Return a block's first `seq` and its number of lines, or None where only decoding it can tell.

    Several times as fast as decoding. It counts only lines in the writer's own form, none in pieces, whose `seq` is
    contiguous: a torn record lacks its end, and a lost line its number.
    """
    if not (raw.startswith(_HEAD) and raw.endswith(_TAIL)):
        return None
    if b"\\" in raw and b"\\" + _TAIL in raw:  # text that ends in a backslash, or a record torn after a quote
        return None
    count = raw.count(_TAIL + _HEAD) + 1
    first, last = decode(raw[: raw.index(b"\n")]), decode(raw[raw.rfind(b"\n", 0, -1) + 1 :])
    if first is None or last is None or last.seq - first.seq != count - 1:
        return None
    return first.seq, count
