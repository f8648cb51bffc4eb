"""How far a request's body has come. Runs in the worker's main loop, and decides there when a thread gets the request.

What the request means is the parser's to say: whatever looks odd here is left to it at once.
"""

import re
from enum import Enum, auto
from typing import NamedTuple, Protocol

MAX_BODY_BYTES = 1024 * 1024
# Of a chunked body with its framing. Chunks of a few bytes each are mostly framing, and take time rather than room.
MAX_CHUNKED_BYTES = 2 * MAX_BODY_BYTES
CUT_SHORT = "The body did not come as announced: it is cut short, or not well-formed in its chunks."
# As gunicorn bounds the line of a chunk (gunicorn.http.body), a little more, so that its own refusal is the one told.
_MAX_LINE = 8192 + 2
_FIELD = re.compile(
    rb"\r\n(content-length|transfer-encoding|expect)[ \t]*:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE
)
_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}")
_LENGTH = re.compile(rb"\d{1,20}")
_CONTINUE = b"100-continue"


class Came(Enum):
    """What has come of a body."""

    PART = auto()
    WHOLE = auto()
    ODD = auto()  # nothing more is to be awaited, and where it ends is not for sure


class Body(Protocol):
    """A body that follows a head in the same bytes."""

    def look(self, data: bytearray) -> Came:
        """Tell how far it has come; the bytes are those of the last time and more."""

    def cut_short(self, data: bytearray) -> str:
        """Say that it ended too early."""


class Announced(NamedTuple):
    """A body whose length is known."""

    start: int
    length: int

    def look(self, data: bytearray) -> Came:
        """Tell how far it has come."""
        return Came.WHOLE if len(data) >= self.start + self.length else Came.PART

    def cut_short(self, data: bytearray) -> str:
        """Say that it ended too early."""
        return f"The body ended after {len(data) - self.start} of the {self.length} bytes announced."


class Odd:
    """A body that nobody waits for."""

    def look(self, data: bytearray) -> Came:  # noqa: ARG002  as every body has it
        """Tell that nothing more is awaited."""
        return Came.ODD

    def cut_short(self, data: bytearray) -> str:  # noqa: ARG002  as above
        """Say that it ended too early."""
        return CUT_SHORT


class Chunked:
    """A body in chunks (RFC 9112, 7.1), of which every line is looked at once it is there."""

    def __init__(self, start: int) -> None:
        self._at = start
        self._start = start
        self._payload = 0

    def look(self, data: bytearray) -> Came:
        """Tell how far it has come; one that is too long is odd once so much of it is there that it can be told."""
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

    def cut_short(self, data: bytearray) -> str:  # noqa: ARG002  as above
        """Say that it ended too early."""
        return CUT_SHORT

    def _end(self, data: bytearray, line: bytearray, begin: int) -> Came:
        if data.startswith(b"\r\n", begin):
            return Came.WHOLE if line.strip(b"0") == b"" else Came.ODD
        if len(data) < begin + 2:
            return Came.PART
        return Came.ODD if data.find(b"\r\n\r\n", begin) >= 0 else Came.PART


def _size_of(line: bytearray) -> int | None:
    """Return a chunk's size, whatever extension follows it; None for what is none, or far too much."""
    size, _, _extension = line.partition(b";")
    size = size.rstrip(b" \t")
    return int(size, 16) if _SIZE.fullmatch(size) else None


class Awaited(NamedTuple):
    """What follows a head."""

    body: Body
    on_request: bool  # whether the client waits for 100 Continue before it sends the body


def body_after(data: bytearray, end: int) -> Awaited | None:
    """Return what follows the head that ends there, or None when no body does."""
    # The head's last line ends where the empty one begins.
    fields = [(name.lower(), value.lower()) for name, value in _FIELD.findall(data, 0, end - 2)]
    if not fields:
        return None
    found = dict(fields)
    if len(found) < len(fields):
        return Awaited(Odd(), on_request=False)
    expected = found.pop(b"expect", None)
    on_request = expected == _CONTINUE and data[: data.find(b"\r\n")].endswith(b" HTTP/1.1")
    body = _body(found, end) if expected in {None, _CONTINUE} else Odd()
    return Awaited(body, on_request) if body is not None else None


def _body(fields: dict[bytes, bytes], start: int) -> Body | None:
    match fields:
        case {b"content-length": length, **others} if not others and _LENGTH.fullmatch(length):
            return Announced(start, int(length)) if int(length) <= MAX_BODY_BYTES else Odd()
        case {b"transfer-encoding": b"chunked", **others} if not others:
            return Chunked(start)
        case _:
            return Odd() if fields else None
