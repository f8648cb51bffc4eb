"""Runs in the worker: the field types of requests, each with messages that say what a valid value is."""

import re
from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from app.runs.names import MAX_NAME, is_name
from app.web.parsing import MAX_VARIABLES, NO_SUCH_FIELD, QueryText

# As marshmallow declares them.
Messages = dict[str, str | list[Any] | dict[Any, Any]]
_DIGITS = re.compile(r"[0-9]+")
_DECIMAL = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class Worded:
    """Replace marshmallow's messages, which do not say what to do; must come before marshmallow's class."""

    default_error_messages: Messages = {  # noqa: RUF012 (as in marshmallow)
        "required": "Must be given.",
        "null": "Must not be null.",
        "validator_failed": "Must be another value.",
    }


class Text(Worded, fields.String):
    """Accept a string only."""

    default_error_messages: Messages = {  # noqa: RUF012 (as in marshmallow)
        "invalid": "Must be one string.",
        "invalid_utf8": "Must be text in UTF-8.",
    }


class Name(Text):
    """Accept the name of a process, as it is: of one in capitals the refusal gives the form that is one."""

    default_error_messages: Messages = {  # noqa: RUF012 (as in marshmallow)
        "invalid": f"Must be 1 to {MAX_NAME} of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit.",
        "capitals": "Must be in lower case: {lower}.",
    }

    def __init__(self, *, metadata: Mapping[str, Any], **kwargs: Any) -> None:
        form = {"pattern": f"^[a-z0-9][a-z0-9._-]{{0,{MAX_NAME - 1}}}$", "example": "default"}  # /docs sends it
        super().__init__(metadata=form | dict(metadata), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        text = str(super()._deserialize(value, attr, data, **kwargs))
        if is_name(text):
            return text
        if is_name(lower := text.lower()):
            raise self.make_error("capitals", lower=lower)
        raise self.make_error("invalid")


class WholeNumber(Worded, fields.Integer):
    """Accept plain digits in a query; Python's own `int` also takes `1_000`, ` 7 ` and digits of other scripts.

    In JSON it accepts a number without a fraction, which 5.0 is, too.
    """

    default_error_messages: Messages = {  # noqa: RUF012 (as in marshmallow)
        **dict.fromkeys(("invalid", "too_large"), "Must be a whole number, 0 or more, in digits."),
        "quoted": "Must be a whole number, 0 or more, without quotes.",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        match value:
            case QueryText():
                valid = _DIGITS.fullmatch(value) is not None
            case str():
                raise self.make_error("quoted")
            case float():
                valid = value >= 0 and value.is_integer()
            case _:
                valid = type(value) is int and value >= 0
        if not valid:
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class NumberWithin(WholeNumber):
    """Accept a whole number from `first` to `last`; whatever is wrong with one, the refusal says these two."""

    def __init__(self, first: int, last: int, **kwargs: Any) -> None:
        said = f"Must be a whole number from {first} to {last},"
        digits = f"{said} in digits."
        messages: Messages = {"invalid": digits, "too_large": digits, "quoted": f"{said} without quotes."}
        within = validate.Range(first, last, error=f"Must be from {first} to {last}.")
        super().__init__(validate=within, error_messages=messages, **kwargs)


class Number(Worded, fields.Float):
    """Accept a plain finite decimal number only: its text in a query, a number in JSON."""

    default_error_messages: Messages = {  # noqa: RUF012 (as in marshmallow)
        **dict.fromkeys(("invalid", "too_large", "special"), "Must be a number, such as 2 or 0.5."),
        "quoted": "Must be a number, such as 2 or 0.5, without quotes.",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> float:
        match value:
            case QueryText():
                valid = _DECIMAL.fullmatch(value) is not None
            case str():
                raise self.make_error("quoted")
            case _:
                valid = type(value) in {int, float}
        if not valid:
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class StrictBoolean(Worded, fields.Boolean):
    """Accept JSON's true and false only, not `"yes"` or 1; in a query these two words."""

    default_error_messages: Messages = {  # noqa: RUF012 (as in marshmallow)
        "invalid": "Must be true or false, without quotes.",
        "misspelt": "Must be true or false.",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if isinstance(value, QueryText):
            if value not in {"true", "false"}:
                raise self.make_error("misspelt")
        elif not isinstance(value, bool):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class Variables(Worded, fields.Dict):
    """Accept an environment, whose variables are counted before any is validated."""

    default_error_messages: Messages = {  # noqa: RUF012 (as in marshmallow)
        "invalid": 'Must be an object of strings, such as {{"PORT": "3000"}}.',  # all these are format strings
        "many": f"Must hold at most {MAX_VARIABLES} variables; put more into a file that the command reads.",
    }

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if isinstance(value, Mapping) and len(value) > MAX_VARIABLES:
            raise self.make_error("many")
        return super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]  # marshmallow's


def check_text(text: str) -> None:
    """Refuse a text that no argument, path or environment variable on Linux can hold."""
    if "\0" in text:
        raise ValidationError("Must not contain a NUL character.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValidationError("Must be valid Unicode; it contains a lone surrogate.") from error


class RequestSchema(Schema):
    """Replace marshmallow's messages for whole requests."""

    error_messages = {"unknown": NO_SUCH_FIELD, "type": "Must be an object."}  # noqa: RUF012  marshmallow declares it so; a ClassVar can't override
