"""Clients that connect and say nothing, or say it slowly, hold no thread and keep nobody waiting, without a proxy."""

from __future__ import annotations

import http.client
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from app.web.heads import BODY_TIMEOUT, HEAD_TIMEOUT, MAX_HEAD
from tests.kit.calling import over
from tests.kit.processes import memory_kib
from tests.kit.requiring import require
from tests.kit.service import Service
from tests.kit.services import services_in
from tests.kit.waiting import wait_until

SILENT = 1500
SLOW = 300
HEALTH_WITHIN = 1.0
KILL_WITHIN = 2.0
TOLD_WITHIN = 0.5
BEGUN = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: "


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process open as many files as there are clients."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    require(before[1] == resource.RLIM_INFINITY or before[1] > SILENT + SLOW + 200, "a limit of 2,000 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connect(service: Service) -> socket.socket:
    """Return a connection to the service."""
    return socket.create_connection(("127.0.0.1", service.port), timeout=15.0)


@contextmanager
def crowd(service: Service, silent: int, slow: int) -> Iterator[list[socket.socket]]:
    """Hold so many connections that say nothing, and so many that go on and on with a head; offer the latter."""
    with ExitStack() as clients:
        for _ in range(silent):
            clients.enter_context(connect(service))
        speakers = [clients.enter_context(connect(service)) for _ in range(slow)]
        for speaker in speakers:
            speaker.sendall(BEGUN)
        yield speakers


def timed(service: Service, method: str, path: str) -> tuple[int, float]:
    """Call, and return the answer's status and how long it took."""
    began = time.monotonic()
    return service.call(method, path).status, time.monotonic() - began


@pytest.mark.usefixtures("many_files")
def test_a_crowd_keeps_nobody_waiting(service: Service) -> None:
    """With 1,500 silent and 300 slow clients /health takes a second at most, and a /kill two."""
    service.start("exec sleep 1000")
    with crowd(service, SILENT, SLOW) as speakers:
        for _ in range(5):
            for speaker in speakers:
                speaker.sendall(b"x")
            status, seconds = timed(service, "GET", "/health")
            assert status == 200
            assert seconds < HEALTH_WITHIN
        status, seconds = timed(service, "POST", "/kill")
        assert status == 200
        assert seconds < KILL_WITHIN


def test_a_slow_head_is_served_when_it_is_there(service: Service) -> None:
    """A head that comes in pieces is answered when its last one came, and so is what follows on the connection."""
    with connect(service) as client:
        for piece in (b"\r\nGET /hea", b"lth HTTP/1.1\r\nHost: loc", b"alhost\r\n\r", b"\nGET /status HTTP/1.1\r\n"):
            client.sendall(piece)
            time.sleep(0.05)  # so that they arrive one by one; that they do is no condition of the test
        assert client.recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: b"healthy" in client.recv(4096))
        client.sendall(b"Host: localhost\r\n\r\n")
        assert client.recv(12) in {b"HTTP/1.1 404", b"HTTP/1.1 200"}


def test_the_time_for_a_head_is_for_all_of_it(service: Service) -> None:
    """Who goes on with a head for longer than its time gets 408, however often a byte comes."""
    began = time.monotonic()
    with connect(service) as client:
        client.sendall(BEGUN)
        client.settimeout(0.3)
        received = b""
        while not received and time.monotonic() - began < HEAD_TIMEOUT + 5:
            client.sendall(b"x")
            try:
                received = client.recv(65536)
            except TimeoutError:
                continue
    assert received.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in received
    assert time.monotonic() - began >= HEAD_TIMEOUT - 1


def test_a_head_without_end_is_refused(service: Service) -> None:
    """A head beyond 32 KiB that is not over is 431 at once."""
    with connect(service) as client:
        client.sendall(BEGUN + b"x" * MAX_HEAD)
        response = over(client).response_class(client)
        response.begin()
        assert response.status == 431
        assert response.getheader("Content-Type") == "application/problem+json"
        response.close()


