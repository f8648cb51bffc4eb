"""How requests are read: strictly, and every fault is a 400 that names its field."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, cast

from flask import Request, request
from flask_smorest import Blueprint as SmorestBlueprint
from marshmallow import RAISE, Schema, ValidationError
from webargs.core import is_json
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from app.exceptions import BadRequestError

NO_SUCH_FIELD = "There is no such field; /openapi.json has them all."
GIVEN_TWICE = "Give it only once."
MAX_BODY_BYTES = 1024 * 1024
SHOWN_FAULTS = 3


class StrictParser(FlaskParser):
    """Read bodies and query strings without leniency: no unknown names, nothing twice, JSON declared as JSON."""

    DEFAULT_VALIDATION_STATUS = 400
    DEFAULT_UNKNOWN_BY_LOCATION = {"json": RAISE, "query": RAISE}  # noqa: RUF012 (declared so in webargs)

    def load_json(self, req: Request, schema: Schema) -> Any:  # noqa: ARG002 (webargs' signature)
        """Return the body's JSON object; no body at all reads as an empty one, so that the missing fields get named.

        What stands in the query string instead is refused first, or it would be told as missing.
        """
        refuse_parameters()
        body = _read_body(req)
        if not is_json(req.mimetype):
            if not body:
                return {}
            raise UnsupportedMediaType("Send the body as JSON, with the header Content-Type: application/json.")
        try:
            value = json.loads(body.decode("utf-8"), object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise BadRequestError(f"The body is not valid JSON: {_explain(error)}.") from error
        if not isinstance(value, dict):
            raise BadRequestError('The body must be a JSON object, such as {"command": "ls -l"}.')
        return value

    def load_querystring(self, req: Request, schema: Schema) -> Any:  # noqa: ARG002 (webargs' signature)
        """Return the query's parameters; one given twice is a fault, since nobody can tell which of the two counts."""
        repeated = [name for name, values in req.args.lists() if len(values) > 1]
        if repeated:
            raise _invalid({name: [GIVEN_TWICE] for name in repeated})
        return req.args.to_dict()

    def handle_error(self, error: ValidationError, *_: object, **__: object) -> NoReturn:
        """Hand a schema's verdict on as the domain's own error."""
        by_location = cast("dict[str, Any]", error.messages)  # webargs puts the location around them
        faults: dict[str, list[str]] = {}
        for messages in by_location.values():
            for field, texts in _flatten(messages):
                faults.setdefault(field, []).extend(texts)
        raise _invalid(faults) from error


class Blueprint(SmorestBlueprint):
    """Be flask-smorest's blueprint with the strict parser.

    Give `arguments` an instance of a schema: webargs makes a new one for every request out of a class.
    """

    ARGUMENTS_PARSER = StrictParser()


def refuse_parameters() -> None:
    """Refuse a query string where there is nothing to ask, without a schema's cost for what is polled all the time."""
    if request.query_string and (names := list(request.args)):
        text = f"{request.path} takes nothing in its query string; /openapi.json shows what it takes, and where."
        raise _invalid({name: [text] for name in names})


def refuse_body() -> None:
    """Refuse a body where all parameters are in the query: `{"type": "SIGKILL"}` there must not pass for the default.

    An empty JSON object says nothing that could be missed, and some clients send one with every POST.
    """
    if _read_body(request).strip() not in {b"", b"{}"}:
        raise BadRequestError(
            f"{request.path} takes no body; give its parameters in the query string, as /openapi.json shows."
        )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; a name given twice is a fault, as in a query string, and not the last one's victory."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _value in pairs)
        raise _invalid({name: [GIVEN_TWICE] for name, count in counts.items() if count > 1})
    return found


def _read_body(req: Request) -> bytes:
    """Return the body, or raise 413.

    Werkzeug refuses an announced length over its limit by itself, but cuts a chunked body off there without a word. Its
    limit is therefore one byte more than ours, so that a body that is too long can be told.
    """
    body = req.get_data()
    if len(body) > MAX_BODY_BYTES:
        raise RequestEntityTooLarge
    return body


def _explain(error: Exception) -> str:
    match error:
        case json.JSONDecodeError():
            return str(error)
        case UnicodeDecodeError():
            return f"byte {error.start + 1} is not UTF-8"
        case _:  # past the limits of Python's reader
            return "it nests too deeply, or holds a number that is too long"


def _flatten(messages: Any, path: str = "") -> Iterator[tuple[str, list[str]]]:
    """Turn marshmallow's nested messages into (`env.NAME`, texts) pairs."""
    if not isinstance(messages, Mapping):
        yield path or "_schema", [str(text) for text in messages]
        return
    for name, inner in messages.items():
        # A dict field tells the faults of a key and of its value under these two names.
        inside_dict_field = path and name in {"key", "value"} and isinstance(inner, list)
        yield from _flatten(inner, path if inside_dict_field else f"{path}.{name}" if path else str(name))


def _invalid(faults: Mapping[str, list[str]]) -> BadRequestError:
    told = [f"{field}: {' '.join(texts)}" for field, texts in faults.items()]
    rest = len(told) - SHOWN_FAULTS
    detail = " ".join(told[:SHOWN_FAULTS]) + (f" And {rest} more under errors." if rest > 0 else "")
    return BadRequestError(detail, errors=faults)
