"""Requests that are not framed as they should be are refused in the one shape, and nothing is done for them."""

from __future__ import annotations

import http.client
import socket
import time
from contextlib import ExitStack, closing

import pytest

from tests.kit.calling import Reply
from tests.kit.processes import memory_kib
from tests.kit.service import Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until

JSON = "Content-Type: application/json\r\n"
CHUNKED = f"{JSON}Transfer-Encoding: chunked\r\n"
COMMAND = '{"command":"true"}'
POSTS = ["/start", "/kill", "/restart"]


def connect(service: Service) -> socket.socket:
    """Return a connection to the service."""
    return socket.create_connection(("127.0.0.1", service.port), timeout=10)


def exchange_raw(service: Service, line: str, headers: str = "", body: str = "", *, end: bool = False) -> Reply:
    """Send a request as it is, with `end` nothing more after it, and return the answer, which must be a whole one."""
    with connect(service) as client:
        client.sendall(f"{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}".encode("latin-1"))
        if end:
            client.shutdown(socket.SHUT_WR)
        return read_answer(client, line.split(maxsplit=1)[0])


def read_answer(client: socket.socket, method: str) -> Reply:
    """Return the answer to a request of this method, which must be a whole one."""
    with closing(http.client.HTTPResponse(client, method=method)) as response:
        response.begin()
        return Reply(response.status, response.msg, response.read())


def assert_problem(reply: Reply, status: int) -> str:
    """Fail unless the answer is an error of this status in the one shape; return its detail."""
    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/problem+json"), reply
    problem = reply.json
    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert problem["title"]
    assert reply.headers["Cache-Control"] == "no-store"
    return str(problem["detail"])


def assert_nothing_was_started(service: Service) -> None:
    """Fail if the service has ever started anything."""
    assert service.get("/status").status == 404


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "body",
    [
        "zz\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}xx0\r\n\r\n",
        "2;=\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}\r\n0\r\nno trailer\r\n\r\n",
        "2\r\n{}\r\n0\r\n" + f"X: {'x' * 8000}\r\n" * 200 + "\r\n",
        "f" * 9000,
    ],
)
def test_malformed_chunks(shared_service: Service, path: str, body: str) -> None:
    """A chunked body that is not well-formed is the caller's fault: 400."""
    assert "well-formed" in assert_problem(exchange_raw(shared_service, f"POST {path}", CHUNKED, body), 400)
    assert_nothing_was_started(shared_service)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "body", ["", "12\r\n", f"12\r\n{COMMAND}", f"12\r\n{COMMAND}\r\n", f"12\r\n{COMMAND}\r\n0\r\n", f"ff\r\n{COMMAND}"]
)
def test_chunks_cut_short(shared_service: Service, path: str, body: str) -> None:
    """A chunked body that ends before its last chunk is 400, though what came may make sense."""
    assert "cut short" in assert_problem(exchange_raw(shared_service, f"POST {path}", CHUNKED, body, end=True), 400)
    assert_nothing_was_started(shared_service)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body", ["", "{}", COMMAND])
def test_body_shorter_than_announced(shared_service: Service, path: str, body: str) -> None:
    """A body that ends before its announced length is 400, though what came may make sense."""
    reply = exchange_raw(shared_service, f"POST {path}", f"{JSON}Content-Length: 100\r\n", body, end=True)
    assert f"ended after {len(body)} of the 100 bytes" in assert_problem(reply, 400)
    assert_nothing_was_started(shared_service)


@pytest.mark.parametrize("path", ["/status", "/logs", "/health", "/openapi.json", "/docs", "/docs/docs.js"])
@pytest.mark.parametrize(("headers", "body"), [("Content-Length: 2\r\n", "{}"), (CHUNKED, "2\r\n{}\r\n0\r\n\r\n")])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_body_where_none_belongs(shared_service: Service, method: str, path: str, headers: str, body: str) -> None:
    """A call that only reads takes no body: 400, instead of ignoring what it holds."""
    reply = exchange_raw(shared_service, f"{method} {path}", headers, body)
    if method == "HEAD":
        assert reply.status == 400
    else:
        told = f"{method} takes no body; give parameters in the query string, such as GET /logs?lines=100."
        assert assert_problem(reply, 400) == told


