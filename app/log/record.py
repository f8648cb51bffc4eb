"""The log format: one JSON record a line. The one place that knows it."""

from codecs import utf_8_decode
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
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


_MUCH = 16 * 1024
_STAND_INS = (b"\x7f", b"~", b"`", b"^", b"|", b"$")
_END = b'"}\n'
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


def encode_lines(first_seq: int, timestamp: str, output: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the records of lines that each end with a newline, numbered from `first_seq` on, in counted blocks.

    This is where the time of a flood goes, so no Python runs for each line: the output is escaped as one string and cut
    afterwards, and the records are interleaved by slice assignment out of lists that are built in C. A block holds up
    to a thousand of them, so that a flood of empty lines, each of which takes sixty bytes here, is bounded as well.
    """
    tails = _escape_lines(output)
    middle = b',"timestamp":"%b","line":"' % timestamp.encode()
    done = 0
    while done < len(tails):
        thousands, rest = divmod(first_seq + done, 1000)
        count = min(1000 - rest, len(tails) - done)
        parts = [b'{"seq":%d' % thousands if thousands else b'{"seq":'] * (4 * count)
        parts[1::4] = (_DIGITS if thousands else _NUMBERS)[rest : rest + count]
        parts[2::4] = [middle] * count
        parts[3::4] = tails[done : done + count]
        yield b"".join(parts), count
        done += count


def _escape_lines(output: bytes) -> list[bytes]:
    """Return each line's record from the inside of its JSON string to its end.

    Escaped, a newline could not be told from a backslash and an n, so a character takes its place that JSON does not
    escape and the output does not hold. The cutting is left to `readlines`, which searches with memchr(3) where `split`
    looks at each byte.
    """
    stand_in = next((character for character in _STAND_INS if character not in output), None)
    if stand_in is None:
        return [encode_text(show(line)) + _END for line in output.split(b"\n")[:-1]]
    escaped = BytesIO(_quote(show(output.replace(b"\n", stand_in))).replace(stand_in, _END))
    escaped.seek(1)  # behind the quote that opens the whole
    return escaped.readlines()[:-1]  # and without the one that closes it


def encode(record: Record) -> bytes:
    """Return one record as a line of the log."""
    return _encoder.encode(record) + b"\n"


def encode_text(text: str) -> bytes:
    """Return the inside of a JSON string: escaped, without its quotes."""
    return _quote(text)[1:-1]


def _quote(text: str) -> bytes:
    """Return text as a JSON string.

    orjson is many times as quick, and worth its import, on much text.
    """
    return _encoder.encode(text) if len(text) < _MUCH else _quick_quote()(text)


@cache
def _quick_quote() -> Callable[[str], bytes]:
    """Return orjson's encoder; msgspec's where it is gone, as after an upgrade that a kept shim has outlived."""
    try:
        import orjson  # noqa: PLC0415  its import costs more than all that most commands print
    except ImportError:
        return _encoder.encode
    return orjson.dumps


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
