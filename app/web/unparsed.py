"""Runs in the worker: word the answer to a request that gunicorn could not parse."""

from collections.abc import Mapping
from http import HTTPStatus

from gunicorn.http.errors import (  # type: ignore[attr-defined]  # two are not in the stubs yet
    ConfigurationProblem,
    ExpectationFailed,
    ForbiddenProxyRequest,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)

from app.wording import shorten

SHOWN_FAULT = 200  # characters
_NOT_THE_CALLERS = (ConfigurationProblem, InvalidResponseHeader, InvalidResponseHeaderName)
_OTHERS: Mapping[type[ParseException], tuple[HTTPStatus, str]] = {
    LimitRequestLine: (
        HTTPStatus.REQUEST_URI_TOO_LONG,
        "The request line is too long (method, path and query together): send at most 4 KiB.",
    ),
    LimitRequestHeaders: (
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "There are too many headers, or one is too long: send at most 100, of 8 KiB each.",
    ),
    ExpectationFailed: (
        HTTPStatus.EXPECTATION_FAILED,
        "This service meets no other expectation than 100-continue: send the request without the header Expect.",
    ),
    UnsupportedTransferCoding: (
        HTTPStatus.NOT_IMPLEMENTED,
        "This service reads no other transfer coding than chunked: send the body plain.",
    ),
    ForbiddenProxyRequest: (HTTPStatus.FORBIDDEN, "This service does not accept the PROXY protocol."),
}


def refusal_of(error: BaseException) -> tuple[HTTPStatus, str] | None:
    """Return status and detail of the answer to gunicorn's exception, or None when the caller did not cause it."""
    if not isinstance(error, ParseException) or isinstance(error, _NOT_THE_CALLERS):
        return None
    known = _OTHERS.get(type(error))
    return known or (
        HTTPStatus.BAD_REQUEST,
        f"The request is not well-formed HTTP: {shorten(str(error), SHOWN_FAULT)}.",
    )
