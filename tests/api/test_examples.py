"""The description's examples are true: each error is provoked here and compared, and what is filled in works."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.api import examples
from app.web.bodies import MAX_BODY_BYTES
from tests.kit.network import free_port
from tests.kit.waiting import wait_until

SUCCESSES = {
    "POST /start": examples.RUNNING,
    "GET /status": examples.RUNNING,
    "POST /restart": examples.RUNNING,
    "POST /kill": examples.KILLED,
    "GET /logs": examples.LINES,
    "GET /runs": examples.RUNS,
    "GET /health": examples.HEALTHY,
}
LEAVES_ONE = 'sleep 3600 & echo "left $!"'
# The run's own pids, times and numbers of seconds are no part of what is compared.
NUMBERS = re.compile(r"\d+")


def get(path: str, **headers: str) -> Callable[[FlaskClient], TestResponse]:
    """Return a function that sends this GET."""
    return lambda client: client.get(path, headers=headers)


def post(path: str, **options: Any) -> Callable[[FlaskClient], TestResponse]:
    """Return a function that sends this POST."""
    return lambda client: client.post(path, **options)


def kill_the_ended(client: FlaskClient) -> TestResponse:
    """Kill what has ended by itself."""
    client.post("/start", json={"command": "true"})
    wait_until(lambda: client.get("/status").get_json()["status"] == "exited")
    return client.post("/kill")


def start_twice(client: FlaskClient) -> TestResponse:
    """Start beside what runs."""
    client.post("/start", json=dict(examples.TRY))
    return client.post("/start", json=dict(examples.TRY))


def start_beside_leftovers(client: FlaskClient) -> TestResponse:
    """Start beside what an ended command has left alive, once that shows its last name."""
    client.post("/start", json={"command": LEAVES_ONE})
    [pid] = wait_until(lambda: client.get("/status").get_json()["leftover_pids"])
    wait_until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\0003600\0")
    return client.post("/start", json=dict(examples.TRY))


def start_for_a_port_of_another(client: FlaskClient) -> TestResponse:
    """Start for the port that another name was started for."""
    body = {**examples.TRY, "port": free_port()}
    pid = client.post("/start", json={**body, "name": "web"}).get_json()["process_pid"]
    wait_until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\0003600\0")
    return client.post("/start", json=body)


def restart_and_kill(client: FlaskClient) -> TestResponse:
    """Kill what a restart waits for."""
    client.post("/start", json={"command": "trap 'echo asked' TERM; echo ready; while :; do sleep 0.01; done"})
    wait_until(lambda: client.get("/logs").get_json()["content"] == "ready")
    answers: list[TestResponse] = []
    restart = threading.Thread(target=lambda: answers.append(client.application.test_client().post("/restart")))
    restart.start()
    wait_until(lambda: "asked" in client.get("/logs").get_json()["content"])
    client.post("/kill?timeout=0")
    restart.join()
    return answers[0]


def read_too_much(client: FlaskClient) -> TestResponse:
    """Read a long answer while others hold all places."""
    client.post("/start", json={"command": "seq 100000"})
    wait_until(lambda: not client.get("/status").get_json()["output_open"])
    places: list[TestResponse] = []
    try:
        while (answer := client.get("/logs", buffered=False)).status_code == 200:
            places.append(answer)
            next(iter(answer.response))
        return answer
    finally:
        for place in places:
            place.close()


def ask_beside_two_operations(client: FlaskClient) -> TestResponse:
    """Ask for a restart while two kills wait for a process that does not end by SIGTERM."""
    client.post("/start", json={"command": "trap '' TERM; echo ready; while :; do sleep 1; done"})
    wait_until(lambda: "ready" in client.get("/logs").get_json()["content"])
    kills = [threading.Thread(target=client.post, args=["/kill?timeout=60"]) for _ in range(2)]
    for kill in kills:
        kill.start()
    answer = wait_until(lambda: (answer := client.post("/restart")).status_code == 429 and answer)
    client.post("/kill?type=SIGKILL")
    for kill in kills:
        kill.join()
    return answer


def kill_out_of_time(client: FlaskClient) -> TestResponse:
    """Kill where the time that a shim has for its answer is over."""
    client.post("/start", json=dict(examples.TRY))
    with patch("app.supervisor.run.RECOVERY_TIMEOUT", -60.0):
        return client.post("/kill")


def look_without_descriptors(client: FlaskClient) -> TestResponse:
    """Ask for the status where the system has no descriptor left to look it up with."""
    refusal = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    with patch.object(client.application.extensions["supervisor"].processes, "get_status", side_effect=refusal):
        return client.get("/status")


PROVOKED: dict[str, Callable[[FlaskClient], TestResponse]] = {
    "foreign-host": get("/status", Host="shell.example.com"),
    "blank-command": post("/start", json={"command": " "}),
    "no-such-directory": post("/start", json={"command": "true", "cwd": "/srv/gone"}),
    "unknown-parameter-of-status": get("/status?verbose=1"),
    "unknown-parameter-of-health": get("/health?verbose=1"),
    "unknown-parameter-of-openapi": get("/openapi.json?verbose=1"),
    "unknown-parameter-of-docs": get("/docs?verbose=1"),
    "misspelt-parameter": get("/logs?line=100"),
    "unknown-signal": post("/kill?type=SIGHUP"),
    "already-ended": kill_the_ended,
    "listed-too-many": get("/processes?limit=101"),
    "grace-too-long": post("/restart?timeout=601"),
    "page-too-long": get("/runs?limit=101"),
    "unknown-parameter-of-runs": get("/runs?run"),
    "page-not-kept": get("/runs?before=2026-11-22_06-08-00"),
    "both-limits": get("/logs?lines=10&seconds=60"),
    "no-token": get("/status"),
    "foreign-origin": get("/status", Origin="http://localhost:3000"),
    "foreign-site": get("/status", **{"Sec-Fetch-Site": "cross-site"}),
    "nothing-started": get("/status"),
    "unknown-run": get("/logs?run_id=latest"),
    "already-running": start_twice,
    "leftovers": start_beside_leftovers,
    "port-asked-for": start_for_a_port_of_another,
    "overtaken-by-kill": restart_and_kill,
    "body-too-large": post("/start", data=b"x" * (MAX_BODY_BYTES + 1), content_type="application/json"),
    "not-declared-as-json": post("/start", data='{"command": "true"}'),
    "too-many-operations": ask_beside_two_operations,
    "too-many-long-answers": read_too_much,
    "no-such-shell": post("/start", json={"command": "true"}),
    "out-of-reach": kill_out_of_time,
    "too-many-files": look_without_descriptors,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "no-token": {"token": "correct-horse-battery"},
    "no-such-shell": {"shell": "/bin/no-such-shell"},
}


def comparable(body: Any) -> Any:
    """Return a body without the numbers that differ from run to run."""
    if isinstance(body, dict):
        return {key: comparable(value) for key, value in body.items()}
    if isinstance(body, list):
        return [comparable(value) for value in body]
    return NUMBERS.sub("N", str(body).replace("/bin/no-such-shell", "/bin/zsh"))


@pytest.mark.parametrize("name", examples.ERRORS)
def test_errors_are_true(make_app: Callable[..., Flask], name: str) -> None:
    """The example is, but for pids and times, what the service answers."""
    answer = PROVOKED[name](make_app(**SETTINGS.get(name, {})).test_client())
    assert answer.mimetype == "application/problem+json"
    assert answer.status_code == examples.ERRORS[name]["status"]
    assert comparable(answer.get_json()) == comparable(dict(examples.ERRORS[name]))


def documented(client: FlaskClient) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each call, each status of it and what the description has there."""
    document = client.get("/openapi.json").get_json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                yield f"{method.upper()} {path}", status, response


