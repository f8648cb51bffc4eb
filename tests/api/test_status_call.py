"""GET /status?run_id=: the outcome of any run that is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from app.api.details import DetailsSchema
from tests.api.calls import STATUS_FIELDS, end_of, start, status

NEVER_NAMED = [
    "",
    "..",
    ".",
    "current",
    "../../etc/passwd",
    "2001-01-01_00-00-00.json",
    "2001-01-01_00-00-00/../x",
    "2001-01-01_00-00-00%00",
    "2001-01-01_00-00-00%0A",
    "2001-01-01_00-00-00_",
    "2001-01-01_00-00-00_1234567890",
    "%D9%A2001-01-01_00-00-00",
    "*",
]


def test_each_run_by_its_id(client: FlaskClient) -> None:
    """The current run's id gives what no id gives; a past one's gives its own outcome, in the same form."""
    first = start(client, "exit 3")["run_id"]
    before = end_of(client)
    second = start(client, "exec sleep 60", replace=True)["run_id"]
    assert client.get(f"/status?run_id={second}").get_json() == status(client)
    past = client.get(f"/status?run_id={first}")
    assert (past.status_code, list(past.get_json())) == (200, STATUS_FIELDS)
    assert past.get_json() | {"output_open": None} == before | {"output_open": None}


@pytest.mark.parametrize("run_id", NEVER_NAMED)
@pytest.mark.parametrize("path", ["/status", "/logs"])
def test_what_never_named_a_run(client: FlaskClient, path: str, run_id: str) -> None:
    """404 says where a run_id comes from, whatever was sent in its place."""
    response = client.get(f"{path}?run_id={run_id}")
    assert response.status_code == 404
    assert "GET /runs lists those" in response.get_json()["detail"]


@pytest.mark.parametrize("path", ["/status", "/logs"])
def test_a_run_that_is_not_kept(client: FlaskClient, path: str) -> None:
    """404 names the run and the call that lists those that are kept, with a current run as without."""
    for _ in range(2):
        response = client.get(f"{path}?run_id=2001-01-01_00-00-00")
        assert response.status_code == 404
        assert "2001-01-01_00-00-00" in response.get_json()["detail"]
        assert "GET /runs lists those" in response.get_json()["detail"]
        start(client, "true", replace=True)


def test_a_run_of_which_only_the_log_is_left(client: FlaskClient, tmp_path: Path) -> None:
    """404 says that the outcome is not known any more, and how to read the output that is still there."""
    (tmp_path / "logs" / "2001-01-01_00-00-00.log").write_text(
        '{"seq":1,"timestamp":"2001-01-01T00:00:00.000000Z","line":"old"}\n'
    )
    response = client.get("/status?run_id=2001-01-01_00-00-00")
    assert response.status_code == 404
    assert "GET /logs?run_id=2001-01-01_00-00-00" in response.get_json()["detail"]
    with client.get("/logs?run_id=2001-01-01_00-00-00") as log:
        assert log.get_json()["content"] == "old"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("run=2001-01-01_00-00-00", "run"),
        ("lines=5", "lines"),
        ("run_id=2001-01-01_00-00-00&verbose=1", "verbose"),
        ("details=yes", "details"),
        ("details=1", "details"),
        ("details=true&details=true", "details"),
        ("detail=true", "detail"),
        ("run_id=2001-01-01_00-00-00&run_id=2001-01-01_00-00-00", "run_id"),
    ],
)
def test_other_parameters(client: FlaskClient, query: str, field: str) -> None:
    """An unknown or a repeated parameter is 400 by its name, with a run as without."""
    for _ in range(2):
        response = client.get(f"/status?{query}")
        assert response.status_code == 400
        assert list(response.get_json()["errors"]) == [field]
        start(client, "true", replace=True)


def test_an_empty_query_is_none(client: FlaskClient) -> None:
    """`/status?` asks for the current run."""
    start(client, "exec sleep 60")
    assert client.get("/status?").get_json() == status(client)


def test_details_are_added(client: FlaskClient) -> None:
    """They come beside the same status object, for the current run as for a past one, and only when asked for."""
    past = start(client, "echo no; exit 3")["run_id"]
    end_of(client)
    current = start(client, "exec sleep 60", replace=True)
    for run_id, pids in ((past, []), (current["run_id"], [current["process_pid"]])):
        for query in (f"run_id={run_id}", f"run_id={run_id}&details=false"):
            plain = client.get(f"/status?{query}").get_json()
            assert list(plain) == STATUS_FIELDS
        told = client.get(f"/status?run_id={run_id}&details=true").get_json()
        details = told.pop("details")
        assert told == plain
        assert [one["pid"] for one in details["members"]] == pids
        assert (details["last_failure"]["run_id"], details["last_failure"]["lines"]) == (past, ["no"])
        errors = DetailsSchema().validate(details)
        assert errors == {}
        assert details.keys() == DetailsSchema().fields.keys()
    assert client.get("/status?details=true&name=default").get_json()["run_id"] == current["run_id"]


def test_details_of_nothing(client: FlaskClient) -> None:
    """They are no way around the 404s."""
    for query in ("", "&name=web", "&run_id=2001-01-01_00-00-00"):
        assert client.get(f"/status?details=true{query}").status_code == 404
