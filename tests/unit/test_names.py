"""The names of processes, and the field that takes one."""

from __future__ import annotations

import re

import pytest
from marshmallow import Schema, ValidationError

from app.runs.names import is_name
from app.web.fields import Name

WHAT_A_NAME_IS = "Must be 1 to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit."
NAMES = ["a", "0", "web", "default", "db-1", "a.b_c-d", "9.", "x" * 64, "a..b"]
NO_NAMES = ["", ".", "..", ".web", "-web", "_web", "x" * 65, "a b", "a/b", "a\n", "web\0", "é", "٣", "a\ud800", "*"]
IN_CAPITALS = [("Web", "web"), ("DB-1", "db-1"), ("X" * 64, "x" * 64), ("\N{KELVIN SIGN}", "k")]


class Named(Schema):
    """A request with a name."""

    name = Name(metadata={"description": "The process."})


def refusal_of(name: object) -> list[str]:
    """Return what is said of a name."""
    with pytest.raises(ValidationError) as caught:
        Named().load({"name": name})
    assert isinstance(caught.value.messages, dict)
    return list(caught.value.messages["name"])


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    """Small letters, digits and three signs make a name, which is taken as it is."""
    assert is_name(name)
    assert Named().load({"name": name}) == {"name": name}


@pytest.mark.parametrize("name", NO_NAMES)
def test_no_names(name: str) -> None:
    """Anything else is refused with what a name is."""
    assert not is_name(name)
    assert refusal_of(name) == [WHAT_A_NAME_IS]


@pytest.mark.parametrize(("name", "lower"), IN_CAPITALS)
def test_capitals(name: str, lower: str) -> None:
    """A name in capitals is refused with the form that is one: two names must not differ in case alone."""
    assert not is_name(name)
    assert refusal_of(name) == [f"Must be in lower case: {lower}."]


@pytest.mark.parametrize("name", [5, True, ["web"], {"name": "web"}])
def test_other_types(name: object) -> None:
    """What is no text is no name."""
    assert refusal_of(name) == [WHAT_A_NAME_IS]


def test_the_description_tells_the_form() -> None:
    """The pattern that OpenAPI shows takes the same names."""
    pattern = re.compile(Named().fields["name"].metadata["pattern"].replace("$", r"\Z"))
    for name in [*NAMES, *NO_NAMES, *(capitals for capitals, _lower in IN_CAPITALS)]:
        assert bool(pattern.match(name)) == is_name(name)
