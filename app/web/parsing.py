"""Runs in the worker: parse requests strictly, and answer every fault with a 400 that names its field."""

import copy
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, NoReturn, cast
from wsgiref.types import WSGIEnvironment

from flask import Request, g, request
from flask_smorest import Blueprint as SmorestBlueprint
from gunicorn.http.errors import ParseException
from marshmallow import RAISE, Schema, ValidationError, missing
from webargs.core import is_json
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import ClientDisconnected, NotFound, RequestEntityTooLarge, UnsupportedMediaType

from app.exceptions import BadRequestError
from app.web.bodies import CUT_SHORT, MAX_BODY_BYTES
from app.web.names import no_such
from app.wording import shorten

NO_SUCH_FIELD = "There is no such field."  # replaced by the message of `no_such`
GIVEN_TWICE = "Give it only once."
NOT_JSON = "Send the body as JSON, with the header Content-Type: application/json."
EITHER_PLACE = "Give all parameters in the query string, or all of them in a JSON body, and not some in each."
BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_VARIABLES = 1000  # in a body's `env`
MAX_NAMES = 100  # parameters, or fields of a body: ten times what any call takes
MAX_TOKENS = 30_000  # strings and commas of a body, ten times what a full `env` takes
SHOWN_FAULTS = 3
MOST_FAULTS = 20
SHOWN_NAME = 100  # characters
SHOWN_TEXT = 400
# As `arguments` takes it: a call's parameters are in its query string or in a JSON body.
EITHER = "either"
_NO_BODY = frozenset({b"", b"{}"})  # some clients send an empty object with every POST
# Messages of Python's json module that a caller would not understand; its others are clear.
_NOT_JSON = {
    "Expecting value": "a value is missing or is none of JSON's, such as a string in double quotes",
    "Extra data": "something follows the object",
    "Unexpected UTF-8 BOM (decode using utf-8-sig)": "it begins with a byte order mark: leave that out",
}
# A string, terminated or not, or a comma. Possessive, so that no text takes more than one pass.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|,', re.DOTALL)


class QueryText(str):
    """Mark a value as one of a query string, where numbers and booleans are texts, too."""

    __slots__ = ()


class StrictParser(FlaskParser):
    """Read bodies and query strings without leniency: no unknown names, nothing twice, JSON declared as JSON."""

    DEFAULT_VALIDATION_STATUS = 400
    DEFAULT_UNKNOWN_BY_LOCATION = {"json": RAISE, "query": RAISE, EITHER: RAISE}  # noqa: RUF012 (declared so in webargs)
    __location_map__ = FlaskParser.__location_map__ | {EITHER: "load_either"}

    def load_json(self, req: Request, schema: Schema) -> Any:
        """Return the body's JSON object; no body reads as an empty one, so that the refusal names the missing fields.

        Fields in the query string are refused first, or they would be reported as missing.
        """
        if names := _query_names():
            text = f"{req.path} takes nothing in its query string; give {_listed(schema)} in a JSON body."
            raise invalid({name: [text] for name in names})
        body = _read_body(req)
        return _parse(body, req, schema) if body or is_json(req.mimetype) else {}

    def load_either(self, req: Request, schema: Schema) -> Any:
        """Return the parameters of the query string or of a JSON body, where null is as good as left out.

        An empty body and an empty object are none, whatever they are declared as.
        """
        body = _read_body(req)
        fields = {} if body.strip() in _NO_BODY else _parse(body, req, schema)
        parameters = self.load_querystring(req, schema)
        if fields and parameters:
            raise BadRequestError(EITHER_PLACE)
        taken = _names(schema)
        return parameters or {name: value for name, value in fields.items() if value is not None or name not in taken}

    def load_querystring(self, req: Request, schema: Schema) -> Any:  # noqa: ARG002 (webargs' signature)
        """Return the query's parameters; one given twice is a fault, since which one counts would be arbitrary."""
        _query_names()
        repeated = [name for name, values in req.args.lists() if len(values) > 1]
        if repeated:
            raise invalid({name: [GIVEN_TWICE] for name in repeated})
        return {name: QueryText(value) for name, value in req.args.items()}

    def handle_error(self, error: ValidationError, req: Request, schema: Schema, **_: object) -> NoReturn:
        """Raise a schema's faults as the domain's own error."""
        by_location = cast("dict[str, Any]", error.messages)  # webargs puts the location around them
        faults: dict[str, list[str]] = {}
        for location, messages in by_location.items():
            in_body = location == "json" or (location == EITHER and g.get("body"))
            kind = "field" if in_body else "parameter"
            for field, texts in _flatten(messages):
                unknown = NO_SUCH_FIELD in texts
                worded = [no_such(kind, field, req.path, _names(schema))] if unknown else texts
                faults.setdefault(field, []).extend(worded)
        raise invalid(faults) from error


