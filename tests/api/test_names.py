"""Many named processes: each has its own run, and no call about one touches or waits for another."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.api.calls import start
from tests.kit.processes import alive
from tests.kit.waiting import ended, wait_until


def status(client: FlaskClient, **query: str) -> dict[str, Any]:
    """Return a status object that must be there."""
    response = client.get("/status", query_string=query)
    assert response.status_code == 200, response.text
    return response.get_json()  # type: ignore[no-any-return]  # JSON objects are dicts


def output(client: FlaskClient, **query: str) -> str:
    """Return what a run has printed."""
    with client.get("/logs", query_string=query) as response:
        return str(response.get_json()["content"])


def test_two_names_run_at_the_same_time(client: FlaskClient) -> None:
    """A start under another name is no conflict; each name has its own status and output."""
    web = start(client, "echo web; exec sleep 1000", name="web")
    api = start(client, "echo api; exec sleep 1000", name="api")
    assert (web["name"], api["name"]) == ("web", "api")
    assert status(client, name="web")["process_pid"] == web["process_pid"]
    assert status(client, name="api")["process_pid"] == api["process_pid"]
    wait_until(lambda: output(client, name="web") == "web" and output(client, name="api") == "api")


def test_calls_without_a_name_mean_default(client: FlaskClient) -> None:
    """Version 1's calls are about the process `default`, whatever else runs."""
    start(client, "exec sleep 1000", name="web")
    assert client.get("/status").status_code == 404
    assert client.post("/kill").status_code == 404
    pid = start(client, "exec sleep 1000")["process_pid"]
    assert status(client)["name"] == "default"
    assert status(client, name="default")["process_pid"] == pid
    client.post("/kill")
    assert status(client, name="web")["status"] == "running"


def test_a_kill_ends_the_named_one_alone(client: FlaskClient) -> None:
    """/kill?name= ends that tree, and no process of another name."""
    web, api = (start(client, "exec sleep 1000", name=name)["process_pid"] for name in ("web", "api"))
    assert client.post("/kill?name=web").get_json()["status"] == "killed"
    assert not alive(web)
    assert alive(api)
    assert status(client, name="api")["status"] == "running"


def test_a_restart_restarts_the_named_one_alone(client: FlaskClient) -> None:
    """/restart?name= starts that name's command again, under its name."""
    web, api = (start(client, f"exec sleep 100{number}", name=name) for number, name in enumerate(("web", "api")))
    again = client.post("/restart?name=web").get_json()
    assert (again["name"], again["command"]) == ("web", web["command"])
    assert again["process_pid"] != web["process_pid"]
    assert status(client, name="api")["process_pid"] == api["process_pid"]


def test_a_replace_replaces_the_named_one_alone(client: FlaskClient) -> None:
    """`replace` ends what lives of its own name only."""
    web, api = (start(client, "exec sleep 1000", name=name) for name in ("web", "api"))
    start(client, "exec sleep 1001", name="web", replace=True)
    assert not alive(web["process_pid"])
    assert alive(api["process_pid"])


def test_a_name_can_t_be_started_twice(client: FlaskClient) -> None:
    """A second start under a name is refused as in version 1, and says which process is meant."""
    start(client, "exec sleep 1000", name="web")
    refused = client.post("/start", json={"command": "true", "name": "web"})
    assert refused.status_code == 409
    assert "web" in refused.get_json()["detail"]


def test_an_unknown_name_is_not_found(client: FlaskClient) -> None:
    """404 for a name of which nothing was ever started; asking for it makes none."""
    for method, call in (("get", "/status"), ("get", "/logs"), ("post", "/kill"), ("post", "/restart")):
        refused = getattr(client, method)(f"{call}?name=web")
        assert refused.status_code == 404, call
        assert "'web'" in refused.get_json()["detail"]
    assert client.get("/processes").get_json() == {"processes": []}


@pytest.mark.parametrize("name", ["a", "0", "web.1", "a_b-c", "x" * 64])
def test_valid_names(client: FlaskClient, name: str) -> None:
    """1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit."""
    assert start(client, "true", name=name)["name"] == name


