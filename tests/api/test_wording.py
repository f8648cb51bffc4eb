"""What a caller is told whose request holds the wrong kind of value, and what null stands for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from marshmallow import Schema, ValidationError, fields

from app.api import killing, logs, processes, runs, starting
from app.runs.record import read_record, record_path
from app.web.fields import RequestSchema
from app.web.parsing import QueryText
from tests.api.refusals import faults_of
from tests.kit.libraries_words import LIBRARIES_WORDS, assert_own_words
from tests.kit.waiting import wait_until

REQUESTS = {
    "POST /start": starting.StartSchema(),
    "GET /status": processes.StatusQuery(),
    "GET /processes": processes.ProcessesQuery(),
    "GET /runs": runs.RunsQuery(),
    "POST /kill": killing.KillQuery(),
    "POST /restart": starting.RestartQuery(),
    "GET /logs": logs.LogsQuery(),
}
WRONG: list[Any] = [None, True, False, 0, -1, 1.5, 10**400, "", " ", "x", "nan", [], ["ls"], {}, {"A": 1}, {"": None}]
WRONG += [{"A": None}, {"A": ["b"]}, {"A": {}}, {"A": True}, "9" * 5000, "1e999", "\0", "\ud800"]
IN_A_QUERY = [QueryText(value) for value in WRONG if isinstance(value, str)]


def fields_of(schema: Schema) -> Iterator[tuple[str, fields.Field[Any]]]:
    """Yield a schema's fields by the names that callers use, and what is inside of them."""
    for name, field in schema.fields.items():
        yield field.data_key or name, field
        inner = [getattr(field, kind, None) for kind in ("key_field", "value_field", "inner")]
        yield from ((f"{name}.", found) for found in inner if found is not None)


def texts_of(messages: Any) -> Iterator[str]:
    """Yield the texts of marshmallow's nested messages."""
    if isinstance(messages, dict):
        for inner in messages.values():
            yield from texts_of(inner)
    else:
        yield from messages


def test_every_request_is_looked_at() -> None:
    """Each schema of a request is in the table of these tests, and the library's words are known."""
    assert {type(schema) for schema in REQUESTS.values()} == set(RequestSchema.__subclasses__())
    assert {"Not a valid string.", "Field may not be null.", "Shorter than minimum length {min}."} < set(
        LIBRARIES_WORDS
    )
    with pytest.raises(AssertionError):
        assert_own_words(["Shorter than minimum length 1."])


@pytest.mark.parametrize("call", REQUESTS)
def test_no_field_has_words_of_the_library(call: str) -> None:
    """Whatever is wrong with a field, the words for it are the service's own, those for what can't come included."""
    schema = REQUESTS[call]
    assert_own_words(str(text) for _, field in fields_of(schema) for text in field.error_messages.values())
    assert_own_words(schema.error_messages.values())
    assert list(fields_of(schema))


@pytest.mark.parametrize("call", REQUESTS)
def test_no_wrong_value_is_told_in_words_of_the_library(call: str) -> None:
    """Each field is given a value of every kind: what is refused is refused in the service's words."""
    schema, refused = REQUESTS[call], 0
    for name, _field in fields_of(schema):
        for value in [*WRONG, *IN_A_QUERY]:
            try:
                schema.load({name: value})
            except ValidationError as error:
                refused += not isinstance(value, QueryText)
                assert_own_words(texts_of(error.messages))
    assert refused > len(WRONG) / 2


