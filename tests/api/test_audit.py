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
    caplog.set_level(logging.INFO, "app.web.audit")
    return lambda: [json.loads(r.getMessage()) for r in caplog.records if r.name == "app.web.audit"]


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


def test_a_start_is_told_with_its_name(client: FlaskClient, lines: Callable[[], list[dict[str, Any]]]) -> None:
    """Of a start, made or refused, the line says of which process it is, and what else was asked for."""
    body = {"command": "exec sleep 100", "name": "web", "port": 1, "stdin": "open", "shell": "/bin/sh"}
    client.post("/start", json=body | {"if_running": "reuse", "leftovers": "end"})
    client.post("/start", json={"command": "true", "name": "web", "port": 10**400})
    made, refused = lines()
    assert made | body | {"if_running": "reuse", "leftovers": "end", "answer": 201} == made
    assert (refused["name"], refused["answer"]) == ("web", 400)


def test_fields_of_a_body_are_told(client: FlaskClient, lines: Callable[[], list[dict[str, Any]]]) -> None:
    """What a body of /kill or /restart asks for is told as a query is, refused or not."""
    client.post("/start", json={"command": "exec sleep 100"})
    client.post("/restart", json={"timeout": 3})
    client.post("/kill", json={"type": "SIGKILL", "timeout": None})
    client.post("/kill?timeout=3", json={"type": "SIGKILL"})
    client.post("/kill", json={"type": "SIGHUP", "more": ["x"] * 20, "answer": 200})
    _, restart, kill, both, refused = lines()
    assert (restart["timeout"], kill["type"], kill["timeout"]) == (3, "SIGKILL", None)
    assert (both["answer"], both["timeout"], both["type"]) == (400, "3", "SIGKILL")
    assert (refused["answer"], refused["type"]) == (400, "SIGHUP")
    assert "more" not in refused