@pytest.mark.parametrize("path", ["/status", "/logs", "/health"])
def test_empty_body(shared_service: Service, path: str) -> None:
    """An announced length of nothing is no body."""
    assert (
        exchange_raw(shared_service, f"GET {path}", "Content-Length: 0\r\n").status == shared_service.get(path).status
    )


@pytest.mark.parametrize(
    "path",
    [
        "//health",
        "///health",
        "/%2Fhealth",
        "/health/",
        "/health//",
        "/./health",
        "/x/../health",
        "/health%00",
        "/HEALTH",
    ],
)
def test_similar_path(shared_service: Service, path: str) -> None:
    """What only looks like a call's path is none, and is told as it was sent."""
    assert assert_problem(exchange_raw(shared_service, f"GET {path}"), 404).startswith("There is no /")


def test_path_with_an_encoded_letter(shared_service: Service) -> None:
    """An encoded letter is the letter (RFC 3986, section 2.3)."""
    assert exchange_raw(shared_service, "GET /%68ealth").status == 200


@pytest.mark.parametrize("path", ["/status", "/logs", "/health"])
def test_websocket(shared_service: Service, path: str) -> None:
    """Whoever wants a WebSocket is told that there is none."""
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    assert "There is no WebSocket here" in assert_problem(exchange_raw(shared_service, f"GET {path}", upgrade), 400)


@pytest.mark.parametrize(
    ("line", "headers", "status", "told"),
    [
        ("GET /health?" + "x" * 5000, "", 414, "at most 4 KiB"),
        ("GET /health", f"X: {'x' * 9000}\r\n", 431, "headers"),
        ("GET /health", "".join(f"X{n}: 1\r\n" for n in range(120)), 431, "headers"),
        ("GET /health", "Expect: tea\r\n", 417, "100-continue"),
        ("POST /start", f"{JSON}Expect: 100-continue, tea\r\nContent-Length: 2\r\n", 417, "100-continue"),
        ("GARBAGE", "", 400, "not well-formed HTTP"),
        ("get /health", "", 400, "not well-formed HTTP"),
        ("GET /caf\xe9", "", 400, "not well-formed HTTP"),
        ("GET /health HTTP/1.1 x", "", 400, "not well-formed HTTP"),
        ("GET /health", "no colon\r\n", 400, "not well-formed HTTP"),
        ("GET /health", "Authorization : x\r\n", 400, "not well-formed HTTP"),
        ("GET /health", "X: a\r\n b\r\n", 400, "not well-formed HTTP"),
        ("GET /health", "X: a\0b\r\n", 400, "not well-formed HTTP"),
        ("GET /health", "Host: localhost\r\n", 400, "not well-formed HTTP"),
        ("POST /kill", "Content-Length: 2\r\nContent-Length: 3\r\n", 400, "not well-formed HTTP"),
        ("POST /kill", "Content-Length: -2\r\n", 400, "not well-formed HTTP"),
        ("POST /kill", "Content-Length: 2x\r\n", 400, "not well-formed HTTP"),
        ("POST /kill", f"{CHUNKED}Content-Length: 2\r\n", 400, "not well-formed HTTP"),
        ("POST /kill", "Transfer-Encoding: gzip\r\n", 400, "not well-formed HTTP"),
        ("POST /kill", "Transfer-Encoding: chunked, chunked\r\n", 400, "not well-formed HTTP"),
        ("POST /kill", "Transfer-Encoding: chunked, tea\r\n", 501, "transfer coding"),
        ("POST /kill", "Transfer-Encoding: gzip, chunked\r\n", 501, "transfer coding"),
        ("POST /kill", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501, "transfer coding"),
    ],
)
def test_what_is_no_request(shared_service: Service, line: str, headers: str, status: int, told: str) -> None:
    """What the server refuses before the application sees it has the same shape as every other error."""
    assert told in assert_problem(exchange_raw(shared_service, line, headers), status)
    assert shared_service.get("/health").status == 200


