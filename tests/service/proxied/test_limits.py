"""What nginx does not let through: what is too large, too much, or too often wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.kit.requiring import require
from tests.kit.waiting import wait_until
from tests.service.nginx import HOST
from tests.service.proxied.site import BEARER, WRONG, Site, addresses

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"GET /{'x' * 9000} HTTP/1.1", 414),
        (f"GET /status HTTP/1.1\r\nX-Long: {'x' * 9000}", 431),
        ("GET /status HTTP/1.1\r\n" + "\r\n".join(f"X-{n}: {'x' * 7000}" for n in range(5)), 431),
        ("GET /status HTTP/1.1\r\nContent-Length: x", 400),
        ("this is no request", 400),
        ("TRACE /status HTTP/1.1", 405),
    ],
    ids=["long path", "long header", "long headers", "bad length", "no request", "TRACE"],
)
def test_bad_request(site: Site, head: str, status: int) -> None:
    """A head over the limits, or no valid one, is refused by nginx, as a problem with the right status."""
    with site.client.exchange(head, source=next(addresses)) as response:
        assert response.status == status
        assert json.loads(response.read())["status"] == status


def test_large_body_is_refused(site: Site) -> None:
    """A body of 100 MB is refused without being read, whether its length is announced or not."""
    announced = "POST /start HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 100000000"
    chunked = "POST /start HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
    for head, body in ((announced, b""), (chunked, b"5f5e100\r\n" + b" " * (MIB + 1))):
        before = len(site.service.text)
        with site.client.exchange(head, body, next(addresses)) as response:
            assert response.status == 413
            assert json.loads(response.read())["detail"] == "The body is too large; send at most 1 MiB."
        assert site.service.text[before:] == ""  # not even an audit line


def test_large_body_with_curl(site: Site, tmp_path: Path) -> None:
    """A client that sends its 100 MB all the same gets the answer and not a broken connection."""
    program = shutil.which("curl")
    require(program, "curl (Debian: apt install curl)")
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, 100_000_000)
    done = subprocess.run(
        [
            *(str(program), "--silent", "--cacert", str(site.socket.parent / "tls.crt"), "--data-binary", f"@{large}"),
            *("--resolve", f"{HOST}:{site.client.port}:127.0.0.1", "--header", "Content-Type: application/json"),
            f"https://{HOST}:{site.client.port}/start",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout)["status"] == 413


def test_body_of_exactly_the_limit_arrives(site: Site) -> None:
    """A body of 1 MiB reaches the service, from which it has its answer, and lies on no disk meanwhile."""
    length = MIB - len(json.dumps({"command": ""}))
    reply = site.client.post("/start", {"command": "x" * length}, source=next(addresses))
    assert reply.status == 400
    assert "at most 131071 bytes" in reply.json["detail"]


def test_changes_are_limited(site: Site) -> None:
    """A flood of changes from one address is 429; its /kill, its reads and others' changes pass."""
    source = next(addresses)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: site.client.post("/start", {"command": ""}, source=source), range(60)))
    statuses = [reply.status for reply in replies]
    assert set(statuses) == {400, 429}
    assert 20 <= statuses.count(400) < 50
    refused = next(reply for reply in replies if reply.status == 429)
    assert refused.headers["Retry-After"] == "1"
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json["title"] == "Too Many Requests"
    assert site.client.post("/kill", source=source).status in {400, 404}
    assert site.client.get("/health", source=source).status == 200
    assert site.client.post("/start", {"command": ""}, source=next(addresses)).status == 400


def test_failed_authentication_is_slowed(site: Site) -> None:
    """Wrong tokens from one address are answered one a second after the first few, though all are sent at once.

    Meanwhile the right one is answered at once there, and so is the first wrong one from elsewhere.
    """
    source = next(addresses)
    site.run_to_end("true")  # so that there is a status to be told

    def timed(headers: dict[str, str], source: str) -> tuple[int, float]:
        began = time.monotonic()
        return site.client.get("/status", headers=headers, source=source).status, time.monotonic() - began

    with ThreadPoolExecutor(8) as pool:
        guesses = [pool.submit(timed, WRONG, source) for _ in range(8)]
        wait_until(lambda: sum(guess.done() for guess in guesses) >= 5)
        for headers, caller, status in ((BEARER, source, 200), (WRONG, next(addresses), 401)):
            answered, seconds = timed(headers, caller)
            assert (answered, seconds < 1) == (status, True)
        results = sorted((guess.result() for guess in guesses), key=lambda result: result[1])
    assert {status for status, _ in results} == {401}
    assert results[4][1] < 1
    assert results[-1][1] > 2.5


def test_queue_of_failed_authentication_ends(site: Site) -> None:
    """An address that fills the queue of slow answers, by hanging up before it has them, is 429 then."""
    source = next(addresses)
    head = f"GET /status HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()

    def count(words: str) -> int:
        return sum(words in line and source in line for line in site.nginx.errors)

    def queued(before: int) -> bool:
        return count("delaying request") > before + 5 or bool(count("limiting requests"))

    while not count("limiting requests"):
        waiting = count("delaying request")
        with ExitStack() as stack:
            for _ in range(25):
                stack.enter_context(site.client.connect(source)).sendall(head)
            wait_until(partial(queued, waiting))
    reply = site.client.get("/status", headers=WRONG, source=source)
    assert (reply.status, reply.json["title"]) == (429, "Too Many Requests")
    assert site.client.get("/openapi.json", source=source).status == 200


def test_concurrent_requests_are_limited(site: Site) -> None:
    """One address has at most 32 requests under way; the next is 429, and other addresses are not concerned."""
    source = next(addresses)
    head = f"GET /status HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(32):
            connection = stack.enter_context(site.client.connect(source))
            connection.sendall(head.encode())
            # It is asked for its body once it has been counted. Before that, a further request could take its place.
            assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert site.client.get("/health", source=source).status == 429
        assert site.client.get("/health", source=next(addresses)).status == 200
