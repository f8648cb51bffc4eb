"""Runs in the worker: answer with a log of any length, in bounded memory and a bounded number of threads."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

from flask import Response, request

from app.reading.page import LogPage
from app.web.places import long_answer

# Each piece must be sent within `LONG_ANSWER_SECONDS`, so this is the slowest client that is still served: 64 KiB in
# 30 s.
PIECE_BYTES = 64 * 1024


def answer_short(page: LogPage) -> Response:
    """Answer with the whole page at once."""
    with page:
        body = b"".join(_encode(page))
    return Response(list(_slice(body)), mimetype="application/json")


def answer_long(page: LogPage) -> Response:
    """Stream the page while holding one of the few places for long answers.

    gunicorn closes the answer once it is sent or the client has disconnected; that frees the place and the files.
    """
    with ExitStack() as resources:
        resources.enter_context(page)
        resources.enter_context(long_answer())
        response = Response(_stream(page, request.environ.get("gunicorn.socket")), mimetype="application/json")
        response.call_on_close(resources.pop_all().close)
    return response


def _stream(page: LogPage, connection: socket.socket | None) -> Iterator[bytes]:
    try:
        for chunk in _encode(page):
            yield from _slice(chunk)
    except GeneratorExit:
        # Closed before its end: the client is gone or has stopped reading. gunicorn's main thread would wait two more
        # seconds for it to close, and accept no connection meanwhile.
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        raise


def _encode(page: LogPage) -> Iterator[bytes]:
    """Yield the answer; `lines_returned` comes last because it is known only after the content."""
    head: dict[str, Any] = {"log_file": page.log_file, "total_lines": page.total_lines}
    if page.truncated:
        head |= {"truncated": True, "first_seq": page.first_seq}
    yield json.dumps(head, separators=(",", ":")).removesuffix("}").encode() + b',"content":"'
    yield from page.chunks()
    yield f'","lines_returned":{page.lines_returned}}}\n'.encode()


def _slice(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES))
