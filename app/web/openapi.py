"""Runs in the worker: the OpenAPI document's title and security scheme, and the errors of each call."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar, cast

from flask import Flask, Response
from flask_smorest import Api
from werkzeug.exceptions import HTTPException

from app.version import __version__
from app.web.errors import ProblemSchema, answer_http_exception
from app.web.parsing import Blueprint
from app.web.problems import PROBLEM_TYPE

Body = Mapping[str, Any]


ByStatus = Mapping[int, Mapping[str, Body]]


DESCRIPTION = """
LLM Shell runs shell commands for you, each under a name: start one, watch it, read what it printed, stop it, start it
again.

A typical round: `POST /start` with `{"command": "npm run dev"}`, then `GET /logs?lines=100` and `GET /status` as often
as you like, and `POST /kill` in the end. The command keeps running between your calls. Its stdin is empty, and its
output goes to a log file, from which `GET /logs` reads. A call without a `name` means the process `default`; give names
to have several at a time, which never touch each other.

Every error is an `application/problem+json` object whose `detail` says what to do.
""".strip()

View = TypeVar("View", bound=Callable[..., object])


class ShellApi(Api):
    """Extend flask-smorest's Api with this service's error format and security scheme."""

    ERROR_SCHEMA = ProblemSchema
    DEFAULT_ERROR_RESPONSE_NAME = None

    def __init__(self, app: Flask, *, needs_token: bool) -> None:
        """Describe a bearer token in the document when the service needs one."""
        super().__init__(app, spec_kwargs=_describe(needs_token=needs_token))

    def _register_responses(self) -> None:
        for status in HTTPStatus:
            self.spec.components.response(
                status.name,
                {"description": status.phrase, "content": {PROBLEM_TYPE: {"schema": self.ERROR_SCHEMA}}},
                lazy=True,
            )

    def _register_pagination_header(self) -> None:
        """Leave out flask-smorest's pagination, of which this API has none."""

    def handle_http_exception(self, error: HTTPException) -> Response:
        """Answer in the service's error format instead of flask-smorest's."""
        return answer_http_exception(error)


def fails_with(errors: ByStatus) -> Callable[[View], View]:
    """Document the errors that a call can answer with, each by an example."""
    responses = {status: _failure(HTTPStatus(status), bodies) for status, bodies in sorted(errors.items())}
    return cast("Callable[[View], View]", Blueprint.doc(responses=responses))


def _failure(status: HTTPStatus, bodies: Mapping[str, Body]) -> dict[str, object]:
    examples = {name: {"summary": name.replace("-", " "), "value": dict(body)} for name, body in bodies.items()}
    content = {"schema": ProblemSchema, "examples": examples}
    return {"description": status.phrase, "content": {PROBLEM_TYPE: content}}


def _describe(*, needs_token: bool) -> dict[str, object]:
    description: dict[str, object] = {
        "title": "LLM Shell",
        "version": __version__,
        "openapi_version": "3.0.3",
        "info": {"description": DESCRIPTION},
    }
    if needs_token:
        scheme = {"type": "http", "scheme": "bearer", "description": "The value of the setting LLM_SHELL_TOKEN."}
        description |= {"components": {"securitySchemes": {"bearer": scheme}}, "security": [{"bearer": []}]}
    return description
