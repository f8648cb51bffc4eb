"""Every call that changes the process leaves one line in the service's log, and no secret in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that gives the audit lines so far."""
    caplog.set_level(logging.INFO, "app.api.audit")
    return lambda: [json.loads(r.getMessage()) for r in caplog.records if r.name == "app.api.audit"]


def test_each_operation_is_one_line(client: FlaskClient, lines: Callable[[], list[dict[str, Any]]]) -> None:
    """A start, a restart and a kill are each told with where they came from, what was asked and what came of it."""
    started = client.post("/start", json={"command": "exec sleep 100", "env": {"KEY": "s3cr3t"}}).get_json()
    again = client.post("/restart?timeout=3").get_json()
    client.post("/kill?type=SIGKILL")
    client.get("/status")
    assert lines() == [
        {
            "audit": "start",
            "from": "127.0.0.1",
            "answer": 201,
            "command": "exec sleep 100",
            "env_names": ["KEY"],
            "run_id": started["run_id"],
            "process_pid": started["process_pid"],
            "status": "running",
            "exit_code": None,
        },
        {
            "audit": "restart",
            "from": "127.0.0.1",
            "answer": 200,
            "timeout": "3",
            "run_id": again["run_id"],
            "process_pid": again["process_pid"],
            "status": "running",
            "exit_code": None,
        },
        {
            "audit": "kill",
            "from": "127.0.0.1",
            "answer": 200,
            "type": "SIGKILL",
            "status": "killed",
            "exit_code": -9,
            "escalated": False,
            "survivors": [],
        },
    ]


def test_refusals_are_told_too(client: FlaskClient, lines: Callable[[], list[dict[str, Any]]]) -> None:
    """A call that was refused is told with the reason, whatever its body was."""
    client.post("/start", json={"command": " "})
    client.post("/start", data=b"\xff{", content_type="application/json")
    client.post("/kill")
    assert [(line["audit"], line["answer"]) for line in lines()] == [("start", 400), ("start", 400), ("kill", 404)]
    assert all(line["detail"] for line in lines())


def test_no_secret_is_logged(make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture) -> None:
    """Neither a value of the environment nor the token, be it in a command, ever reaches the log."""
    caplog.set_level(logging.DEBUG)
    token = "a-token-of-20-letters"  # noqa: S105  a test's own
    client = make_app(token=token).test_client()
    headers = {"Authorization": f"Bearer {token}"}
    body = {"command": f"echo {token}", "env": {"KEY": "s3cr3t"}}
    assert client.post("/start", json=body, headers=headers).status_code == 201
    assert client.post("/start", json=body, headers={"Authorization": f"Bearer {token[:-1]}x"}).status_code == 401
    assert "echo ***" in caplog.text
    assert token not in caplog.text
    assert "s3cr3t" not in caplog.text
