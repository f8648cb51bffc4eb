"""Runs in every process of ours: text as a JSON string, escaped by the fastest known encoder that is installed."""

import os
from collections.abc import Callable

_PIECE = 8 * 1024  # characters


def _quick_encoder() -> Callable[[str], str] | None:
    """Return ssrjson's encoder, if the version that was reviewed is installed (see requirements-quick.txt)."""
    try:
        import ssrjson  # noqa: PLC0415  not available for every system
    except ImportError:
        return None
    known = ssrjson.__version__ == "0.0.24" and os.uname().machine == "x86_64"
    return ssrjson.dumps if known else None


def _usual_encoder() -> Callable[[str], str]:
    from json.encoder import encode_basestring  # noqa: PLC0415  imports two dozen modules that most shims don't need

    return encode_basestring


_to_json = _quick_encoder() or _usual_encoder()

ESCAPES_QUICKLY = _to_json.__module__ == "ssrjson"
"""Whether text is escaped with vector instructions."""


def encode_text(text: str) -> bytes:
    """Return the inside of a JSON string: escaped, without its quotes."""
    # In pieces: ssrjson allocates six times the length, and the allocator would map what is larger than 128 KiB anew
    # for each call, page by page.
    return b"".join([_encode_piece(text[start : start + _PIECE]) for start in range(0, len(text), _PIECE)])


def _encode_piece(text: str) -> bytes:
    as_bytes = text if text.isascii() else text.encode().decode("latin-1")
    return _to_json(as_bytes)[1:-1].encode("latin-1")


def quote(text: bytes) -> bytes:
    """Return UTF-8 as a JSON string.

    Only ASCII is ever escaped in it, so the bytes pass as Latin-1, a character each: decoded as UTF-8 they would take
    four bytes a character as soon as one is an emoji, and have to be encoded again.
    """
    return _to_json(text.decode("latin-1")).encode("latin-1")
