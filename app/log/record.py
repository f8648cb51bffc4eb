"""The log format: one JSON record a line. The one place that knows it."""

from codecs import utf_8_decode
from typing import Annotated

from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder, Encoder

LINE_LIMIT = 64 * 1024
"""Bytes of output that one record holds at most; a longer line is written in pieces."""

RECORD_LIMIT = 1024 * 1024
"""Bytes that one record can take on disk, with room to spare: a byte of output is escaped to six at most."""


class Record(Struct, omit_defaults=True, gc=False):
    """Hold one line of output, or one piece of it.

    Pieces share their line's `seq`, count `part` from 1, and all but the last are `partial`.
    """

    seq: Annotated[int, Meta(ge=1)]
    timestamp: str
    line: str
    part: int = 0
    partial: bool = False


_STAND_IN = "\x7f"
_NUMBERS = [b"%d" % number for number in range(1000)]
_DIGITS = [b"%03d" % number for number in range(1000)]
_encoder = Encoder()
_decoder = Decoder(Record)
_UNREADABLE = (DecodeError, UnicodeDecodeError, RecursionError)


def show(output: bytes) -> str:
    r"""Return output as text, bytes that are not UTF-8 as `\xNN`.

    This is `backslashreplace`, which calls back for every bad byte; the two handlers used in its place are inlined in
    CPython's codecs and bring binary output from 3 to 15 MB/s. Output that spells `\udc` itself must go the slow way.
    """
    try:
        return output.decode()
    except UnicodeDecodeError:
        if b"\\udc" in output:
            return output.decode(errors="backslashreplace")
    text = output.decode(errors="surrogateescape")
    return text.encode(errors="backslashreplace").replace(b"\\udc", b"\\x").decode()


def whole_characters(output: bytes) -> int:
    """Return the length of `output` without the beginning of a character that more output may complete."""
    return utf_8_decode(output, "surrogateescape", False)[1]  # not final


def encode_lines(first_seq: int, timestamp: str, text: str) -> tuple[bytes, int]:
    """Return the records of the whole lines that make up `text`, numbered from `first_seq` on, and how many they are.

    This is where the time of a flood goes, so no Python runs for each line: the text is escaped as one string and cut
    afterwards, and the records are interleaved by slice assignment out of lists that are built in C.
    """
    bodies = _escape_lines(text)
    middle = b',"timestamp":"%b","line":"' % timestamp.encode()
    parts: list[bytes] = []
    while (done := len(parts) // 4) < len(bodies):
        thousands, rest = divmod(first_seq + done, 1000)
        count = min(1000 - rest, len(bodies) - done)
        records = [b'"}\n{"seq":%b' % (b"%d" % thousands if thousands else b"")] * (4 * count)
        records[1::4] = (_DIGITS if thousands else _NUMBERS)[rest : rest + count]
        records[2::4] = [middle] * count
        records[3::4] = bodies[done : done + count]
        parts += records
    parts[0] = parts[0].removeprefix(b'"}\n')
    parts.append(b'"}\n')
    return b"".join(parts), len(bodies)


def _escape_lines(text: str) -> list[bytes]:
    """Return the inside of each line's JSON string.

    Escaped, a newline could not be told from a backslash and an n, so another character takes its place that JSON does
    not escape.
    """
    if _STAND_IN in text:
        return [encode_text(line) for line in text.split("\n")]
    return encode_text(text.replace("\n", _STAND_IN)).split(_STAND_IN.encode())


def encode(record: Record) -> bytes:
    """Return one record as a line of the log."""
    return _encoder.encode(record) + b"\n"


def encode_text(text: str) -> bytes:
    """Return the inside of a JSON string: escaped, without its quotes."""
    return _encoder.encode(text)[1:-1]


def decode(raw: bytes) -> Record | None:
    """Return the record on one line of a log, or None where the line holds none.

    NUL bytes before it are skipped: a file system may leave them where the machine lost power.
    """
    try:
        return _decoder.decode(raw.lstrip(b"\0"))
    except _UNREADABLE:
        return None


def decode_block(raw: bytes) -> list[Record]:
    """Return the records on many lines of a log, skipping what is none."""
    try:
        return _decoder.decode_lines(raw)
    except _UNREADABLE:
        return [record for line in raw.split(b"\n") if (record := decode(line)) is not None]
