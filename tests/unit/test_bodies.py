"""How far a body has come is told at its last byte, neither earlier nor later."""

from __future__ import annotations

import pytest

from app.web.bodies import MAX_BODY_BYTES, Came, body_after

HEAD = b"POST /start HTTP/1.1\r\nHost: localhost\r\n"


def came(fields: bytes, body: bytes, piece: int = 1) -> list[Came]:
    """Return what is told after each piece of a body."""
    head = HEAD + fields + b"\r\n\r\n"
    data = bytearray(head)
    awaited = body_after(data, len(head))
    assert awaited is not None
    told = [awaited.body.look(data)]
    for start in range(0, len(body), piece):
        data += body[start : start + piece]
        told.append(awaited.body.look(data))
    return told


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (b"Content-Length: 2", b"{}"),
        (b"content-length:\t2 ", b"{}"),
        (b"X: y\r\nTransfer-Encoding: Chunked", b"2\r\n{}\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"2;a=b\r\n{}\r\n00000002 ;a\r\n\r\n\r\n0\r\n\r\n"),
    ],
)
def test_a_body_is_whole_at_its_last_byte(fields: bytes, body: bytes) -> None:
    """Byte by byte it is a part until the last one."""
    assert came(fields, body) == [Came.PART] * len(body) + [Came.WHOLE]


@pytest.mark.parametrize(
    "body", [b"0\r\nX: y\r\n\r\n", b"0;a=b\r\n\r\n", b"1\r\nxyz", b"zz\r\n", b"-1\r\n", b"1" * 9000]
)
def test_what_is_odd_is_handed_on_at_its_last_byte(body: bytes) -> None:
    """What has trailers, or is not well-formed, is the parser's as soon as nothing more is needed to tell."""
    assert came(b"Transfer-Encoding: chunked", body)[-1] is Came.ODD
    assert Came.WHOLE not in came(b"Transfer-Encoding: chunked", body)


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 1048577",
        b"Content-Length: " + b"9" * 5000,
        b"Content-Length: x",
        b"Content-Length: 2\r\nContent-Length: 2",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Content-Length: 2\r\nExpect: tea",
    ],
)
def test_what_is_refused_by_its_head_is_not_awaited(fields: bytes) -> None:
    """Nobody waits for a body that is refused whatever it holds."""
    assert came(fields, b"") == [Came.ODD]


@pytest.mark.parametrize("chunk", [1, 16, 65536])
def test_chunks_have_an_end(chunk: int) -> None:
    """Endless chunks, of whatever size, are handed on before they take more than twice what a body may have."""
    endless = (f"{chunk:x}".encode() + b"\r\n" + b"x" * chunk + b"\r\n") * (3 * MAX_BODY_BYTES // (chunk + 5))
    assert came(b"Transfer-Encoding: chunked", endless, 65536)[-1] is Came.ODD


@pytest.mark.parametrize("fields", [b"Accept: */*", b"X-Content-Length: 5", b"X: Content-Length: 5"])
def test_what_has_no_body(fields: bytes) -> None:
    """Nothing follows a head that announces nothing."""
    head = HEAD + fields + b"\r\n\r\n"
    assert body_after(bytearray(head), len(head)) is None
