"""GET /runs: what has run, page by page."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.runs.record import record_path
from tests.api.calls import end_of, start, status
from tests.kit.processes import send
from tests.kit.records import record_of_past
from tests.kit.waiting import wait_until

FIELDS = [
    "run_id",
    "name",
    "command",
    "status",
    "exit_code",
    "signal",
    "reason",
    "created_at",
    "stopped_at",
    "total_lines",
    "log_bytes",
    "leftovers",
]


def runs(client: FlaskClient, query: str = "") -> list[dict[str, Any]]:
    """Return the runs of a page that must be the only one."""
    response = client.get(f"/runs{query}")
    assert response.status_code == 200, response.text
    body = response.get_json()
    assert (list(body), body["next"]) == (["runs", "next"], None)
    return list(body["runs"])


def test_nothing_was_started(client: FlaskClient) -> None:
    """Before the first start the list is empty, which is no fault."""
    assert runs(client) == []


def test_each_run_as_its_status_tells_it(client: FlaskClient) -> None:
    """The newest comes first, live or not, and each is told of as /status does, with the size of its log."""
    start(client, "echo one; echo two; exit 3")
    end_of(client)
    start(client, "exec sleep 60", replace=True)
    client.post("/kill")
    start(client, "echo here; exec sleep 60", replace=True)
    wait_until(lambda: runs(client)[0]["total_lines"])
    told = runs(client)
    assert [list(run) for run in told] == [FIELDS] * 3
    for run in told:
        shown = client.get(f"/status?run_id={run['run_id']}").get_json()
        assert {field: run[field] for field in FIELDS if field in shown} == {
            field: shown[field] for field in FIELDS if field in shown
        }
        segment = Path(shown["log_file"]).stat().st_size
        assert (run["name"], run["log_bytes"], run["leftovers"]) == ("default", segment, 0)
    assert [run["status"] for run in told] == ["running", "killed", "exited"]
    assert [run["total_lines"] for run in told] == [1, 0, 2]
    assert runs(client) == told


def test_a_run_is_listed_at_once(client: FlaskClient) -> None:
    """A run is in the list as soon as its start was answered, and its end as soon as /status tells it."""
    for number in range(10):
        run_id = start(client, f"exit {number}", replace=True)["run_id"]
        assert runs(client, "?limit=100")[0]["run_id"] == run_id
        end_of(client)
        assert runs(client, "?limit=100")[0]["exit_code"] == number


def test_leftovers_are_counted(client: FlaskClient) -> None:
    """What lives on after a process's end is counted as long as it does."""
    start(client, "sleep 60 & sleep 60 & exit 4")
    end_of(client)
    (run,) = runs(client)
    assert (run["status"], run["exit_code"], run["leftovers"]) == ("exited", 4, 2)
    client.post("/kill")
    assert runs(client)[0]["leftovers"] == 0


def test_pages(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    """Followed by `next`, pages show every run once, those of earlier services too, 20 at a time unless asked."""
    (tmp_path / "logs").mkdir()
    kept = [record_of_past(tmp_path / "logs", second).run_id for second in range(45)]
    client = make_app(log_keep=100).test_client()
    for limit, sizes in ((None, [20, 20, 5]), (45, [45]), (44, [44, 1]), (1, [1] * 45), (100, [45])):
        seen, found, query = [], [], f"limit={limit}" if limit else ""
        page: dict[str, Any] = {"next": ""}
        while page["next"] is not None:
            page = client.get(f"/runs?{query}{'&before=' + page['next'] if page['next'] else ''}").get_json()
            seen += [run["run_id"] for run in page["runs"]]
            found.append(len(page["runs"]))
        assert seen == kept[::-1]
        assert found == sizes


def test_one_name(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    """With a name only its runs are listed, of which there may be none; a page goes on within the name alone."""
    (tmp_path / "logs").mkdir()
    of_web = [record_of_past(tmp_path / "logs", second, name="web").run_id for second in range(3)]
    other = record_of_past(tmp_path / "logs", 9, name="api").run_id
    client = make_app().test_client()
    assert [run["run_id"] for run in runs(client, "?name=web")] == of_web[::-1]
    assert runs(client, "?name=db") == []
    assert [run["name"] for run in runs(client)] == ["api", "web", "web", "web"]
    assert [run["run_id"] for run in runs(client, f"?name=web&before={of_web[1]}")] == of_web[:1]
    refused = client.get(f"/runs?name=web&before={other}")
    assert (refused.status_code, list(refused.get_json()["errors"])) == (400, ["before"])
    assert "one of api, not of web" in refused.get_json()["detail"]


@pytest.mark.parametrize("before", ["", "latest", "../x", "2001-01-01_00-00-00.json", "%00"])
def test_what_never_named_a_run(client: FlaskClient, before: str) -> None:
    """404 says where a run_id comes from, whatever was sent in its place."""
    response = client.get(f"/runs?before={before}")
    assert response.status_code == 404
    assert "GET /runs lists those" in response.get_json()["detail"]


def test_a_page_after_a_run_that_has_gone(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    """404 says to begin anew where the run was never there, or its files were removed meanwhile."""
    (tmp_path / "logs").mkdir()
    gone, kept = (record_of_past(tmp_path / "logs", second) for second in (1, 2))
    client = make_app().test_client()
    assert len(runs(client)) == 2
    for path in (tmp_path / "logs").glob(f"{gone.run_id}.*"):
        path.unlink()
    for run_id in (gone.run_id, "2001-01-01_00-00-00"):
        response = client.get(f"/runs?before={run_id}")
        assert response.status_code == 404
        assert run_id in response.get_json()["detail"]
        assert "leave out before" in response.get_json()["detail"]
    assert [run["run_id"] for run in runs(client)] == [kept.run_id]


def test_a_lost_log_has_no_lines(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    """Of a run whose log was removed the outcome is told, and of its lines that they are not known."""
    (tmp_path / "logs").mkdir()
    lost = record_of_past(tmp_path / "logs", 1)
    Path(lost.log_file).unlink()
    (run,) = runs(make_app().test_client())
    assert (run["exit_code"], run["total_lines"], run["log_bytes"]) == (0, None, 0)


def test_a_run_without_a_record_is_not_listed(client: FlaskClient) -> None:
    """A record that is damaged while the service runs takes an ended run from the list once it is known to be gone."""
    start(client, "true")
    log_file = end_of(client)["log_file"]
    wait_until(lambda: not status(client)["output_open"])
    start(client, "exec sleep 60")
    assert len(runs(client)) == 2
    for path in (record_path(log_file), f"{record_path(log_file)}.spare"):
        Path(path).unlink()
    assert len(runs(client)) == 1


def test_the_next_service_lists_them_all(make_app: Callable[..., Flask]) -> None:
    """What one service has started the next one lists, with the outcome that /status tells."""
    first = make_app(on_shutdown="keep")
    client = first.test_client()
    start(client, "exit 3")
    end_of(client)
    pid = start(client, "exec sleep 60", replace=True)["process_pid"]
    told = runs(client)
    first.extensions["supervisor"].stop()
    second = make_app().test_client()
    assert runs(second) == told
    send(signal.SIGKILL, pid)
    assert end_of(second)["signal"] == "SIGKILL"
    assert [run["signal"] for run in runs(second)] == ["SIGKILL", None]