class Blueprint(SmorestBlueprint):
    """Extend flask-smorest's blueprint with the strict parser.

    Pass `arguments` an instance of a schema: of a class, webargs makes an instance for every request.
    """

    ARGUMENTS_PARSER = StrictParser()

    def arguments(self, schema: Any, *, location: str = "json", **options: Any) -> Any:
        """Extend it with the location `EITHER`, which is described as a query string and as a body."""
        decorate = super().arguments(schema, location=location, **options)
        return _described_twice(decorate, schema) if location == EITHER else decorate


def refuse_odd_requests() -> None:
    """Refuse what Werkzeug accepts: a path with several leading slashes, and a body where none has a meaning."""
    environ = request.environ
    if environ["PATH_INFO"].startswith("//"):
        raise NotFound
    if has_body(environ) and environ["REQUEST_METHOD"] in BODILESS and request.routing_exception is None:
        raise BadRequestError(
            f"{request.method} takes no body; give parameters in the query string, such as GET /logs?lines=100."
        )


def refuse_parameters() -> None:
    """Refuse a query string where a call takes none, without a schema's cost on calls that are polled."""
    if request.query_string and (names := _query_names()):
        raise invalid({name: [f"There is no such parameter. {request.path} takes none."] for name in names})


def invalid(faults: Mapping[str, list[str]]) -> BadRequestError:
    """Return the refusal of a request for these faults, of which it lists some and counts the others."""
    listed = {shorten(name, SHOWN_NAME): _shown(texts) for name, texts in islice(faults.items(), MOST_FAULTS)}
    sentences = [f"{name}: {' '.join(texts)}" for name, texts in islice(listed.items(), SHOWN_FAULTS)]
    if (more := len(faults) - SHOWN_FAULTS) > 0:
        sentences.append(
            f"And {more} more" + (", some of them under errors." if len(faults) > MOST_FAULTS else " under errors.")
        )
    return BadRequestError(" ".join(sentences), errors=listed)


def _shown(texts: list[str]) -> list[str]:
    return [shorten(text, SHOWN_TEXT) for text in texts[:SHOWN_FAULTS]]


def _described_twice(decorate: Callable[[Any], Any], schema: Schema) -> Callable[[Any], Any]:
    """Return a decorator that replaces flask-smorest's description of a schema's one place by two.

    The example of the body is an empty object, as the page /docs sends both places as they are filled in.
    """
    nullable = {name: copy.copy(field) for name, field in schema.declared_fields.items()}
    for field in nullable.values():
        field.allow_none = True
    name = f"{type(schema).__name__.removesuffix('Query')}Body"
    body = type(schema).from_dict(nullable, name=name)()

    def decorator(view: Any) -> Any:
        described = decorate(view)
        places = described._apidoc["arguments"]["parameters"]
        places[-1:] = [
            {"in": "query", "schema": schema},
            {"in": "json", "schema": body, "required": False, "example": {}},
        ]
        return described

    return decorator


def _names(schema: Schema) -> list[str]:
    return [field.data_key or name for name, field in schema.load_fields.items()]


def _listed(schema: Schema) -> str:
    return ", ".join(_names(schema))


