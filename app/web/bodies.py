"""Runs in the worker's main loop: find out whether a request's body is complete, so that a thread can get the request.

Only gunicorn's parser refuses requests: whatever looks irregular here is passed to it at once.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

MAX_BODY_BYTES = 1024 * 1024
# Bytes of a chunked body with its framing: chunks of a few bytes are mostly framing, and cost time rather than memory.
MAX_CHUNKED_BYTES = 2 * MAX_BODY_BYTES
CUT_SHORT = "The body is cut short, or its chunks are not well-formed."
# gunicorn's limit to a chunk's line (gunicorn.http.body) and a little more, so that gunicorn refuses it itself.
_MAX_LINE = 8192 + 2
_FIELD = re.compile(
    rb"\r\n(content-length|transfer-encoding|expect)[ \t]*:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE
)
_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}")
_LENGTH = re.compile(rb"\d{1,20}")
_CONTINUE = b"100-continue"


class Came(Enum):
    """Say how much of a body has been received."""

    PART = auto()
    WHOLE = auto()
    ODD = auto()  # not to be waited for, since its end is uncertain


class Body:
    """A body that follows a head in the same bytes; of this class itself, one whose end is uncertain."""

    def look(self, data: bytearray) -> Came:  # noqa: ARG002  for the other classes
        """Tell how much was received; `data` begins with the bytes of the last call."""
        return Came.ODD

    def cut_short(self, data: bytearray) -> str:  # noqa: ARG002  as above
        """Return the refusal of a body that ended too early."""
        return CUT_SHORT


@dataclass(slots=True)
class _Announced(Body):
    """A body of known length."""

    start: int
    length: int

    def look(self, data: bytearray) -> Came:
        return Came.WHOLE if len(data) >= self.start + self.length else Came.PART

    def cut_short(self, data: bytearray) -> str:
        return f"The body ended after {len(data) - self.start} of the {self.length} bytes announced."


class _Chunked(Body):
    """A body in chunks (RFC 9112, 7.1), of which each line is parsed once, when it is complete."""

    def __init__(self, start: int) -> None:
        self._at = start
        self._start = start
        self._payload = 0

    def look(self, data: bytearray) -> Came:
        # A body that is too long is not waited for any longer.
        if len(data) - self._start > MAX_CHUNKED_BYTES:
            return Came.ODD
        while (end := data.find(b"\r\n", self._at, self._at + _MAX_LINE)) >= 0:
            line = data[self._at : end]
            size = _size_of(line)
            if size == 0:
                return self._end(data, line, end + 2)
            if size is None or self._payload + min(size, len(data) - end - 2) > MAX_BODY_BYTES:
                return Came.ODD
            begin = end + 2 + size
            if len(data) < begin + 2:
                return Came.PART
            if not data.startswith(b"\r\n", begin):
                return Came.ODD
            self._payload += size
            self._at = begin + 2
        return Came.PART if len(data) - self._at < _MAX_LINE else Came.ODD

    def _end(self, data: bytearray, line: bytearray, begin: int) -> Came:
        if data.startswith(b"\r\n", begin):
            return Came.WHOLE if line.strip(b"0") == b"" else Came.ODD
        if len(data) < begin + 2:
            return Came.PART
        return Came.ODD if data.find(b"\r\n\r\n", begin) >= 0 else Came.PART


def _size_of(line: bytearray) -> int | None:
    """Return a chunk's size, without its extension; None for a malformed one, or one far too large."""
    size, _, _extension = line.partition(b";")
    size = size.rstrip(b" \t")
    return int(size, 16) if _SIZE.fullmatch(size) else None


class Awaited(NamedTuple):
    """The body that follows a head."""

    body: Body
    on_request: bool  # whether the client waits for 100 Continue before it sends the body


def body_after(data: bytearray, end: int) -> Awaited | None:
    """Return the body that follows the head that ends there, or None when there is none."""
    # The last field's CRLF is the first half of the head's end.
    fields = [(name.lower(), value.lower()) for name, value in _FIELD.findall(data, 0, end - 2)]
    if not fields:
        return None
    found = dict(fields)
    if len(found) < len(fields):
        return Awaited(Body(), on_request=False)
    expected = found.pop(b"expect", None)
    on_request = expected == _CONTINUE and data[: data.find(b"\r\n")].endswith(b" HTTP/1.1")
    body = _body(found, end) if expected in {None, _CONTINUE} else Body()
    return Awaited(body, on_request) if body is not None else None


def _body(fields: dict[bytes, bytes], start: int) -> Body | None:
    match fields:
        case {b"content-length": length, **others} if not others and _LENGTH.fullmatch(length):
            return _Announced(start, int(length)) if int(length) <= MAX_BODY_BYTES else Body()
        case {b"transfer-encoding": b"chunked", **others} if not others:
            return _Chunked(start)
        case _:
            return Body() if fields else None
