"""What a request must not hold: every fault is a 400 that names its field, and nothing is started."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.api.refusals import faults_of

LONE_SURROGATE = "\ud800"


@pytest.fixture(autouse=True)
def _nothing_started(client: FlaskClient) -> Iterator[None]:
    """Check after each test that its request started nothing."""
    yield
    assert client.get("/status").status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "command"),
        ({"command": ""}, "command"),
        ({"command": " \t\n"}, "command"),
        ({"command": None}, "command"),
        ({"command": 5}, "command"),
        ({"command": ["ls"]}, "command"),
        ({"command": "ls\0"}, "command"),
        ({"command": LONE_SURROGATE}, "command"),
        ({"command": "x" * 131_072}, "command"),
        ({"command": "é" * 65_536}, "command"),
        ({"command": "ls", "cwd": ""}, "cwd"),
        ({"command": "ls", "cwd": 1}, "cwd"),
        ({"command": "ls", "cwd": "/usr\0"}, "cwd"),
        ({"command": "ls", "cwd": LONE_SURROGATE}, "cwd"),
        ({"command": "ls", "env": []}, "env"),
        ({"command": "ls", "env": "A=b"}, "env"),
        ({"command": "ls", "env": {"A": 1}}, "env.A"),
        ({"command": "ls", "env": {"A": None}}, "env.A"),
        ({"command": "ls", "env": {"A": "\0"}}, "env.A"),
        ({"command": "ls", "env": {"A": LONE_SURROGATE}}, "env.A"),
        ({"command": "ls", "env": {"": "x"}}, "env."),
        ({"command": "ls", "env": {"A=B": "x"}}, "env.A=B"),
        ({"command": "ls", "env": {"A\0": "x"}}, "env.A\0"),
        ({"command": "ls", "env": {LONE_SURROGATE: "x"}}, "env.\\ud800"),
        ({"command": "ls", "env": {"LLM_SHELL_TOKEN": "x"}}, "env.LLM_SHELL_TOKEN"),
        ({"command": "ls", "env": {"LLM_SHELL_RUN_ID": "x"}}, "env.LLM_SHELL_RUN_ID"),
        ({"command": "ls", "env": {"LLM_SHELL_NAME": "default"}}, "env.LLM_SHELL_NAME"),
        ({"command": "ls", "port": 0}, "port"),
        ({"command": "ls", "port": 65_536}, "port"),
        ({"command": "ls", "port": -1}, "port"),
        ({"command": "ls", "port": 3000.5}, "port"),
        ({"command": "ls", "port": "3000"}, "port"),
        ({"command": "ls", "port": True}, "port"),
        ({"command": "ls", "stdin": "pipe"}, "stdin"),
        ({"command": "ls", "stdin": "Open"}, "stdin"),
        ({"command": "ls", "stdin": True}, "stdin"),
        ({"command": "ls", "replace": "true"}, "replace"),
        ({"command": "ls", "replace": 1}, "replace"),
        ({"command": "ls", "shell": ""}, "shell"),
        ({"command": "ls", "shell": 5}, "shell"),
        ({"command": "ls", "shell": "sh"}, "shell"),
        ({"command": "ls", "shell": "bin/sh"}, "shell"),
        ({"command": "ls", "shell": "/bin"}, "shell"),
        ({"command": "ls", "shell": "/dev/null"}, "shell"),
        ({"command": "ls", "shell": "/etc/passwd"}, "shell"),
        ({"command": "ls", "shell": "/no/such/sh"}, "shell"),
        ({"command": "ls", "shell": "/bin/sh\0"}, "shell"),
        ({"command": "ls", "shell": f"/{'x' * 5000}"}, "shell"),
        ({"command": "ls", "shell": LONE_SURROGATE}, "shell"),
        ({"command": "ls", "Command": "ls"}, "Command"),
        ({"command": "ls", LONE_SURROGATE: 1}, "\\ud800"),
    ],
)
def test_bad_field(client: FlaskClient, body: dict[str, Any], field: str) -> None:
    """A field that is missing, unknown, of the wrong type or beyond what a process can take is named."""
    assert list(faults_of(client.post("/start", json=body))) == [field]


def test_the_kinds_of_standard_input_are_told(client: FlaskClient) -> None:
    """A value that `stdin` does not have is answered with those that it has."""
    (words,) = faults_of(client.post("/start", json={"command": "ls", "stdin": "pipe"}))["stdin"]
    assert words == 'Must be "empty" (at its end at once) or "open" (never at its end, though nothing comes).'


def test_every_fault_is_told(client: FlaskClient) -> None:
    """All faults of a request are told in one answer."""
    body = {"cwd": 1, "env": {"A": 1, "": "x"}, "replace": 0, "more": 1}
    assert set(faults_of(client.post("/start", json=body))) == {"command", "cwd", "env.A", "env.", "replace", "more"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"ls",
        b"{'command': 'ls'}",
        b'{"command": "ls"} more',
        b'{"command": "\xff"}',
        b'\xef\xbb\xbf{"command": "ls"}',
        b"[" * 200_000,
        b'{"command": ' + b"9" * 5000 + b"}",
    ],
)
def test_malformed_json(client: FlaskClient, body: bytes) -> None:
    """A body that is no JSON in UTF-8 is a 400 that says so."""
    response = client.post("/start", data=body, content_type="application/json")
    faults_of(response)
    assert "not valid JSON" in response.get_json()["detail"]


@pytest.mark.parametrize("body", ["null", "[]", '"ls"', "1", "true", '[{"command": "ls"}]'])
def test_json_that_is_no_object(client: FlaskClient, body: str) -> None:
    """JSON of another kind than an object is a 400 that shows what is wanted."""
    response = client.post("/start", data=body, content_type="application/json")
    faults_of(response)
    assert "JSON object" in response.get_json()["detail"]


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json"],
)
def test_body_that_is_not_declared_as_json(client: FlaskClient, content_type: str) -> None:
    """Only a body that is declared as JSON is read, since a form on any web page can send the other types: 415."""
    response = client.post("/start", data='{"command": "ls"}', content_type=content_type)
    assert response.status_code == 415
    assert response.mimetype == "application/problem+json"
    assert "application/json" in response.get_json()["detail"]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.example+json"])
def test_other_declarations_of_json(client: FlaskClient, content_type: str) -> None:
    """Parameters and `+json` types are JSON, too."""
    assert list(faults_of(client.post("/start", data="{}", content_type=content_type))) == ["command"]


def test_no_body_at_all(client: FlaskClient) -> None:
    """No body is not a body of the wrong type: the missing command is named."""
    assert list(faults_of(client.post("/start"))) == ["command"]


def test_body_over_1_mib(client: FlaskClient) -> None:
    """A body over 1 MiB is 413."""
    response = client.post("/start", data=b" " * (1024 * 1024 + 1), content_type="application/json")
    assert response.status_code == 413
    assert response.mimetype == "application/problem+json"


def post_chunked(client: FlaskClient, path: str, size: int) -> TestResponse:
    """Post a body of `size` bytes as a server hands on a chunked one: without its length, and with an end."""
    start, end = b'{"command": "', b'"}'
    environ = {
        "wsgi.input": io.BytesIO(start + b"x" * (size - len(start) - len(end)) + end),
        "wsgi.input_terminated": True,
        "HTTP_TRANSFER_ENCODING": "chunked",
    }
    return client.post(path, content_type="application/json", environ_overrides=environ)


@pytest.mark.parametrize("path", ["/start", "/kill", "/restart"])
def test_chunked_body_over_1_mib(client: FlaskClient, path: str) -> None:
    """A body of unannounced length is cut off at 1 MiB as well."""
    assert post_chunked(client, path, size=1024 * 1024 + 1).status_code == 413


def test_chunked_body_of_1_mib(client: FlaskClient) -> None:
    """A body of unannounced length that is just short enough is read."""
    assert list(faults_of(post_chunked(client, "/start", size=1024 * 1024))) == ["command"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/kill?type=SIGHUP", "type"),
        ("/kill?type=sigterm", "type"),
        ("/kill?type=", "type"),
        ("/kill?type=9", "type"),
        ("/kill?timeout=-1", "timeout"),
        ("/kill?timeout=600.5", "timeout"),
        ("/kill?timeout=nan", "timeout"),
        ("/kill?timeout=inf", "timeout"),
        ("/kill?timeout=1e999", "timeout"),
        ("/kill?timeout=", "timeout"),
        ("/kill?timeout=1s", "timeout"),
        ("/kill?timeout=%205", "timeout"),
        ("/kill?timeout=1_0", "timeout"),
        ("/kill?signal=SIGKILL", "signal"),
        ("/kill?type=SIGTERM&type=SIGKILL", "type"),
        ("/restart?timeout=-0.1", "timeout"),
        ("/restart?timeout=601", "timeout"),
        ("/restart?timeout=x", "timeout"),
        ("/restart?timeout=1&timeout=1", "timeout"),
        ("/restart?type=SIGTERM", "type"),
        ("/start?command=ls", "command"),
    ],
)
def test_bad_query_of_a_post(client: FlaskClient, path: str, field: str) -> None:
    """A query parameter that is unknown, given twice or out of range is named."""
    assert list(faults_of(client.post(path))) == [field]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"command": "ls", "command": "rm -r x"}', "command"),
        ('{"command": "ls", "replace": false, "replace": true}', "replace"),
        ('{"command": "ls", "env": {"A": "1", "A": "2"}}', "A"),
        ('{"command": "ls", "nonsense": [{"x": 1, "x": 1}]}', "x"),
    ],
)
def test_a_field_given_twice(client: FlaskClient, body: str, field: str) -> None:
    """A name that a JSON object holds twice is named, instead of the last one winning."""
    response = client.post("/start", data=body, content_type="application/json")
    assert faults_of(response) == {field: ["Give it only once."]}


def test_fields_in_the_query_string(client: FlaskClient) -> None:
    """Whoever gives /start its command in the query string is told so, and not that it is missing."""
    assert "takes nothing in its query string" in faults_of(client.post("/start?command=ls"))["command"][0]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/logs?lines=-1", "lines"),
        ("/logs?lines=1.5", "lines"),
        ("/logs?lines=%2B1", "lines"),
        ("/logs?lines=1_0", "lines"),
        ("/logs?lines=%D9%A3", "lines"),
        ("/logs?lines=all", "lines"),
        ("/logs?lines=", "lines"),
        ("/logs?lines=" + "9" * 5000, "lines"),
        ("/logs?lines=1&lines=1", "lines"),
        ("/logs?seconds=-1", "seconds"),
        ("/logs?seconds=nan", "seconds"),
        ("/logs?seconds=infinity", "seconds"),
        ("/logs?seconds=1m", "seconds"),
        ("/logs?lines=1&seconds=1", "seconds"),
        ("/logs?lines=0&seconds=0", "seconds"),
        ("/logs?tail=5", "tail"),
        ("/runs?limit=0", "limit"),
        ("/runs?limit=101", "limit"),
        ("/runs?limit=", "limit"),
        ("/runs?limit=-1", "limit"),
        ("/runs?limit=20&limit=20", "limit"),
        ("/runs?name=", "name"),
        ("/runs?name=Web", "name"),
        ("/runs?name=.web", "name"),
        ("/runs?name=web%0A", "name"),
        ("/runs?name=%D9%A3", "name"),
        ("/runs?name=" + "x" * 65, "name"),
        ("/runs?lines=5", "lines"),
        ("/status?verbose", "verbose"),
        ("/health?x=1", "x"),
        ("/openapi.json?x=1", "x"),
        ("/docs?x=1", "x"),
    ],
)
def test_bad_query_of_a_get(client: FlaskClient, path: str, field: str) -> None:
    """The same for calls that read."""
    assert list(faults_of(client.get(path))) == [field]