@pytest.mark.parametrize(
    "value", [10**4000, -(10**4000), float("inf"), float("-inf"), float("nan"), 1e-300, True, "x" * 9000]
)
def test_any_value_of_a_body_fits(client: FlaskClient, caplog: pytest.LogCaptureFixture, value: Any) -> None:
    """Whatever values a body has, the line is JSON of at most 2,000 bytes."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    caplog.set_level(logging.INFO, "app.web.audit")
    client.post("/kill", json={f"field-{number}": value for number in range(20)} | {"timeout": value})
    (line,) = [record.getMessage() for record in caplog.records if record.name == "app.web.audit"]
    assert len(line.encode()) <= 2000
    assert json.loads(line, parse_constant=refuse)["audit"] == "kill"


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


def test_texts_are_cut(client: FlaskClient, lines: Callable[[], list[dict[str, Any]]]) -> None:
    """Of no field is more than a beginning told, and of lists and parameters a few and how many more."""
    client.post(
        "/start", json={"command": "x" * 1000, "cwd": "/y" * 1000, "env": {f"N{n:03}": "v" for n in range(300)}}
    )
    client.post("/kill?" + "&".join(f"{'p' * 300}{n}={'q' * 300}" for n in range(50)))
    start, kill = lines()
    assert start["command"] == "x" * 199 + "…"
    assert start["cwd"] == ("/y" * 100)[:199] + "…"
    assert start["env_names"] == [f"N{n:03}" for n in range(10)] + ["and 290 more"]
    assert max(map(len, [*kill.keys(), *map(str, kill.values())])) <= 200


@pytest.mark.parametrize(
    "body",
    [
        {
            "command": "\x1b\u202e" * 30_000,
            "cwd": "\U000e0041" * 1000,
            "env": {"\x07" * 900 + str(n): "" for n in range(99)},
        },
        {"command": "日" * 40_000, "cwd": "日" * 1000, "env": {"日" * 900 + str(n): "" for n in range(99)}},
        {"command": "x", "replace": "y" * 500_000, "more": ["z" * 1000] * 300},
    ],
)
def test_a_line_is_short(client: FlaskClient, caplog: pytest.LogCaptureFixture, body: dict[str, Any]) -> None:
    """Whatever is asked for, the line has at most 2,000 bytes, all of them printable."""
    caplog.set_level(logging.INFO, "app.web.audit")
    assert client.post("/start", json=body).status_code == 400
    (line,) = [record.getMessage() for record in caplog.records if record.name == "app.web.audit"]
    assert len(line.encode()) <= 2000
    assert line.isprintable()


@pytest.mark.parametrize("token", ['a"token"with\\odd\\characters', "a-token-of-20-letters"])
@pytest.mark.parametrize("place", ["command", "cwd", "env", "query", "kill"])
def test_the_token_is_hidden_before_the_cut(
    make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture, token: str, place: str
) -> None:
    """The token goes out of every field, whatever characters it holds, at the cut too."""
    caplog.set_level(logging.INFO, "app.web.audit")
    client = make_app(token=token).test_client()
    headers = {"Authorization": f"Bearer {token}"}
    for padding in (0, 190, 195):
        text = "." * padding + token
        body = {"command": " ", place: {text: 1} if place == "env" else text}
        if place == "query":
            client.post("/kill", query_string={"type": text}, headers=headers)
        elif place == "kill":
            client.post("/kill", json={"type": text, text: 1}, headers=headers)
        else:
            client.post("/start", json=body, headers=headers)
    told = [json.loads(record.getMessage()) for record in caplog.records if record.name == "app.web.audit"]
    assert len(told) == 3
    for line in told:
        assert token[:6] not in json.dumps(line).replace("\\", "")
        assert token[:6] not in str(line)


@pytest.mark.parametrize("form", [str, lambda token: json.dumps(json.dumps(token))])
def test_no_part_of_the_token_is_left_where_a_refusal_cuts(
    make_app: Callable[..., Flask], lines: Callable[[], list[dict[str, Any]]], form: Callable[[str], str]
) -> None:
    """What a refusal quotes of a caller's text it cuts in the middle: of a token there neither end stays."""
    token = "abc-def/ghi+jkl.mno~pqr"  # noqa: S105  a test's own
    client = make_app(token=token).test_client()
    headers = {"Authorization": f"Bearer {token}"}
    for before in range(20, 140, 8):
        text = "x" * before + form(token) + "y" * 100
        client.post("/start", json={"command": "true", "cwd": f"/{text}"}, headers=headers)
        client.post("/start", json={"command": "true", text: 1, "env": {f"{text}=": "1"}}, headers=headers)
        client.post("/kill", query_string={text: "1"}, headers=headers)
        client.post("/kill", query_string={"type": text}, headers=headers)
    told = json.dumps(lines())
    assert len(lines()) == 60
    assert not [part for part in (token[:5], token[-5:], token[8:13]) if part in told]


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong-horse-battery"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_of_a_refused_caller_nothing_is_told_but_where_from(
    make_app: Callable[..., Flask], lines: Callable[[], list[dict[str, Any]]], headers: dict[str, str]
) -> None:
    """A caller who was refused can't write into the log what they like."""
    client = make_app(token="correct-horse-battery").test_client()  # noqa: S106  a test's own
    client.post("/start", json={"command": "written by a stranger"}, headers=headers)
    client.post("/kill?type=stranger", headers=headers)
    assert [set(line) for line in lines()] == [{"audit", "from", "answer", "detail"}] * 2


def test_no_parameter_passes_for_a_fact(client: FlaskClient, lines: Callable[[], list[dict[str, Any]]]) -> None:
    """Parameters that are called like what the service itself tells don't hide it."""
    client.post("/kill?from=10.0.0.1&answer=200&audit=start&detail=x")
    assert [(line["audit"], line["from"], line["answer"]) for line in lines()] == [("kill", "127.0.0.1", 400)]
    assert "no such parameter" in lines()[0]["detail"]
