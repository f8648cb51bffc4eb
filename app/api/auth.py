"""Who may call: the token's holder, or without a token this machine's own programs and no page in a browser."""

from __future__ import annotations

import hmac

from flask import Flask, Response, current_app, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, Unauthorized

from app.addresses import is_loopback, split_port
from app.config import Settings
from app.exceptions import BadRequestError

OPEN_PATH = "/health"
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_POLICY = "default-src 'none'; frame-ancestors 'none'"
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def protect(app: Flask, settings: Settings) -> None:
    """Check every request to `app`, known path or not, before anything else looks at it."""
    expected = settings.token.encode() if settings.token is not None else None

    def check_caller() -> None:
        _limit_stalls()
        if expected is None or settings.trusted_hosts:
            _check_host(settings.trusted_hosts)
        if expected is None:
            _check_origin()
        elif request.path != OPEN_PATH:
            _check_token(expected)

    app.before_request(check_caller)
    app.after_request(_add_headers)


def _limit_stalls() -> None:
    """Bound how long one read from, or write to, a client that has stopped may hold a thread.

    gunicorn's threaded worker hands the socket out and makes it blocking again before each request. A timeout in a read
    reaches Werkzeug as a client that went away, one in a write ends the answer.
    """
    if (connection := request.environ.get("gunicorn.socket")) is not None:
        connection.settimeout(current_app.config["STALL_SECONDS"])


def _check_host(trusted_hosts: tuple[str, ...]) -> None:
    """Refuse a name that someone else's DNS may have pointed at us (DNS rebinding)."""
    host = request.environ.get("HTTP_HOST", "").lower()
    name = split_port(host)
    if name is None:
        raise BadRequestError("Send a Host header with the name or address of this service.")
    if not (is_loopback(name.strip("[]")) or host in trusted_hosts or name in trusted_hosts):
        raise BadRequestError(
            f"The Host {host!r} is not this service's: call it by localhost, or have the operator add the name to the "
            "setting LLM_SHELL_TRUSTED_HOSTS."
        )


def _check_origin() -> None:
    """Refuse pages of other origins; a page that the started process serves on another port is one of those."""
    origin = request.environ.get("HTTP_ORIGIN")
    if origin is None:
        return
    scheme = request.environ["wsgi.url_scheme"]
    host = request.environ["HTTP_HOST"].lower()
    if origin.lower() != f"{scheme}://{host.removesuffix(_DEFAULT_PORTS.get(scheme, ''))}":
        raise Forbidden("A page of another origin must not call this service; call it from a program instead.")


def _check_token(expected: bytes) -> None:
    scheme, _, credentials = request.environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized(
            "This service needs its token: send the header Authorization: Bearer <the value of LLM_SHELL_TOKEN>.",
            www_authenticate=WWWAuthenticate("bearer", {"realm": "LLM Shell"}),
        )
    if not hmac.compare_digest(credentials.strip().encode("utf-8", "replace"), expected):
        raise Unauthorized(
            "This is not the service's token; send the value that its LLM_SHELL_TOKEN has.",
            www_authenticate=WWWAuthenticate("bearer", {"realm": "LLM Shell", "error": "invalid_token"}),
        )


def _add_headers(response: Response) -> Response:
    response.headers.setdefault("Content-Security-Policy", _POLICY)  # /docs has one of its own
    response.headers.extend(_HEADERS)
    return response
