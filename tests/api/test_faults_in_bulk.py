"""A request of which very much is wrong costs little, and its answer is short."""

from __future__ import annotations

import json

import pytest
from flask.testing import FlaskClient

from tests.api.refusals import faults_of


def many(count: int, name: str = "A=%d", value: str = '"x"') -> str:
    """Return the inside of a JSON object of so many members."""
    return ", ".join(f'"{name % number}": {value}' for number in range(count))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (f'{{"command": "ls", "env": {{{many(50_000)}}}}}', "at most 1000 variables"),
        (f'{{"command": "ls", "env": {{{many(1001, "A%d")}}}}}', "at most 1000 variables"),
        (f'{{"command": "ls", "env": {{{many(1000)}}}}}', "And 997 more, some of them under errors."),
        (f'{{"command": "ls", "env": {{{many(1000, "A%d", "1")}}}}}', "And 997 more"),
        (f'{{"command": "ls", "env": {{"{"A=" * 250_000}": "x"}}}}', "must not be empty"),
        (f'{{"command": "ls", "env": {{{many(9, "B" * 50_000 + "=%d")}}}}}', "must not be empty"),
        (f'{{"command": "ls", {many(60_000, "f%d", "1")}}}', "far too many values"),
        (f'{{"command": "ls", {many(500, "f%d")}}}', "501 fields"),
        (f'{{"command": "ls", {many(90, "f%d")}}}', "And 87 more"),
        (f"{{{many(3000, 'f%d')}, {many(3000, 'f%d')}}}", "Give it only once."),
        (f'{{"command": "ls", "env": {{{many(300, "E%d")}, {many(300, "E%d")}}}}}', "Give it only once."),
        ('{"command": "ls", "env": ' + '{"a":' * 100_000 + "1" + "}" * 100_001, "nests too deeply"),
        ('{"command": "ls", "env": [' + "[], " * 200_000 + "1]}", "far too many values"),
        ('{"command": [' + '"", ' * 200_000 + "1]}", "far too many values"),
        ('"' + '\\"' * 500_000, "not valid JSON"),
        ('{"command": "ls", "env": "' + "," * 900_000 + '"}', "Must be an object of strings"),
        (json.dumps({"command": "ls", "replace": "x" * 1_000_000}), "Must be true or false"),
        (json.dumps({"command": "ls", "replace": {"x": "x" * 1_000_000}}), "Must be true or false"),
        ('{"command": "ls", "replace": ' + "9" * 4000 + "}", "Must be true or false"),
        ('{"command": "ls", "replace": ' + "9" * 1_000_000 + "}", "a number that is too long"),
        ('{"command": "ls", "replace": 1' + "0" * 900_000 + "e5}", "Must be true or false"),
        (json.dumps({"command": "ls", "cwd": "/" + "x" * 1_000_000}), "File name too long"),
        (json.dumps({"command": "ls", "cwd": "/x" * 2000}), "No such file or directory"),
    ],
)
def test_what_is_wrong_in_bulk_is_answered_in_brief(client: FlaskClient, body: str, told: str) -> None:
    """However much of a request is wrong, the answer is short, and names at most twenty faults."""
    response = client.post("/start", data=body, content_type="application/json")
    assert len(faults_of(response)) <= 20
    assert told in response.get_json()["detail"]
    assert len(response.data) < 8000


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/logs?" + "&".join(f"p{n}=1" for n in range(100_000)), "more than 100 parameters"),
        ("/status?" + "&".join(f"p{n}=1" for n in range(101)), "more than 100 parameters"),
        ("/status?" + "&".join(f"p{n}=1" for n in range(90)), "And 87 more"),
        ("/logs?" + "&".join(["lines=1"] * 90), "Give it only once."),
        ("/logs?" + "x" * 500_000 + "=1", "There is no such parameter."),
        ("/logs?lines=" + "x" * 500_000, "Must be a whole number"),
        ("/start?" + "x" * 500_000, "takes nothing in its query string"),
    ],
)
def test_a_query_that_is_wrong_in_bulk_is_answered_in_brief(client: FlaskClient, path: str, told: str) -> None:
    """The same for a query string."""
    response = client.open(path, method="POST" if path.startswith("/start") else "GET")
    assert len(faults_of(response)) <= 20
    assert told in response.get_json()["detail"]
    assert len(response.data) < 8000