def test_every_error_has_an_example(client: FlaskClient) -> None:
    """No call documents an error without an example, nor an example that is not tried above."""
    for call, status, response in documented(client):
        if status < "400":
            continue
        shown = response["content"]["application/problem+json"]["examples"]
        assert shown, (call, status)
        for name, example in shown.items():
            assert example["value"] == examples.ERRORS[name]
            assert str(example["value"]["status"]) == status


def test_what_try_it_out_sends_works(client: FlaskClient) -> None:
    """Each call, sent as the page fills it in, one after another, answers 2xx with the fields of its example."""
    assert client.post("/start", json=dict(examples.TRY)).get_json().keys() == examples.RUNNING.keys()
    wait_until(lambda: client.get("/logs?lines=100").get_json()["content"] == "ready")
    sent = {
        "GET /status": "",
        "GET /logs": "?lines=100",
        "GET /runs": "?limit=20",
        "GET /health": "",
        "POST /restart": "",
        "POST /kill": "?type=SIGTERM&timeout=5",
    }
    for call, query in sent.items():
        method, path = call.split()
        answer = client.open(path + query, method=method)
        assert answer.status_code == 200
        assert answer.get_json().keys() == SUCCESSES[call].keys()


def test_answers_are_shown(client: FlaskClient) -> None:
    """Each call's good answer is shown by an example."""
    shown = {
        call: response["content"]["application/json"].get("example")
        for call, status, response in documented(client)
        if status < "300" and call in SUCCESSES
    }
    assert shown == SUCCESSES


def test_try_it_out_is_filled_in(client: FlaskClient) -> None:
    """The page fills in a start that works on any machine, the last 100 lines, and nothing that is not there."""
    document = client.get("/openapi.json").get_json()
    body = document["paths"]["/start"]["post"]["requestBody"]["content"]["application/json"]
    assert body["example"] == examples.TRY
    filled = {
        (path, parameter["name"]): parameter["schema"].get("example", parameter["schema"].get("default", "nothing"))
        for path, operations in document["paths"].items()
        for operation in operations.values()
        for parameter in operation.get("parameters", [])
    }
    assert filled == {
        ("/kill", "name"): "default",
        ("/kill", "run_id"): "nothing",
        ("/kill", "all"): False,
        ("/kill", "type"): "SIGTERM",
        ("/kill", "timeout"): 5.0,
        ("/restart", "name"): "default",
        ("/restart", "timeout"): "nothing",
        ("/status", "name"): "default",
        ("/status", "run_id"): "nothing",
        ("/status", "details"): False,
        ("/processes", "limit"): 100,
        ("/runs", "name"): "default",
        ("/runs", "limit"): 20,
        ("/runs", "before"): "nothing",
        ("/logs", "lines"): 100,
        ("/logs", "seconds"): "nothing",
        ("/logs", "name"): "default",
        ("/logs", "run_id"): "nothing",
    }
