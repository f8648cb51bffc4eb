"""What a caller is told that misspelt a name, or took it from elsewhere."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from app.api import killing, logs, processes, starting
from app.web.fields import RequestSchema
from tests.api.refusals import faults_of


def taken(schema: type[RequestSchema]) -> str:
    """Return the names that a call takes, as a refusal lists them."""
    return ", ".join(field.data_key or name for name, field in schema().fields.items())


START = f"/start takes {taken(starting.StartSchema)}."
STATUS = f"/status takes {taken(processes.StatusQuery)}."
KILL = f"/kill takes {taken(killing.KillQuery)}."
RESTART = f"/restart takes {taken(starting.RestartQuery)}."
LOGS = f"/logs takes {taken(logs.LogsQuery)}."


@pytest.mark.parametrize(
    ("call", "name", "told"),
    [
        ("GET /logs?line=5", "line", f"did you mean lines? {LOGS}"),
        ("GET /logs?Lines=5", "Lines", "did you mean lines?"),
        ("GET /logs?LINES=5", "LINES", "did you mean lines?"),
        ("GET /logs?tail=5", "tail", "did you mean lines?"),
        ("GET /logs?n=5", "n", "did you mean lines?"),
        ("GET /logs?limit=5", "limit", "did you mean lines?"),
        ("GET /logs?since=5", "since", "did you mean seconds?"),
        ("GET /logs?runId=5", "runId", "did you mean run_id?"),
        ("GET /logs?run=5", "run", "did you mean run_id?"),
        ("GET /logs?grep=x", "grep", f"There is no such parameter. {LOGS}"),
        ("GET /logs?follow", "follow", "no such parameter. /logs"),
        ("POST /kill?signal=SIGKILL", "signal", f"did you mean type? {KILL}"),
        ("POST /kill?Type=SIGKILL", "Type", "did you mean type?"),
        ("POST /kill?signal_type=SIGKILL", "signal_type", "did you mean type?"),
        ("POST /kill?time=5", "time", "did you mean timeout?"),
        ("POST /kill?force", "force", "There is no such parameter. /kill takes"),
        ("POST /restart?time-out=5", "time-out", f"did you mean timeout? {RESTART}"),
        ("POST /restart?type=SIGKILL", "type", f"There is no such parameter. {RESTART}"),
        (
            "POST /start?comand=ls",
            "comand",
            f"takes nothing in its query string; give {taken(starting.StartSchema)} in a JSON",
        ),
        ("GET /status?lines=5", "lines", f"There is no such parameter. {STATUS}"),
        ("GET /status?run=5", "run", f"did you mean run_id? {STATUS}"),
        ("GET /runs?n=5", "n", "did you mean limit? /runs takes name, limit, before."),
        ("GET /runs?after=x", "after", "did you mean before?"),
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
        ("comand", f"There is no such field; did you mean command? {START}"),
        ("Command", "did you mean command?"),
        ("cmd", "did you mean command?"),
        ("run", "did you mean command?"),
        ("working-directory", "did you mean cwd?"),
        ("workdir", "did you mean cwd?"),
        ("Env", "did you mean env?"),
        ("environment", "did you mean env?"),
        ("force", "did you mean replace?"),
        ("title", f"There is no such field. {START}"),
        ("", "There is no such field. /start takes"),
        ("c" * 1_000_000, "There is no such field. /start takes"),
    ],
)
def test_unknown_field(client: FlaskClient, name: str, told: str) -> None:
    """Of a field that /start does not take the near one is named, and those that there are."""
    ((_, texts),) = faults_of(client.post("/start", json={"command": "ls", name: "x"})).items()
    assert told in texts[0]
