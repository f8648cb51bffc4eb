"""What a caller is told that misspelt a name, or took it from elsewhere."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.api.refusals import faults_of


@pytest.mark.parametrize(
    ("call", "name", "told"),
    [
        ("GET /logs?line=5", "line", "did you mean lines? /logs takes lines, seconds, run_id."),
        ("GET /logs?Lines=5", "Lines", "did you mean lines?"),
        ("GET /logs?LINES=5", "LINES", "did you mean lines?"),
        ("GET /logs?tail=5", "tail", "did you mean lines?"),
        ("GET /logs?n=5", "n", "did you mean lines?"),
        ("GET /logs?limit=5", "limit", "did you mean lines?"),
        ("GET /logs?since=5", "since", "did you mean seconds?"),
        ("GET /logs?runId=5", "runId", "did you mean run_id?"),
        ("GET /logs?run=5", "run", "did you mean run_id?"),
        ("GET /logs?grep=x", "grep", "There is no such parameter. /logs takes lines, seconds, run_id."),
        ("GET /logs?follow", "follow", "no such parameter. /logs"),
        ("POST /kill?signal=SIGKILL", "signal", "did you mean type? /kill takes type, timeout."),
        ("POST /kill?Type=SIGKILL", "Type", "did you mean type?"),
        ("POST /kill?signal_type=SIGKILL", "signal_type", "did you mean type?"),
        ("POST /kill?time=5", "time", "did you mean timeout?"),
        ("POST /kill?force", "force", "There is no such parameter. /kill takes"),
        ("POST /restart?time-out=5", "time-out", "did you mean timeout? /restart takes timeout."),
        ("POST /restart?type=SIGKILL", "type", "There is no such parameter. /restart takes timeout."),
        (
            "POST /start?comand=ls",
            "comand",
            "takes nothing in its query string; give command, cwd, env, replace in a JSON",
        ),
        ("GET /status?lines=5", "lines", "There is no such parameter. /status takes run_id."),
        ("GET /status?run=5", "run", "did you mean run_id? /status takes run_id."),
        ("GET /health?x", "x", "There is no such parameter. /health takes none."),
        ("GET /openapi.json?x=1", "x", "There is no such parameter. /openapi.json takes none."),
        ("GET /docs?x=1", "x", "There is no such parameter. /docs takes none."),
    ],
)
def test_unknown_parameter(client: FlaskClient, call: str, name: str, told: str) -> None:
    """Of a parameter that a call does not take the near one is named, and those that there are."""
    method, path = call.split()
    response = client.open(path, method=method)
    assert told in faults_of(response)[name][0]
    assert told in response.get_json()["detail"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("comand", "There is no such field; did you mean command? /start takes command, cwd, env, replace."),
        ("Command", "did you mean command?"),
        ("cmd", "did you mean command?"),
        ("run", "did you mean command?"),
        ("working-directory", "did you mean cwd?"),
        ("workdir", "did you mean cwd?"),
        ("Env", "did you mean env?"),
        ("environment", "did you mean env?"),
        ("force", "did you mean replace?"),
        ("name", "There is no such field. /start takes command, cwd, env, replace."),
        ("", "There is no such field. /start takes"),
        ("c" * 1_000_000, "There is no such field. /start takes"),
    ],
)
def test_unknown_field(client: FlaskClient, name: str, told: str) -> None:
    """Of a field that /start does not take the near one is named, and those that there are."""
    ((_, texts),) = faults_of(client.post("/start", json={"command": "ls", name: "x"})).items()
    assert told in texts[0]
