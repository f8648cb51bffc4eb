"""How answers are put into JSON: as the supervisor gives them, without a copy on the way."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Response
from flask.json.provider import DefaultJSONProvider
from marshmallow import Schema


class AnswerSchema(Schema):
    """Describe an answer that is JSON-ready already.

    The supervisor builds the contract's objects itself; to copy them field by field would be a third of what a /status
    costs. That they are as described is what tests/api and the contract test check.
    """

    def dump(self, obj: Any, *, many: bool | None = None) -> Any:  # noqa: ARG002  marshmallow's signature
        """Return the object as it is."""
        return obj


class QuickJSON(DefaultJSONProvider):
    """Be Flask's JSON, with answers encoded many times as fast and in the order of the contract."""

    sort_keys = False

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Return an answer with this body."""
        return Response(encode(self._prepare_response_obj(args, kwargs)), mimetype=self.mimetype)


def encode(answer: object) -> bytes:
    """Return an answer's body, a newline at its end for whoever reads it in a terminal."""
    return msgspec.json.encode(answer) + b"\n"