@pytest.mark.parametrize("name", ["", ".web", "-web", "_web", "a/b", "a b", "ü", "x" * 65, "web\n"])
def test_invalid_names(client: FlaskClient, name: str) -> None:
    """Any other name is 400 and starts nothing."""
    refused = client.post("/start", json={"command": "true", "name": name})
    assert refused.status_code == 400
    assert list(refused.get_json()["errors"]) == ["name"]
    assert client.get("/status", query_string={"name": name}).status_code == 400


def test_upper_case_is_refused_with_its_lower_case_form(client: FlaskClient) -> None:
    """A name in upper case is 400, and the message has the name that would be taken."""
    refused = client.post("/start", json={"command": "true", "name": "Web"})
    assert refused.status_code == 400
    assert "web" in refused.get_json()["errors"]["name"][0]


def test_the_command_knows_its_name(client: FlaskClient) -> None:
    """LLM_SHELL_NAME and LLM_SHELL_RUN_ID reach the command."""
    begun = start(client, "echo $LLM_SHELL_NAME $LLM_SHELL_RUN_ID", name="web")
    ended(partial(status, client, name="web"))
    assert output(client, name="web") == f"web {begun['run_id']}"


def test_a_run_is_found_by_its_id_whatever_its_name(client: FlaskClient) -> None:
    """`run_id` stands for one run; with the name of another process it is 400."""
    web = start(client, "echo web; exec sleep 1000", name="web")
    start(client, "exec sleep 1000", name="api")
    wait_until(lambda: output(client, run_id=web["run_id"]) == "web")
    assert status(client, run_id=web["run_id"])["name"] == "web"
    assert status(client, run_id=web["run_id"], name="web")["process_pid"] == web["process_pid"]
    for call in ("/status", "/logs"):
        assert client.get(f"{call}?name=api&run_id={web['run_id']}").status_code == 400
    assert client.post(f"/kill?name=api&run_id={web['run_id']}").status_code == 400
    assert alive(web["process_pid"])
    start(client, "true", name="web", replace=True)
    assert client.get(f"/status?name=api&run_id={web['run_id']}").status_code == 400
    assert status(client, run_id=web["run_id"], name="web")["status"] == "killed"


def test_processes_lists_every_name(client: FlaskClient) -> None:
    """GET /processes: every name with its last run, live ones first, commands cut at 200 characters."""
    start(client, "exit 3", name="done")
    ended(partial(status, client, name="done"))
    web = start(client, f"exec sleep 1000 # {'x' * 300}", name="web")
    listed = client.get("/processes").get_json()["processes"]
    assert [one["name"] for one in listed] == ["web", "done"]
    assert list(listed[0]) == [
        "name",
        "status",
        "run_id",
        "process_pid",
        "command",
        "created_at",
        "stopped_at",
        "exit_code",
        "restarts",
        "next_start_at",
        "leftovers",
    ]
    assert (listed[0]["run_id"], listed[0]["process_pid"]) == (web["run_id"], web["process_pid"])
    assert (listed[0]["status"], listed[1]["status"], listed[1]["exit_code"]) == ("running", "exited", 3)
    assert len(listed[0]["command"]) == 200
    assert [one["name"] for one in client.get("/processes?limit=1").get_json()["processes"]] == ["web"]
    for limit in ("0", "101", "x"):
        assert client.get(f"/processes?limit={limit}").status_code == 400


def test_kill_all_ends_every_tree(client: FlaskClient) -> None:
    """/kill?all=true ends all names side by side, and answers as /kill for each."""
    pids = {name: start(client, "exec sleep 1000", name=name)["process_pid"] for name in ("a", "b", "c")}
    answer = client.post("/kill?all=true")
    assert answer.status_code == 200
    body = answer.get_json()
    assert sorted(one["name"] for one in body["killed"]) == ["a", "b", "c"]
    assert {one["status"] for one in body["killed"]} == {"killed"}
    assert body["survivors"] == []
    assert not any(map(alive, pids.values()))
    again = client.post("/kill?all=true")
    assert (again.status_code, again.get_json()) == (200, {"killed": [], "survivors": []})


