"""The log format: one JSON record a line. The one place that knows it."""

from codecs import utf_8_decode
from itertools import repeat
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


def encode_lines(first_seq: int, timestamp: str, lines: list[str]) -> bytes:
    """Return the records of whole lines, numbered from `first_seq` on."""
    seqs = range(first_seq, first_seq + len(lines))
    return _encoder.encode_lines(list(map(Record, seqs, repeat(timestamp), lines)))


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