@pytest.mark.parametrize("before", [b"", b"\r\n", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
@pytest.mark.parametrize("hello", [b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"])
def test_a_handshake_is_refused_at_once(service: Service, before: bytes, hello: bytes) -> None:
    """Who begins to speak TLS is told at the first byte that this is plain HTTP, and has the connection closed."""
    with connect(service) as client, client.makefile("rb") as stream:
        client.sendall(before)
        if before.strip():
            assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        began = time.monotonic()
        client.sendall(hello)
        answer = stream.read()
        seconds = time.monotonic() - began
    assert b"HTTP/1.1 400 Bad Request\r\n" in answer
    assert b"This port speaks plain HTTP, not TLS: call it by http:// instead of https://." in answer
    assert seconds < TOLD_WITHIN


def test_a_client_with_tls_fails_at_once(service: Service) -> None:
    """A client that was given https:// learns at once that there is no TLS."""
    context = ssl.create_default_context()
    with connect(service) as client:
        began = time.monotonic()
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(client, server_hostname="localhost")
        assert time.monotonic() - began < TOLD_WITHIN


@pytest.mark.usefixtures("many_files")
def test_clients_that_do_not_hang_up_keep_nobody_waiting(service: Service) -> None:
    """Who was answered and stays connected delays nobody, though the service listens to it for a moment."""
    with ExitStack() as clients:
        for _ in range(40):
            client = clients.enter_context(connect(service))
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        status, seconds = timed(service, "GET", "/health")
        assert status == 200
        assert seconds < HEALTH_WITHIN


def test_a_command_gets_the_limit_of_the_operator(service: Service) -> None:
    """The worker raises its limit of descriptors for its clients; a command has what the service was started with."""
    own = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
    service.start("ulimit -Sn; ulimit -Hn")
    status = service.wait_for_exit()
    assert status["exit_code"] == 0
    shown = [str(limit) if limit != resource.RLIM_INFINITY else "unlimited" for limit in own]
    assert service.content().split() == shown
    [worker] = service.workers
    assert resource.prlimit(worker, resource.RLIMIT_NOFILE)[0] >= own[0]


TOKEN = "a-token-for-these-tests"  # noqa: S105  of these tests alone


def head_of(line: str, *fields: str) -> bytes:
    """Return a request's head."""
    return "\r\n".join((f"{line} HTTP/1.1", "Host: localhost", *fields, "", "")).encode()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a service with a token and the fewest threads, which the tests below share."""
    with services_in(tmp_path_factory.mktemp("guarded")) as services:
        yield services(settings={"LLM_SHELL_TOKEN": TOKEN, "LLM_SHELL_THREADS": "4"})


def call_guarded(service: Service, line: str) -> tuple[int, float]:
    """Call with the token on a connection of its own; return the answer's status and how long it took."""
    began = time.monotonic()
    with connect(service) as client:
        client.sendall(head_of(line, f"Authorization: Bearer {TOKEN}"))
        return next_status(client), time.monotonic() - began


def next_status(client: socket.socket) -> int:
    """Return the status of the next answer, which is read as a whole."""
    with http.client.HTTPResponse(client) as response:
        response.begin()
        response.read()
        return response.status


@pytest.mark.usefixtures("many_files")
def test_bodies_of_refused_callers_that_never_come_keep_nobody_waiting(guarded: Service) -> None:
    """With 1,500 callers without a token whose bodies never come, /health takes a second at most."""
    with ExitStack() as clients:
        for _ in range(SILENT):
            client = clients.enter_context(connect(guarded))
            client.sendall(head_of("POST /start", "Content-Type: application/json", "Content-Length: 10"))
        for _ in range(5):
            status, seconds = call_guarded(guarded, "GET /health")
            assert status == 200
            assert seconds < HEALTH_WITHIN


def test_slow_bodies_keep_nobody_waiting_and_have_an_end(guarded: Service) -> None:
    """Forty accepted callers that go on and on with a body delay nobody, and get 408 after its time."""
    fields = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    framings = ["Content-Length: 1000", "Transfer-Encoding: chunked"] * 20
    with ExitStack() as clients:
        slow = [clients.enter_context(connect(guarded)) for _ in framings]
        began = time.monotonic()
        for client, framing in zip(slow, framings, strict=True):
            client.sendall(head_of("POST /start", *fields, framing))
        while time.monotonic() - began < BODY_TIMEOUT - 1.5:
            for client in slow:
                client.sendall(b"0")
            for line, expected in (("GET /health", 200), ("POST /kill?type=SIGKILL", 404)):
                status, seconds = call_guarded(guarded, line)
                assert status == expected
                assert seconds < HEALTH_WITHIN
            time.sleep(0.2)  # the pace of slow clients
        assert {next_status(client) for client in slow} == {408}
        assert BODY_TIMEOUT - 1 < time.monotonic() - began < BODY_TIMEOUT + 3


@pytest.mark.parametrize(
    ("line", "length", "status"),
    [("POST /start", 30, 401), ("POST /start", 200_000, 401), ("GET /health", 30, 400), ("POST /nothing", 30, 401)],
)
def test_a_whole_body_that_is_not_read_leaves_the_connection_open(
    guarded: Service, line: str, length: int, status: int
) -> None:
    """After the answer to a request whose body came but was not read, the next one on the connection is answered."""
    with connect(guarded) as client:
        for _ in range(5):
            client.sendall(head_of(line, f"Content-Length: {length}") + b"x" * length)
            assert next_status(client) == status
            client.sendall(head_of("GET /health"))
            assert next_status(client) == 200


@pytest.mark.parametrize("line", ["POST /start", "GET /health", "POST /nothing"])
@pytest.mark.parametrize("framing", ["Content-Length: 2000000", "Transfer-Encoding: gzip, chunked"])
def test_the_answer_to_a_body_that_is_not_read_closes_the_connection(guarded: Service, line: str, framing: str) -> None:
    """Where a body is not waited for, the answer comes at once and says that the connection closes, and it does."""
    began = time.monotonic()
    with connect(guarded) as client, client.makefile("rb") as stream:
        client.sendall(head_of(line, framing))
        answer = stream.read()
    assert answer.startswith(b"HTTP/1.1 ")
    assert b"\r\nconnection: close\r\n" in answer.lower()
    assert time.monotonic() - began < HEALTH_WITHIN


def test_requests_that_come_together_are_answered_in_turn(guarded: Service) -> None:
    """A body, in either framing, ends where the next request on the connection begins."""
    fields = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    chunked = head_of("POST /kill", *fields, "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n"
    announced = head_of("POST /kill", *fields, "Content-Length: 2") + b"{}"
    with connect(guarded) as client, client.makefile("rb") as stream:
        client.sendall((chunked + announced) * 3 + head_of("GET /health", "Connection: close"))
        answers = stream.read()
    assert answers.count(b"HTTP/1.1 404 ") == 6
    assert answers.count(b"HTTP/1.1 200 ") == 1


def test_a_body_of_many_pieces_after_100_continue(guarded: Service) -> None:
    """A large body that waits for 100 Continue is told so once, and read whole."""
    body = b"{" + b" " * 700_000 + b"}"
    fields = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json", "Expect: 100-continue")
    with connect(guarded) as client:
        client.sendall(head_of("POST /kill", *fields, f"Content-Length: {len(body)}"))
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert client.recv(12) == b"HTTP/1.1 404"  # nothing to kill: of a body cut short it would be 400


@pytest.mark.parametrize("path", ["/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/openapi.json", "/health"])
def test_answers_that_nobody_takes_keep_nobody_waiting(guarded: Service, path: str) -> None:
    """Twenty-five clients that ask and ask, and take no answer, delay nobody."""
    with ExitStack() as clients:
        for _ in range(25):
            client = clients.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.settimeout(15.0)
            client.connect(("127.0.0.1", guarded.port))
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.send(head_of(f"GET {path}") * 600)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            status, seconds = call_guarded(guarded, "GET /health")
            assert status == 200
            assert seconds < HEALTH_WITHIN


def worker_memory(service: Service) -> int:
    """Return the worker's memory in KiB."""
    [worker] = service.workers
    return memory_kib(worker)


@pytest.mark.usefixtures("many_files")
def test_what_came_in_part_is_bounded_in_memory(guarded: Service) -> None:
    """Behind a crowd that says nothing, sixty bodies of nearly a megabyte take about 32 MiB; the oldest are told."""
    before = worker_memory(guarded)
    part = head_of("POST /start", "Content-Length: 1000000") + b"x" * 990_000
    with ExitStack() as clients, crowd(guarded, 500, 0):
        senders = [clients.enter_context(connect(guarded)) for _ in range(60)]
        for sender in senders:
            sender.sendall(part)
        assert {next_status(sender) for sender in senders[:20]} == {503}
        assert call_guarded(guarded, "GET /health")[0] == 200
        assert worker_memory(guarded) - before < 50_000


@pytest.mark.usefixtures("many_files")
def test_heads_in_part_are_bounded_in_memory(guarded: Service) -> None:
    """Behind a crowd that says nothing, heads that are nearly as long as they may be take no more than bodies do."""
    before = worker_memory(guarded)
    with crowd(guarded, 500, 1400) as speakers:
        for speaker in speakers:
            speaker.sendall(b"x" * 31_000)
        assert call_guarded(guarded, "GET /health")[0] == 200
        assert next_status(speakers[0]) == 503
        assert worker_memory(guarded) - before < 50_000
