"""/start, /status, /kill and /restart with a real process."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.api.calls import STATUS_FIELDS, end_of, output_of, start, status
from tests.kit.waiting import wait_until

JSON = "application/json"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def test_full_workflow(client: FlaskClient) -> None:
    """A command is started, seen running, killed, and seen killed."""
    started = start(client, "sleep 60")
    assert started["status"] == "running"
    assert status(client)["process_pid"] == started["process_pid"]
    killed = client.post("/kill?type=SIGTERM")
    assert killed.status_code == 200
    assert killed.get_json()["status"] == "killed"
    assert status(client)["status"] == "killed"


def test_start_answers_with_the_status_object(client: FlaskClient, tmp_path: Path) -> None:
    """201 carries the whole status object of a running process, in the contract's order."""
    started = start(client, "sleep 60")
    assert list(started) == STATUS_FIELDS
    assert started["command"] == "sleep 60"
    assert started["log_file"] == str(tmp_path / "logs" / f"{started['run_id']}.log")
    assert TIME.fullmatch(started["created_at"])
    unknown_yet = ("stopped_at", "exit_code", "signal", "reason")
    assert [started[name] for name in unknown_yet] == [None, None, None, None]
    assert (started["output_open"], started["leftover_pids"]) == (True, [])


def test_status_is_one_answer_by_either_way(client: FlaskClient) -> None:
    """The short way to /status and Flask's give the same answer, to the last header."""
    client.post("/start", json={"command": "exec sleep 1000"})
    short = client.get("/status")
    by_the_route = client.get("/status", headers={"Content-Length": "0"})
    assert (short.status_code, short.data) == (by_the_route.status_code, by_the_route.data)
    assert sorted(short.headers) == sorted(by_the_route.headers)


def test_start_of_a_command_that_is_gone_at_once(client: FlaskClient) -> None:
    """/start tells the moment of the spawn: running, even for `true`."""
    assert start(client, "true")["status"] == "running"
    assert end_of(client)["exit_code"] == 0


def test_exit_code(client: FlaskClient) -> None:
    """A process that ended by itself is `exited`, with its own exit code and the time of its end."""
    start(client, "exit 3")
    now = end_of(client)
    assert (now["status"], now["exit_code"], now["signal"]) == ("exited", 3, None)
    assert TIME.fullmatch(now["stopped_at"])


def test_cwd_and_env(client: FlaskClient, tmp_path: Path) -> None:
    """The command runs in `cwd` with `env` added to its environment."""
    start(client, 'pwd; echo "$GREETING"', cwd=str(tmp_path), env={"GREETING": "héllo"})
    end_of(client)
    wait_until(lambda: output_of(client) == f"{tmp_path}\nhéllo")


def test_env_overrides(client: FlaskClient) -> None:
    """The caller's `env` is stronger than what the service sets for every process."""
    start(client, 'echo "$TERM $PAGER"', env={"TERM": "xterm"})
    end_of(client)
    wait_until(lambda: output_of(client) == "xterm cat")


def test_start_while_running(client: FlaskClient) -> None:
    """A second command is refused with 409 while the first runs, and the first is left alone."""
    first = start(client, "sleep 60")
    response = client.post("/start", json={"command": "true"})
    assert response.status_code == 409
    assert response.mimetype == "application/problem+json"
    assert status(client)["process_pid"] == first["process_pid"]


def test_start_with_replace(client: FlaskClient) -> None:
    """`replace` ends the run that is alive and starts the new one."""
    first = start(client, "sleep 60")
    second = start(client, "sleep 61", replace=True)
    assert second["process_pid"] != first["process_pid"]
    assert second["log_file"] != first["log_file"]
    assert not Path(f"/proc/{first['process_pid']}").exists()


def test_start_with_leftovers(client: FlaskClient) -> None:
    """409 names the leftovers that are in the way, with their command lines, and both remedies."""
    start(client, "sleep 60 & exit 0")
    now = end_of(client)
    assert now["status"] == "exited"
    (pid,) = now["leftover_pids"]
    response = client.post("/start", json={"command": "true"})
    assert response.status_code == 409
    assert str(pid) in response.text
    assert "sleep 60" in response.text
    assert "/kill" in response.get_json()["detail"]
    assert "replace" in response.get_json()["detail"]


def test_start_in_a_directory_that_does_not_exist(client: FlaskClient, tmp_path: Path) -> None:
    """A bad `cwd` is the caller's fault: 400, and no run comes of it."""
    response = client.post("/start", json={"command": "true", "cwd": str(tmp_path / "missing")})
    assert response.status_code == 400
    assert client.get("/status").status_code == 404


def test_start_over_the_systems_limit(client: FlaskClient) -> None:
    """An environment that the system cannot pass on is a 400, and no run comes of it."""
    response = client.post("/start", json={"command": "true", "env": {"BIG": "x" * 200_000}})
    assert response.status_code == 400
    assert client.get("/status").status_code == 404


def test_longest_command(client: FlaskClient) -> None:
    """A command of 131,071 bytes runs."""
    start(client, "exit 7 #".ljust(131_071, "x"))
    assert end_of(client)["exit_code"] == 7


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/status"), ("POST", "/kill"), ("POST", "/restart"), ("GET", "/logs")]
)
def test_nothing_started_yet(client: FlaskClient, method: str, path: str) -> None:
    """Before the first run every call that needs one is a 404, which names the call to begin with."""
    response = client.open(path, method=method)
    assert response.status_code == 404
    assert response.get_json()["title"] == "Not Found"
    assert response.get_json()["detail"] == "No command has been started yet: use POST /start."