@pytest.mark.parametrize(
    ("body", "field", "told"),
    [
        ({"command": None}, "command", "Give the command to run."),
        ({}, "command", "Give the command to run."),
        ({"command": ["ls", "-l"]}, "command", "join a list with spaces and quotes"),
        ({"command": {"cmd": "ls"}}, "command", "Must be one string, as you would type it into a shell"),
        ({"command": 5}, "command", "Must be one string, as you would type it into a shell"),
        ({"command": "ls", "cwd": ["/"]}, "cwd", 'Must be one string, the path of a directory, such as "/srv/site".'),
        ({"command": "ls", "cwd": ""}, "cwd", "Must not be empty: leave it out for the service's working directory."),
        ({"command": "ls", "env": "A=b"}, "env", 'Must be an object of strings, such as {"PORT": "3000"}.'),
        ({"command": "ls", "env": ["A=b"]}, "env", 'Must be an object of strings, such as {"PORT": "3000"}.'),
        ({"command": "ls", "env": {"A": 3000}}, "env.A", 'put a number or a boolean in quotes, such as "3000".'),
        ({"command": "ls", "env": {"A": True}}, "env.A", 'put a number or a boolean in quotes, such as "3000".'),
        ({"command": "ls", "env": {"A": None}}, "env.A", 'send "" for an empty value, or leave the name out'),
        ({"command": "ls", "replace": "true"}, "replace", "Must be true or false, without quotes."),
        ({"command": "ls", "replace": 1}, "replace", "Must be true or false, without quotes."),
        ({"command": "ls", "port": "3000"}, "port", "Must be a whole number from 1 to 65535, without quotes."),
        ({"command": "ls", "port": -1}, "port", "Must be a whole number from 1 to 65535, in digits."),
        ({"command": "ls", "port": 0}, "port", "Must be from 1 to 65535."),
    ],
)
def test_a_value_of_the_wrong_kind(client: FlaskClient, body: dict[str, Any], field: str, told: str) -> None:
    """The answer says what the field must be, and shows it where that helps."""
    response = client.post("/start", json=body)
    [text] = faults_of(response)[field]
    assert told in text
    assert told in response.get_json()["detail"]
    assert client.get("/status").status_code == 404


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", 'The body is empty, which is not valid JSON: send an object, such as {"command": "npm run dev"}.'),
        (b" \n", 'The body is empty, which is not valid JSON: send an object, such as {"command": "npm run dev"}.'),
        (b'{"command": ls}', "a value is missing or is none of JSON's"),
        (b'{"command": "ls"', "at line 1, column 17."),
        (b'{"command": "ls"} x', "something follows the object, at line 1, column 19."),
        (b'\xef\xbb\xbf{"command": "ls"}', "it begins with a byte order mark: leave that out"),
    ],
)
def test_what_is_no_json(client: FlaskClient, body: bytes, told: str) -> None:
    """What is no JSON is told in words that need no knowledge of the reader's language, with the place."""
    response = client.post("/start", data=body, content_type="application/json")
    faults_of(response)
    assert told in response.get_json()["detail"]
    assert "char " not in response.get_json()["detail"]


def test_null_is_as_good_as_left_out(client: FlaskClient) -> None:
    """An optional field of /start may be null: the run, its record and a restart are as without it."""
    body = {"command": "pwd", "cwd": None, "env": None, "stdin": None, "shell": None, "port": None, "replace": None}
    runs = [client.post("/start", json=body).get_json()]
    wait_until(lambda: client.get("/status").get_json()["status"] == "exited")
    runs.append(client.post("/restart").get_json())
    wait_until(lambda: client.get("/status").get_json()["status"] == "exited")
    runs.append(client.post("/start", json={"command": "pwd"}).get_json())
    wait_until(lambda: client.get("/status").get_json()["status"] == "exited")
    records = [read_record(record_path(run["log_file"])) for run in runs]
    here = str(Path.cwd())
    assert [(record.spec.cwd, record.spec.env) for record in records if record is not None] == [(here, {})] * 3
    assert {client.get(f"/logs?run_id={run['run_id']}").get_json()["content"] for run in runs} == {here}


@pytest.mark.parametrize("name", ["cwd", "env", "stdin", "shell", "port", "name", "if_running", "replace", "leftovers"])
def test_each_null_alone(client: FlaskClient, name: str) -> None:
    """Each of them alone, too; replace stays false, so that nothing that runs is ended."""
    assert client.post("/start", json={"command": "exec sleep 1000", name: None}).status_code == 201
    assert client.post("/start", json={"command": "exec sleep 1000", name: None}).status_code == 409


def test_null_is_documented(client: FlaskClient) -> None:
    """The description says which fields may be null: those that may be left out."""
    described = client.get("/openapi.json").get_json()["components"]["schemas"]["Start"]
    nullable = {name for name, field in described["properties"].items() if field.get("nullable")}
    assert nullable == described["properties"].keys() - {"command"}
    assert described["required"] == ["command"]
