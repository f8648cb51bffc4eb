"""Runs in the worker: admit callers with the token or, where none is set, local programs but no browser's page."""

import hmac
from collections.abc import Callable, Collection
from wsgiref.types import WSGIEnvironment

from flask import Flask, Response, g, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, Unauthorized

from app.addresses import is_loopback, split_port
from app.config import Settings
from app.exceptions import BadRequestError
from app.web.lingering import ANSWER_TIMEOUT
from app.web.problems import HEADERS, POLICY
from app.wording import shorten

HEALTH_PATH = "/health"
SHOWN_HOST = 100  # characters
UNAUTHENTICATED = "This service needs its token: send the header Authorization: Bearer <the value of LLM_SHELL_TOKEN>."
FOREIGN_ORIGIN = "A page of another origin must not call this service; call it from a program instead."
FOREIGN_SITE = (
    "A page of another site must neither call this service nor lead to it: call it from a program, or type its address "
    "into the browser."
)
# Sec-Fetch-Site of a request that a page of this service or the user makes (W3C Fetch Metadata); programs send none,
# and no page can change the header.
_OWN_SITES = frozenset({"same-origin", "none"})
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def protect(app: Flask, settings: Settings, open_paths: Collection[str]) -> Callable[[WSGIEnvironment], None]:
    """Check every request to `app`, whether its path exists or not, before any other code reads it; return the check.

    `/health` and `open_paths` need no token.
    """
    expected = settings.token.encode() if settings.token is not None else None

    unguarded = {HEALTH_PATH, *open_paths}

    def check_caller(environ: WSGIEnvironment) -> None:
        _limit_stall(environ)
        if expected is None or settings.trusted_hosts:
            _check_host(environ, settings.trusted_hosts)
        if environ["PATH_INFO"] != HEALTH_PATH and environ.get("HTTP_SEC_FETCH_SITE", "none") not in _OWN_SITES:
            raise Forbidden(FOREIGN_SITE)
        if expected is None:
            _check_origin(environ)
        elif environ["PATH_INFO"] not in unguarded:
            _check_token(environ, expected)

    def accept() -> None:
        check_caller(request.environ)
        g.accepted = True

    app.before_request(accept)
    app.after_request(_add_headers)
    return check_caller


def _limit_stall(environ: WSGIEnvironment) -> None:
    """Bound how long writing an answer may hold a thread: a timeout ends it, and the connection.

    gunicorn's threaded worker passes the socket in `environ` and makes it blocking again before each request. Python's
    timeout covers a whole sendall(). An answer that takes longer needs a place (app/web/places.py).
    """
    if (connection := environ.get("gunicorn.socket")) is not None:
        connection.settimeout(ANSWER_TIMEOUT)


def _check_host(environ: WSGIEnvironment, trusted_hosts: tuple[str, ...]) -> None:
    """Refuse a host name that a hostile DNS server may resolve to this machine (DNS rebinding)."""
    host = environ.get("HTTP_HOST", "").lower()
    name = split_port(host)
    if name is None:
        raise BadRequestError("Send a Host header with the name or address of this service.")
    if not (is_loopback(name.strip("[]")) or host in trusted_hosts or name in trusted_hosts):
        raise BadRequestError(
            f"The Host {shorten(host, SHOWN_HOST)!r} is not this service's: call it by localhost, or have the operator "
            "add the name to the setting LLM_SHELL_TRUSTED_HOSTS."
        )


def _check_origin(environ: WSGIEnvironment) -> None:
    """Refuse pages of other origins, such as one that the started process serves on another port."""
    origin = environ.get("HTTP_ORIGIN")
    if origin is None:
        return
    scheme = environ["wsgi.url_scheme"]
    host = environ["HTTP_HOST"].lower()
    if origin.lower() != f"{scheme}://{host.removesuffix(_DEFAULT_PORTS.get(scheme, ''))}":
        raise Forbidden(FOREIGN_ORIGIN)


def _check_token(environ: WSGIEnvironment, expected: bytes) -> None:
    scheme, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "bearer":
        raise _unauthorized(UNAUTHENTICATED)
    if not credentials.strip():
        raise _unauthorized(
            "The header Authorization holds no token after Bearer: is LLM_SHELL_TOKEN set in your shell?",
            error="invalid_token",
        )
    if not hmac.compare_digest(credentials.strip().encode("utf-8", "replace"), expected):
        raise _unauthorized(
            "This is not the service's token; send the value that its LLM_SHELL_TOKEN has.", error="invalid_token"
        )


def _unauthorized(detail: str, **parameters: str) -> Unauthorized:
    return Unauthorized(detail, www_authenticate=WWWAuthenticate("bearer", {"realm": "LLM Shell", **parameters}))


def _add_headers(response: Response) -> Response:
    for name, value in POLICY.items():
        response.headers.setdefault(name, value)
    response.headers.extend(HEADERS)
    return response