@pytest.mark.parametrize(("signal", "code"), [("SIGTERM", -15), ("SIGKILL", -9)])
def test_kill(client: FlaskClient, signal: str, code: int) -> None:
    """/kill sends the signal asked for and tells what came of it."""
    start(client, "exec sleep 60")
    response = client.post(f"/kill?type={signal}")
    assert response.status_code == 200
    told = response.get_json()
    assert TIME.fullmatch(told.pop("stopped_at"))
    told.pop("reason")
    assert told == {
        "status": "killed",
        "type": signal,
        "exit_code": code,
        "signal": signal,
        "escalated": False,
        "survivors": [],
        "ports": {"freed": [], "held": []},
    }


def test_kill_is_sigterm_by_default(client: FlaskClient) -> None:
    """Without a type the process may end in its own way."""
    start(client, "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done")
    wait_until(lambda: "ready" in output_of(client))
    told = client.post("/kill").get_json()
    assert (told["type"], told["exit_code"], told["escalated"]) == ("SIGTERM", 5, False)


def test_kill_escalates(client: FlaskClient) -> None:
    """What ignores SIGTERM gets SIGKILL after the timeout, of which a fraction of a second is one."""
    start(client, "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    wait_until(lambda: "ready" in output_of(client))
    told = client.post("/kill?timeout=0.2").get_json()
    assert (told["escalated"], told["exit_code"], told["signal"]) == (True, -9, "SIGKILL")


def test_kill_of_leftovers(client: FlaskClient) -> None:
    """/kill ends leftovers as well; the run stays `exited`, with the exit code of its own."""
    start(client, "sleep 60 & exit 4")
    end_of(client)
    told = client.post("/kill").get_json()
    assert (told["status"], told["exit_code"], told["survivors"]) == ("exited", 4, [])
    assert status(client)["leftover_pids"] == []


def test_kill_twice(client: FlaskClient) -> None:
    """A run that ended and left nothing behind cannot be killed: 400."""
    start(client, "sleep 60")
    assert client.post("/kill").status_code == 200
    assert client.post("/kill").status_code == 400


@pytest.mark.parametrize("query", ["", "?timeout=5"])
@pytest.mark.parametrize(
    ("body", "content_type"), [("{}", JSON), ("{ }", JSON), (" \n", JSON), ("", JSON), ("{}", ""), ("{}", "text/plain")]
)
@pytest.mark.parametrize("path", ["/kill", "/restart"])
def test_empty_bodies(client: FlaskClient, path: str, body: str, content_type: str, query: str) -> None:
    """Clients that send an empty object with every POST, or declare an empty body as JSON, are served."""
    start(client, "exec sleep 60")
    assert client.post(path + query, data=body, content_type=content_type).status_code == 200


def test_kill_by_a_body(client: FlaskClient) -> None:
    """What a body of /kill asks for is what a query would."""
    start(client, "sleep 60")
    told = client.post("/kill", json={"type": "SIGKILL", "timeout": 2}).get_json()
    assert (told["type"], told["signal"], told["escalated"]) == ("SIGKILL", "SIGKILL", False)


def test_restart_by_a_body(client: FlaskClient) -> None:
    """What a body of /restart asks for holds: without grace, SIGKILL follows at once."""
    first = start(client, "trap '' TERM; echo ready; while :; do sleep 1; done")
    wait_until(lambda: output_of(client) == "ready")
    began = time.monotonic()
    assert client.post("/restart", json={"timeout": 0}).status_code == 200
    assert time.monotonic() - began < 5
    old = client.get(f"/status?run_id={first['run_id']}").get_json()
    assert old["signal"] == "SIGKILL"


@pytest.mark.parametrize("path", ["/kill", "/restart"])
def test_null_in_a_body_is_as_good_as_left_out(client: FlaskClient, path: str) -> None:
    """A field that is null has its default, as in a start."""
    start(client, "sleep 60")
    assert client.post(path, json={"timeout": None}).status_code == 200


def test_restart(client: FlaskClient, tmp_path: Path) -> None:
    """/restart ends the run and starts the same command, directory and environment with a new log."""
    first = start(client, 'pwd; echo "$A"; sleep 60', cwd=str(tmp_path), env={"A": "b"})
    response = client.post("/restart?timeout=5")
    assert response.status_code == 200
    second = response.get_json()
    assert list(second) == STATUS_FIELDS
    assert (second["status"], second["command"]) == ("running", first["command"])
    assert second["process_pid"] != first["process_pid"]
    assert second["log_file"] != first["log_file"]
    wait_until(lambda: output_of(client) == f"{tmp_path}\nb")


def test_restart_of_an_ended_run(client: FlaskClient) -> None:
    """/restart starts an ended run again."""
    start(client, "exit 6")
    end_of(client)
    assert client.post("/restart").get_json()["status"] == "running"
    assert end_of(client)["exit_code"] == 6


def test_start_that_the_machine_refuses(client: FlaskClient, tmp_path: Path) -> None:
    """A log directory that cannot be made is a 500 that names the setting and what is in the way, and no traceback."""
    logs = tmp_path / "logs"
    wait_until(logs.is_dir)
    for left in logs.iterdir():
        left.unlink()
    logs.rmdir()
    logs.write_text("in the way")
    response = client.post("/start", json={"command": "true"})
    assert response.status_code == 500
    assert response.mimetype == "application/problem+json"
    assert re.search(r"LLM_SHELL_LOG_DIR: .* is a file, not a directory", response.get_json()["detail"])
    assert "Traceback" not in response.text
