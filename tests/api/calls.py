"""The calls of the API as most tests make them, on Flask's own client, and what each returns."""

from __future__ import annotations

from functools import partial
from typing import Any

from flask.testing import FlaskClient

from tests.kit.waiting import ended

STATUS_FIELDS = [
    "name",
    "status",
    "process_pid",
    "command",
    "run_id",
    "log_file",
    "created_at",
    "stopped_at",
    "exit_code",
    "signal",
    "reason",
    "output_open",
    "leftover_pids",
    "daemons",
    "restarts",
    "next_start_at",
    "limit",
]


def start(client: FlaskClient, command: str, **fields: Any) -> dict[str, Any]:
    """Start a command that must start, and return its status object."""
    response = client.post("/start", json={"command": command, **fields})
    assert response.status_code == 201, response.text
    return response.get_json()  # type: ignore[no-any-return]  # JSON objects are dicts


def status(client: FlaskClient) -> dict[str, Any]:
    """Return the current status object."""
    response = client.get("/status")
    assert response.status_code == 200, response.text
    return response.get_json()  # type: ignore[no-any-return]  # JSON objects are dicts


def end_of(client: FlaskClient) -> dict[str, Any]:
    """Wait for the process's end and return the status object."""
    return ended(partial(status, client))


def output_of(client: FlaskClient) -> str:
    """Return everything that the run printed so far."""
    with client.get("/logs") as response:
        return str(response.get_json()["content"])