@pytest.mark.parametrize("other", ["name=a", "run_id=2026-11-22_06-08-00"])
def test_all_stands_alone(client: FlaskClient, other: str) -> None:
    """`all` with a name or a run is 400, and ends nothing."""
    pid = start(client, "exec sleep 1000", name="a")["process_pid"]
    assert client.post(f"/kill?all=true&{other}").status_code == 400
    assert alive(pid)


def test_as_many_names_live_as_the_setting_says(make_app: Any) -> None:
    """One more is 409, says how many live, and starts nothing; a name that has ended makes room."""
    client = make_app(max_processes=2).test_client()
    start(client, "exec sleep 1000", name="a")
    start(client, "exec sleep 1000", name="b")
    refused = client.post("/start", json={"command": "true", "name": "c"})
    assert refused.status_code == 409
    assert "LLM_SHELL_MAX_PROCESSES" in refused.get_json()["detail"]
    assert client.get("/status?name=c").status_code == 404
    assert start(client, "exec sleep 1001", name="a", replace=True)["name"] == "a"
    client.post("/kill?name=b")
    assert start(client, "exec sleep 1000", name="c")["name"] == "c"


def test_the_limit_holds_for_starts_at_the_same_time(make_app: Any) -> None:
    """Of ten starts of ten names at once, two of which may live, two succeed."""
    app: Flask = make_app(max_processes=2)

    def call(number: int) -> int:
        body = {"command": "exec sleep 1000", "name": f"n{number}"}
        return int(app.test_client().post("/start", json=body).status_code)

    with ThreadPoolExecutor(10) as threads:
        codes = sorted(threads.map(call, range(10)))
    assert codes == [201] * 2 + [409] * 8


def test_operations_on_different_names_do_not_wait(app: Flask) -> None:
    """A slow kill of one name holds up no start, kill or restart of another."""
    client = app.test_client()
    begun = start(client, "trap '' TERM; echo ready; while :; do sleep 0.1; done", name="slow")
    wait_until(lambda: output(client, name="slow") == "ready")
    slow = threading.Thread(target=lambda: app.test_client().post("/kill?name=slow&timeout=20"))
    slow.start()
    start(client, "exec sleep 1000", name="other")
    assert client.post("/restart?name=other").status_code == 200
    assert client.post("/kill?name=other").status_code == 200
    assert alive(begun["process_pid"])
    client.post("/kill?name=slow&type=SIGKILL")
    slow.join(5)
    assert not slow.is_alive()


def test_reuse_answers_with_the_run_that_is_there(client: FlaskClient) -> None:
    """`if_running: reuse` is 200 with the live run where it is the same, and 409 that names what differs."""
    begun = start(client, "exec sleep 1000", name="web", env={"A": "1"})
    same = client.post(
        "/start", json={"command": "exec sleep 1000", "name": "web", "env": {"A": "1"}, "if_running": "reuse"}
    )
    assert same.status_code == 200
    assert same.get_json()["started"] is False
    assert same.get_json()["process_pid"] == begun["process_pid"]
    other = client.post(
        "/start", json={"command": "exec sleep 1000", "name": "web", "env": {"A": "secret"}, "if_running": "reuse"}
    )
    assert other.status_code == 409
    assert "env.A" in other.text
    assert "secret" not in other.text
    client.post("/kill?name=web")
    fresh = client.post("/start", json={"command": "exec sleep 1000", "name": "web", "if_running": "reuse"})
    assert fresh.status_code == 201
    assert "started" not in fresh.get_json()


@pytest.mark.parametrize("if_running", ["refuse", "reuse"])
def test_replace_and_another_wish_contradict(client: FlaskClient, if_running: str) -> None:
    """`replace: true` says what `if_running: replace` says: together with another value it is 400."""
    body = {"command": "true", "replace": True, "if_running": if_running}
    assert client.post("/start", json=body).status_code == 400
    assert client.post("/start", json={**body, "if_running": "replace"}).status_code == 201


