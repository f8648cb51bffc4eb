"""Parameters that a call takes in its query string or in a JSON body: as strict in both, and never in both at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.api.refusals import faults_of

CALLS = ["/kill", "/restart"]
NUMBER = "Must be a number, such as 2 or 0.5."


@pytest.fixture(autouse=True)
def _untouched(client: FlaskClient) -> Iterator[None]:
    """Start a process before each test, and check after it that its request did nothing to that."""
    run = client.post("/start", json={"command": "sleep 60"}).get_json()
    yield
    assert client.get("/status").get_json() == run


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("5", "Must be a number, such as 2 or 0.5, without quotes."),
        ("", "Must be a number, such as 2 or 0.5, without quotes."),
        (True, NUMBER),
        ([5], NUMBER),
        ({"seconds": 5}, NUMBER),
        (float("nan"), NUMBER),
        (float("inf"), NUMBER),
        (10**400, NUMBER),
        (-1, "Must be from 0 to 600 seconds."),
        (600.5, "Must be from 0 to 600 seconds."),
    ],
)
def test_numbers_in_a_body(client: FlaskClient, path: str, value: Any, told: str) -> None:
    """A number in a body is one of JSON's, finite and in its range."""
    assert faults_of(client.post(path, json={"timeout": value})) == {"timeout": [told]}


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("value", ["", "five", "1_0", " 5", "٣", "nan", "inf", "1e999", "0x5", "null"])
def test_numbers_in_a_query(client: FlaskClient, path: str, value: str) -> None:
    """A number in a query is plain decimal digits."""
    assert faults_of(client.post(path, query_string={"timeout": value})) == {"timeout": [NUMBER]}


@pytest.mark.parametrize("value", ["sigkill", "KILL", "", 9, True, ["SIGKILL"]])
def test_signals_in_a_body(client: FlaskClient, value: Any) -> None:
    """A signal is one of two texts."""
    assert list(faults_of(client.post("/kill", json={"type": value}))) == ["type"]


@pytest.mark.parametrize(
    ("path", "field", "told"),
    [
        ("/kill", "signal", "There is no such field; did you mean type? /kill takes name, run_id, all, type, timeout."),
        ("/restart", "type", "There is no such field. /restart takes name, timeout."),
        ("/restart", "command", "There is no such field. /restart takes name, timeout."),
    ],
)
@pytest.mark.parametrize("value", ["SIGKILL", None])
def test_unknown_fields(client: FlaskClient, path: str, field: str, told: str, value: str | None) -> None:
    """A field that the call does not take is named, null or not."""
    assert faults_of(client.post(path, json={field: value})) == {field: [told]}


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("body", [{"timeout": 2}, {"timeout": None}, {"more": 1}])
def test_both_places(client: FlaskClient, path: str, body: dict[str, Any]) -> None:
    """Parameters in both places are refused, even where they agree: which ones count would be arbitrary."""
    response = client.post(f"{path}?timeout=2", json=body)
    assert response.status_code == 400
    assert "not some in each" in response.get_json()["detail"]


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_body_that_is_not_declared_as_json(client: FlaskClient, path: str, content_type: str) -> None:
    """A body is read only where it is declared as JSON, since a form on any web page can send the other types: 415."""
    response = client.post(path, data='{"timeout": 2}', content_type=content_type)
    assert response.status_code == 415
    assert "application/json" in response.get_json()["detail"]


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("{", "not valid JSON"),
        ("timeout=2", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('{"timeout": 2, "timeout": 2}', "only once"),
        (json.dumps({f"n{number}": 1 for number in range(101)}), "101 fields"),
        (f'{{"timeout": {"[" * 100_000}', "nests too deeply"),
        (f'{{"timeout": [{"1," * 40_000}1]}}', "far too many values"),
    ],
)
def test_what_is_no_object_of_json(client: FlaskClient, path: str, body: str, told: str) -> None:
    """A body is as strict as that of a start."""
    response = client.post(path, data=body, content_type="application/json")
    assert response.status_code == 400
    assert told in response.get_json()["detail"]
