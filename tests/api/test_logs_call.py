"""/logs: what it answers, short or long, and how many long answers there may be at once."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.log.snapshot import Snapshot
from tests.kit.processes import descriptors_of
from tests.kit.waiting import wait_until

LINES = 20_000  # of 100 bytes: a log of several MiB, and so a long answer


def run(client: FlaskClient, command: str) -> str:
    """Run a command to its end and return its run_id."""
    response = client.post("/start", json={"command": command})
    assert response.status_code == 201, response.text
    wait_until(lambda: client.get("/status").get_json()["output_open"] is False)
    return str(response.get_json()["run_id"])


def flood(client: FlaskClient) -> str:
    """Run a command that prints so much that the answer is a long one."""
    return run(client, f'i=0; while [ $i -lt {LINES} ]; do echo "{"x" * 99}"; i=$((i+1)); done')


def open_logs() -> int:
    """Count this process's open log files."""
    return sum(target.endswith(".log") for target in descriptors_of(os.getpid()).values())


@pytest.fixture
def small(make_app: Callable[..., Flask]) -> FlaskClient:
    """Return a client of a service with so few threads that one long answer is the limit."""
    return make_app(threads=4).test_client()


def test_everything(client: FlaskClient) -> None:
    """Without a limit the whole output comes, lines joined with newlines, stdout and stderr together."""
    run_id = run(client, "echo one; echo two >&2; printf three")
    body = client.get("/logs").get_json()
    assert body.pop("log_file").endswith(f"/{run_id}.log")
    assert body == {"total_lines": 3, "content": "one\ntwo\nthree", "lines_returned": 3}


@pytest.mark.parametrize(
    ("query", "content", "returned"),
    [
        ("lines=0", "1\n2\n3", 3),
        ("lines=2", "2\n3", 2),
        ("lines=99", "1\n2\n3", 3),
        ("lines=007", "1\n2\n3", 3),
        ("seconds=0", "", 0),
        ("seconds=600", "1\n2\n3", 3),
        ("seconds=.5e3", "1\n2\n3", 3),
        ("seconds=1e300", "1\n2\n3", 3),
        ("lines=99999999999999999999999", "1\n2\n3", 3),
    ],
)
def test_limits(client: FlaskClient, query: str, content: str, returned: int) -> None:
    """`lines` counts from the end, `seconds` back from now; `lines=0` is everything, `seconds=0` nothing."""
    run(client, "seq 3")
    body = client.get(f"/logs?{query}").get_json()
    assert (body["content"], body["lines_returned"], body["total_lines"]) == (content, returned, 3)


def test_content_is_exact(client: FlaskClient) -> None:
    r"""Every character comes through as written, and bytes that are not UTF-8 come as \xNN."""
    run(client, r"""printf 'é "quoted" \\ \t\033[1m \r\n\377\n\360\237\230\200'""")
    assert client.get("/logs").get_json()["content"] == 'é "quoted" \\ \t\x1b[1m \r\n\\xff\n😀'


def test_nothing_printed(client: FlaskClient) -> None:
    """A run that printed nothing has an empty content of no lines."""
    run(client, "true")
    body = client.get("/logs").get_json()
    assert (body["content"], body["lines_returned"], body["total_lines"]) == ("", 0, 0)


def test_earlier_run(client: FlaskClient) -> None:
    """`run_id` reads an earlier run's log, while the default is the current run's."""
    first = run(client, "echo first")
    run(client, "echo second")
    assert client.get(f"/logs?run_id={first}").get_json()["content"] == "first"
    assert client.get("/logs").get_json()["content"] == "second"


@pytest.mark.parametrize(
    "run_id",
    [
        "2001-01-01_00-00-00",
        "2001-01-01_00-00-00_2",
        "",
        "..",
        "../../etc/passwd",
        "2001-01-01_00-00-00.log",
        "2001-01-01_00-00-00/../x",
        "2001-01-01_00-00-00%00",
        "2001-01-01_00-00-00%0A",
        "%D9%A2001-01-01_00-00-00",
        "*",
    ],
)
def test_unknown_run(client: FlaskClient, run_id: str) -> None:
    """A run_id that no run has is 404, whatever it looks like."""
    response = client.get(f"/logs?run_id={run_id}")
    assert response.status_code == 404
    assert response.get_json()["detail"]


def test_log_file_gone(client: FlaskClient, tmp_path: Path) -> None:
    """A log that someone removed after the run is 404."""
    run_id = run(client, "echo x")
    (tmp_path / "logs" / f"{run_id}.log").unlink()
    assert client.get("/logs").status_code == 404


