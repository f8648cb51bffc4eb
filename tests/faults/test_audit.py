"""Who made the process start and end can be read in the service's own log, and no secret can."""

from __future__ import annotations

import json
from typing import Any

from tests.kit.processes import alive
from tests.kit.service import Service
from tests.kit.services import Services

TOKEN = "a-token-that-nobody-may-read"  # noqa: S105  that is what the test is about
SECRET = "a-value-that-nobody-may-read"  # noqa: S105  as above
AS_OWNER = {"Authorization": f"Bearer {TOKEN}"}


def audit_lines(service: Service) -> list[dict[str, Any]]:
    """Return the audit lines of a service's log: what stands in braces, where it is an audit."""
    objects = [json.loads(line[line.index("{") :]) for line in service.text.splitlines() if line.endswith("}")]
    return [found for found in objects if "audit" in found]


def test_every_change_is_one_line_without_secrets(serve: Services) -> None:
    """Start, restart and kill, also refused ones, are one line each; neither the token nor a variable's value shows."""
    service = serve(settings={"LLM_SHELL_TOKEN": TOKEN})
    command = {"command": "exec sleep 1000", "env": {"PASSWORD": SECRET}}
    started = service.post("/start", command, headers=AS_OWNER)
    refused = service.post("/start", command, headers=AS_OWNER)
    stranger = service.post("/start", command, headers={"Authorization": f"Bearer {TOKEN}-not"})
    restarted = service.post("/restart", headers=AS_OWNER)
    killed = service.post("/kill?timeout=2", headers=AS_OWNER)
    service.stop()
    lines = audit_lines(service)
    assert [(line["audit"], line["answer"]) for line in lines] == [
        ("start", started.status),
        ("start", refused.status),
        ("start", stranger.status),
        ("restart", restarted.status),
        ("kill", killed.status),
    ]
    assert [line["answer"] for line in lines] == [201, 409, 401, 200, 200]
    assert {line["from"] for line in lines} == {"127.0.0.1"}
    assert lines[0] | {"command": "exec sleep 1000", "env_names": ["PASSWORD"]} == lines[0]
    assert lines[0]["process_pid"] == started.body["process_pid"]
    assert lines[-1] | {"status": "killed", "exit_code": -15, "timeout": "2"} == lines[-1]
    assert not alive(restarted.body["process_pid"])
    assert SECRET not in service.text
    assert TOKEN not in service.text