def _query_names() -> list[str]:
    """Return the names in the query string, which are counted before they are parsed."""
    if request.query_string.count(b"&") >= MAX_NAMES:
        raise BadRequestError(f"The query string holds more than {MAX_NAMES} parameters, far more than any call takes.")
    return list(request.args)


def _refuse_too_much(body: bytes) -> None:
    """Refuse JSON with so many values that parsing it would take much time and memory; few commas prove the contrary.

    Without commas there are no more values than the parser's nesting limit allows.
    """
    if body.count(b",") * 3 <= MAX_TOKENS:
        return
    if any(number > MAX_TOKENS for number, _token in enumerate(_TOKEN.finditer(body))):
        raise BadRequestError(
            f"The body holds far too many values: env takes at most {MAX_VARIABLES} variables; put more into a file "
            "that the command reads."
        )


def has_body(environ: WSGIEnvironment) -> bool:
    """Tell whether a request has a body, by its framing (RFC 9112, section 6.3)."""
    return environ.get("CONTENT_LENGTH", "").strip("0") != "" or "HTTP_TRANSFER_ENCODING" in environ


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; a name given twice is a fault, as in a query string: Python would take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _value in pairs)
        raise invalid({name: [GIVEN_TWICE] for name, count in counts.items() if count > 1})
    return found


def _parse(body: bytes, req: Request, schema: Schema) -> dict[str, Any]:
    """Return the object that a body is."""
    if not is_json(req.mimetype):
        raise UnsupportedMediaType(NOT_JSON)
    if not body.strip():
        raise BadRequestError(
            f"The body is empty, which is not valid JSON: send an object, such as {_example(schema)}."
        )
    _refuse_too_much(body)
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"The body is not valid JSON: {_explain(error)}.") from error
    if not isinstance(value, dict):
        raise BadRequestError(f"The body must be a JSON object, such as {_example(schema)}.")
    g.body = value  # for the audit
    if len(value) > MAX_NAMES:
        raise BadRequestError(f"The body has {len(value)} fields: {req.path} takes {_listed(schema)}.")
    return value


def _example(schema: Schema) -> str:
    """Return a body with the fields that must be given, or with one that may be; an empty object is allowed then."""
    required: dict[str, Any] = {}
    optional: dict[str, Any] = {}
    for name, field in schema.load_fields.items():
        value = field.metadata.get("example", field.load_default)
        if value is not missing:
            (required if field.required else optional)[field.data_key or name] = value
    return json.dumps(required or dict(islice(optional.items(), 1)))


def _read_body(req: Request) -> bytes:
    """Return the body, or raise 413.

    Werkzeug refuses an announced length above its limit, but truncates a chunked body there silently. Its limit is
    therefore one byte more than ours, so that a body that is too long is detected.
    """
    try:
        body = req.get_data()
    except (ParseException, ClientDisconnected) as error:
        raise BadRequestError(CUT_SHORT) from error
    if len(body) > MAX_BODY_BYTES:
        raise RequestEntityTooLarge
    if len(body) < (req.content_length or 0):  # Werkzeug relies on the server for the body's end
        raise BadRequestError(f"The body ended after {len(body)} of the {req.content_length} bytes announced.")
    return body


def _explain(error: Exception) -> str:
    match error:
        case json.JSONDecodeError():
            return f"{_NOT_JSON.get(error.msg, error.msg)}, at line {error.lineno}, column {error.colno}"
        case UnicodeDecodeError():
            return f"byte {error.start + 1} is not UTF-8"
        case _:  # a limit of Python's json module
            return "it nests too deeply, or holds a number that is too long"


def _flatten(messages: Any, path: str = "") -> Iterator[tuple[str, list[str]]]:
    """Turn marshmallow's nested messages into (`env.NAME`, texts) pairs."""
    if not isinstance(messages, Mapping):
        yield path or "_schema", [str(text) for text in messages]
        return
    for name, inner in messages.items():
        # A dict field has the faults of a key and of its value under these two names.
        inside_dict_field = path and name in {"key", "value"} and isinstance(inner, list)
        yield from _flatten(inner, path if inside_dict_field else f"{path}.{name}" if path else str(name))