@pytest.mark.parametrize("replace", [{"replace": True}, {"if_running": "replace"}])
def test_what_is_replaced_leaves_nothing(client: FlaskClient, replace: dict[str, Any]) -> None:
    """A replacement ends leftovers, so that to leave them as well is 400, and nothing is ended."""
    pid = start(client, "exec sleep 1000", name="web")["process_pid"]
    refused = client.post("/start", json={"command": "true", "name": "web", "leftovers": "leave", **replace})
    assert (refused.status_code, list(refused.get_json()["errors"])) == (400, ["leftovers"])
    assert alive(pid)


def test_leftovers_may_be_left(client: FlaskClient) -> None:
    """`leftovers: leave` starts beside what a past run left, which stays that run's and is ended by its run_id."""
    first = start(client, "sleep 1000 & exit 0", name="web")
    left = ended(partial(status, client, name="web"))["leftover_pids"]
    second = start(client, "exec sleep 1000", name="web", leftovers="leave")
    assert status(client, name="web")["run_id"] == second["run_id"]
    assert status(client, run_id=first["run_id"])["leftover_pids"] == left
    killed = client.post(f"/kill?run_id={first['run_id']}")
    assert (killed.status_code, killed.get_json()["survivors"]) == (200, [])
    assert not any(map(alive, left))
    assert alive(second["process_pid"])


def test_leftovers_may_be_ended(client: FlaskClient) -> None:
    """`leftovers: end` ends what a past run left, and no process that still runs."""
    start(client, "sleep 1000 & exit 0", name="web")
    left = ended(partial(status, client, name="web"))["leftover_pids"]
    second = start(client, "exec sleep 1000", name="web", leftovers="end")
    assert not any(map(alive, left))
    refused = client.post("/start", json={"command": "true", "name": "web", "leftovers": "end"})
    assert refused.status_code == 409
    assert alive(second["process_pid"])


def test_a_port_that_is_taken_is_refused(client: FlaskClient) -> None:
    """A start that says its `port` is 409 where a socket listens on it, or another live name asked for it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = client.post("/start", json={"command": "true", "name": "web", "port": port})
        assert refused.status_code == 409
        assert str(port) in refused.get_json()["detail"]
    start(client, "echo $PORT; exec sleep 1000", name="web", port=port)
    wait_until(lambda: output(client, name="web") == str(port))
    refused = client.post("/start", json={"command": "true", "name": "api", "port": port})
    assert refused.status_code == 409
    assert "web" in refused.get_json()["detail"]


def test_names_outlive_their_service(make_app: Any) -> None:
    """The next service knows each name's last run: its outcome, its output, its command."""
    first: Flask = make_app()
    start(first.test_client(), "echo one; exit 3", name="web")
    ended(partial(status, first.test_client(), name="web"))
    start(first.test_client(), "exec sleep 1000", name="api")
    first.extensions["supervisor"].stop()
    client = make_app().test_client()
    assert status(client, name="web")["exit_code"] == 3
    assert output(client, name="web") == "one"
    assert status(client, name="api")["reason"] == "Ended because the service stopped."
    assert client.post("/restart?name=api").get_json()["status"] == "running"
    assert [one["name"] for one in client.get("/processes").get_json()["processes"]] == ["api", "web"]


def test_logs_of_all_names_lie_flat(client: FlaskClient, tmp_path: Path) -> None:
    """Logs of all names lie in the log directory; the pointer of default is `current`, another's `current-NAME`."""
    default, web = start(client, "true"), start(client, "true", name="web")
    logs = tmp_path / "logs"
    assert (logs / "current").readlink() == Path(f"{default['run_id']}.json")
    assert (logs / "current-web").readlink() == Path(f"{web['run_id']}.json")
    assert Path(web["log_file"]).parent == logs