def test_short_answer(client: FlaskClient) -> None:
    """A short answer announces its length."""
    run(client, "echo x")
    response = client.get("/logs")
    assert response.mimetype == "application/json"
    assert int(response.headers["Content-Length"]) == len(response.data)


def test_head(client: FlaskClient) -> None:
    """HEAD tells what GET would, without the content."""
    run(client, "echo x")
    head, get = client.head("/logs"), client.get("/logs")
    assert head.data == b""
    assert head.headers["Content-Length"] == get.headers["Content-Length"]


def test_long_answer(client: FlaskClient) -> None:
    """A long answer is streamed in small pieces that make one JSON object."""
    flood(client)
    with client.get("/logs", buffered=False) as response:
        pieces = list(response.iter_encoded())
    assert max(map(len, pieces)) <= 64 * 1024
    body = json.loads(b"".join(pieces))
    assert body["lines_returned"] == body["total_lines"] == LINES
    assert body["content"] == "\n".join(["x" * 99] * LINES)
    assert "Content-Length" not in response.headers


def begin(client: FlaskClient, path: str = "/logs") -> TestResponse:
    """Begin to read a long answer and stop after its first piece."""
    response = client.get(path, buffered=False)
    if response.status_code == 200:
        next(iter(response.response))
    return response


def test_too_many_long_answers(small: FlaskClient) -> None:
    """Over a quarter of the threads, long answers are 429 with Retry-After; short ones still come."""
    flood(small)
    with begin(small):
        refused = small.get("/logs")
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "1"
        assert refused.mimetype == "application/problem+json"
        assert "fewer lines" in refused.get_json()["detail"]
        assert small.get("/logs?lines=10").status_code == 200
    with begin(small) as response:
        assert response.status_code == 200


def test_no_place_no_search(small: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call for very many lines takes its place before it looks for the first of them."""
    flood(small)
    read: list[int] = []
    plain = Snapshot.read

    def counted(snapshot: Snapshot, start: int, end: int) -> bytes:
        read.append(end - start)
        return plain(snapshot, start, end)

    with begin(small):
        monkeypatch.setattr(Snapshot, "read", counted)
        assert small.get(f"/logs?lines={LINES - 1}").status_code == 429
        assert sum(read) < 1_500_000
    body = small.get(f"/logs?lines={LINES - 1}").get_json()
    assert (body["lines_returned"], len(body["content"])) == (LINES - 1, 100 * (LINES - 1) - 1)
    assert sum(read) > 2 * LINES * 100


def test_client_that_goes_away(small: FlaskClient) -> None:
    """A long answer cut short gives its place and its files back at once, also one that never began."""
    flood(small)
    before = open_logs()
    begin(small).close()
    small.get("/logs", buffered=False).close()
    small.head("/logs").close()
    assert open_logs() == before
    with begin(small) as response:
        assert response.status_code == 200


def test_connection_of_a_client_that_stopped_reading(small: FlaskClient) -> None:
    """Reads and writes on a connection time out, and one whose long answer was cut short is hung up at once."""
    flood(small)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with small.get("/logs", buffered=False, environ_overrides={"gunicorn.socket": ours}) as response:
            next(iter(response.response))
            assert ours.gettimeout() == 30
            theirs.setblocking(False)
            with pytest.raises(BlockingIOError):
                theirs.recv(1)
        assert theirs.recv(1) == b""


def test_connection_after_a_whole_answer(small: FlaskClient) -> None:
    """A connection whose long answer was sent to its end stays open for the next request."""
    flood(small)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with small.get("/logs", environ_overrides={"gunicorn.socket": ours}) as response:
            assert response.get_json()["lines_returned"] == LINES
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_refused_long_answer_keeps_nothing_open(small: FlaskClient) -> None:
    """A 429 closes the files that were opened to answer."""
    flood(small)
    with begin(small):
        before = open_logs()
        assert small.get("/logs").status_code == 429
        assert open_logs() == before


def test_log_past_its_cap(make_app: Callable[..., Flask]) -> None:
    """Where older lines were asked for than are kept, the answer says so and names the oldest kept."""
    client = make_app(log_max_bytes=1024 * 1024).test_client()
    flood(client)
    with client.get("/logs") as response:
        body = response.get_json()
    assert body["truncated"] is True
    assert body["total_lines"] == LINES
    assert body["lines_returned"] == LINES - body["first_seq"] + 1
    assert body["first_seq"] > 1
    tail = client.get("/logs?lines=10").get_json()
    assert list(tail) == ["log_file", "total_lines", "content", "lines_returned"]
