"""Clients that connect and say nothing, or say it slowly, hold no thread and keep nobody waiting, without a proxy."""

from __future__ import annotations

import resource
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from app.heads import HEAD_TIMEOUT, MAX_HEAD
from tests.service.calling import over
from tests.service.harness import Service
from tests.support import require, wait_until

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