def test_expectation_that_is_met(shared_service: Service) -> None:
    """100-continue is answered, in any case of its letters, and the body is read then."""
    with connect(shared_service) as client:
        head = f"POST /kill HTTP/1.1\r\nHost: localhost\r\n{JSON}Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}")
        assert client.recv(65536).startswith(b"HTTP/1.1 404 ")


def test_form_as_the_body_of_a_kill(shared_service: Service) -> None:
    """A form is not taken for parameters, whatever it is declared as."""
    for media_type in ("application/x-www-form-urlencoded", "text/plain", "application/json", ""):
        headers = f"Content-Type: {media_type}\r\nContent-Length: 12\r\n"
        status = 400 if media_type == "application/json" else 415
        told = assert_problem(exchange_raw(shared_service, "POST /kill", headers, "type=SIGKILL"), status)
        assert "JSON" in told


FOREIGN = "Sec-Fetch-Site: cross-site\r\n"


@pytest.mark.parametrize("framing", ["Content-Length: 1000000\r\n", "Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("line", ["POST /start", "POST /kill", "POST /nothing", "GET /status"])
def test_body_of_a_refused_caller_that_never_comes(shared_service: Service, line: str, framing: str) -> None:
    """Twice as many of them as there are threads, of whom nothing more is heard, keep nobody else waiting."""
    with ExitStack() as clients:
        for _ in range(32):
            client = clients.enter_context(connect(shared_service))
            client.sendall(f"{line} HTTP/1.1\r\nHost: localhost\r\n{JSON}{FOREIGN}{framing}\r\n".encode())
        began = time.monotonic()
        assert shared_service.get("/health").status == 200
        assert shared_service.post("/kill").status in {400, 404}
        assert time.monotonic() - began < 2


def test_body_of_a_refused_caller_does_not_reach_the_log(shared_service: Service) -> None:
    """Twenty refused bodies of a megabyte leave twenty short lines."""
    before = len(shared_service.text)
    body = '{"command": "' + "x" * 1_000_000 + '"}'
    for _ in range(20):
        reply = exchange_raw(shared_service, "POST /start", f"{JSON}{FOREIGN}Content-Length: {len(body)}\r\n", body)
        assert_problem(reply, 403)
    assert wait_until(lambda: shared_service.text[before:].count('"answer":403') == 20)
    assert len(shared_service.text) - before < 20_000


@pytest.mark.parametrize("size", [0, 1000, 60_000, 900_000])
def test_refused_caller_gets_the_answer_whatever_is_sent(shared_service: Service, size: int) -> None:
    """The answer to a refused caller comes through though its body was not read."""
    headers = f"{JSON}{FOREIGN}Content-Length: {size}\r\n"
    assert "another site" in assert_problem(exchange_raw(shared_service, "POST /start", headers, "x" * size), 403)


def test_many_faults_at_once_take_little_memory(serve: Services) -> None:
    """Sixteen requests at once of which everything is wrong are answered in brief, and cost little memory."""
    service = serve()
    names = ",".join(f'"={n:x}":""' for n in range(90_000))
    body = f'{{"command":"ls","env":{{{names}}}}}'
    (worker,) = service.workers
    assert len(body) < 1024 * 1024

    service.get("/status")
    before = memory_kib(worker, "VmHWM")
    with ExitStack() as clients:
        head = f"POST /start HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: {len(body)}\r\n\r\n"
        connected = [clients.enter_context(connect(service)) for _ in range(16)]
        began = time.monotonic()
        for client in connected:
            client.sendall(f"{head}{body}".encode())
        for client in connected:
            reply = read_answer(client, "POST")
            assert reply.status == 400
            assert len(reply.body) < 4000
    assert time.monotonic() - began < 5
    assert memory_kib(worker, "VmHWM") - before < 100_000  # KiB
