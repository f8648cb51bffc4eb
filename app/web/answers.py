"""Runs in the worker: encode answers as JSON without copying the supervisor's objects."""

from typing import Any

import msgspec
from flask import Response
from flask.json.provider import DefaultJSONProvider
from marshmallow import Schema


class AnswerSchema(Schema):
    """Describe an answer that can be encoded as it is.

    The supervisor builds the contract's objects itself; copying them field by field would be a third of the cost of a
    /status. tests/api and the contract test check that they match the description.
    """

    def dump(self, obj: Any, *, many: bool | None = None) -> Any:  # noqa: ARG002  marshmallow's signature
        """Return the object as it is."""
        return obj


class QuickJSON(DefaultJSONProvider):
    """Encode Flask's answers many times as fast as its default, and in the order of the contract."""

    sort_keys = False

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Return an answer with this body."""
        return Response(encode(self._prepare_response_obj(args, kwargs)), mimetype=self.mimetype)


def encode(answer: object) -> bytes:
    """Return an answer's body, with a newline at its end for readers in a terminal."""
    return msgspec.json.encode(answer) + b"\n"
