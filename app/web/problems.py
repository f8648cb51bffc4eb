"""Runs in the worker: the format of an error (RFC 9457) and the headers of every answer, with or without Flask."""

from http import HTTPStatus

import msgspec

from app.wording import shorten

PROBLEM_TYPE = "application/problem+json"
MAX_DETAIL = 2000  # characters, whatever text of a caller it quotes
POLICY = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}  # /docs has one of its own
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
ANSWER_HEADERS = POLICY | HEADERS


def problem(status: HTTPStatus, detail: str) -> dict[str, object]:
    """Return the members that every error has."""
    return {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": printable(shorten(detail, MAX_DETAIL)),
    }


def head_and_body(status: HTTPStatus, detail: str) -> tuple[dict[str, str], bytes]:
    """Return an error as headers and body, for an answer made outside of the application."""
    body = msgspec.json.encode(problem(status, detail)) + b"\n"
    return ANSWER_HEADERS | {"Content-Type": PROBLEM_TYPE, "Content-Length": str(len(body))}, body


def whole_answer(status: HTTPStatus, detail: str) -> bytes:
    """Return an error as the bytes of an answer, after which the connection is to be closed."""
    headers, body = head_and_body(status, detail)
    lines = [f"{name}: {value}\r\n" for name, value in (headers | {"Connection": "close"}).items()]
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\n{''.join(lines)}\r\n"
    return head.encode("ascii") + body


def printable(text: str) -> str:
    """Escape lone surrogates, for which strict JSON parsers would refuse the whole answer."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
