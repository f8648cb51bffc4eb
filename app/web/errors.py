"""Runs in the worker: answer every error as `application/problem+json` (RFC 9457), wherever it was raised."""

import os
from collections.abc import Mapping
from http import HTTPStatus

from flask import Flask, Response, current_app, jsonify, request
from marshmallow import INCLUDE, fields
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing.exceptions import WebsocketMismatch

from app.exceptions import BadRequestError, ConflictError, InternalError, LLMShellError, NotFoundError
from app.web.answers import AnswerSchema
from app.web.problems import PROBLEM_TYPE, printable, problem
from app.wording import nearest, shorten

SHOWN_PATH = 100
TOO_LARGE = "The body is too large; send at most 1 MiB."
STATUS_OF: Mapping[type[LLMShellError], HTTPStatus] = {
    BadRequestError: HTTPStatus.BAD_REQUEST,
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    InternalError: HTTPStatus.INTERNAL_SERVER_ERROR,
}


def register(app: Flask) -> None:
    """Make `app` answer domain errors, routing errors and internal errors in one format."""
    app.register_error_handler(LLMShellError, _answer_domain_error)
    app.register_error_handler(HTTPException, answer_http_exception)
    app.register_error_handler(OSError, _answer_refusal)


def answer_http_exception(error: HTTPException) -> Response:
    """Answer Werkzeug's exception, keeping headers such as `Allow` and `WWW-Authenticate`.

    An internal error arrives here as a 500 that Flask has made; its traceback goes to the log alone.
    """
    response = _problem(HTTPStatus(error.code or 500), _explain(error))
    for name, value in error.get_headers():
        if name.lower() != "content-type":
            response.headers[name] = value
    return response


def _answer_domain_error(error: LLMShellError) -> Response:
    extra = dict(error.extra)
    if isinstance(error, BadRequestError) and error.errors:
        extra["errors"] = {printable(name): list(messages) for name, messages in error.errors.items()}
    return _problem(STATUS_OF[type(error)], error.detail, **extra)


def _answer_refusal(error: OSError) -> Response:
    """Answer a system error that no code expected with its own message: no descriptor left, an unreadable disk."""
    current_app.logger.error("The system refused: %s", request.path, exc_info=error)
    words = os.strerror(error.errno) if error.errno else str(error)
    detail = f"The system refused what this request needs: {words}. Try again once that is remedied."
    return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def _problem(status: HTTPStatus, detail: str, /, **extra: object) -> Response:
    members = problem(status, detail)
    response = jsonify(members | extra | members)  # the standard members first, and never overridden
    response.status_code = status
    response.mimetype = PROBLEM_TYPE
    return response


def _explain(error: HTTPException) -> str:
    path = shorten(_path(), SHOWN_PATH)
    if isinstance(error, WebsocketMismatch):
        return f"There is no WebSocket here: call {path} without the header Upgrade."
    if isinstance(error, MethodNotAllowed):
        methods = sorted({*(error.valid_methods or ())} - {"HEAD", "OPTIONS"})
        return f"{path} does not take {shorten(request.method, SHOWN_PATH)}; use {' or '.join(methods)}."
    match error.code:
        case 404:
            return _explain_unknown(path)
        case 413:
            return TOO_LARGE
        case 500:
            return "The service failed to answer this request; its log has the reason."
        case _:
            return error.description or "The request cannot be answered."


def _explain_unknown(path: str) -> str:
    name = path.strip("/")
    if not name:
        base = request.script_root
        return f"There is nothing at {path} itself: open {base}/docs in a browser; programs read {base}/openapi.json."
    meant = nearest(name, (rule.rule.strip("/") for rule in current_app.url_map.iter_rules() if not rule.arguments))
    question = f"did you mean /{meant}? " if meant else ""
    return f"There is no {path} here; {question}GET /openapi.json lists what there is."


def _path() -> str:
    """Return the requested path; in `request.path` leading slashes are merged into one."""
    return str(request.environ["PATH_INFO"].encode("latin-1").decode(errors="replace"))


class ProblemSchema(AnswerSchema):
    """An error by RFC 9457; further members have details, such as the pids that prevent a start."""

    class Meta:
        """Document that there may be further members."""

        unknown = INCLUDE

    type = fields.String(required=True, metadata={"example": "about:blank"})
    title = fields.String(required=True, metadata={"description": "The status in words."})
    status = fields.Integer(required=True, metadata={"description": "The HTTP status."})
    detail = fields.String(required=True, metadata={"description": "One sentence that says what to do."})
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata={"description": "For an invalid request: the messages for each field."},
    )
