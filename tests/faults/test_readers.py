"""Readers that are gone, or that stop reading, hold up nobody else."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kit.service import Service
from tests.kit.services import services_in
from tests.kit.waiting import wait_until

THREADS = 4
READERS = 3 * THREADS
LINES = 100_000
TEXT = "x" * 200
# One answer of about 20 MB; the other just short of what counts as a long one.
LONG, SHORT = "/logs", "/logs?lines=600"


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a service with few threads whose current run has printed a lot and goes on."""
    with services_in(tmp_path_factory.mktemp("readers")) as services:
        service = services(settings={"LLM_SHELL_THREADS": str(THREADS)})
        start_again(service)
        yield service


def start_again(service: Service) -> None:
    """Start the command that prints a lot, and wait until it has."""
    service.start(f"yes {TEXT} | head -n {LINES}; exec sleep 1000", replace=True)
    wait_until(lambda: service.get("/logs?lines=1").body["total_lines"] == LINES)


def begin_to_read(service: Service, path: str) -> socket.socket:
    """Ask for a log like a client behind a slow network, and read nothing of the answer yet.

    Small segments keep the kernel from taking a megabyte at once for the other end, as it would on loopback.
    """
    client = socket.socket()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(10)
    client.connect(("127.0.0.1", service.port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return client


def assert_quick(service: Service) -> None:
    """Fail unless every call that people wait for is answered within a second."""
    for method, path in (("GET", "/health"), ("GET", "/status"), ("GET", "/logs?lines=1"), ("POST", "/kill")):
        began = time.monotonic()
        assert service.call(method, path, timeout=5).status == 200, path
        assert time.monotonic() - began < 1, path


@pytest.mark.parametrize("path", [LONG, SHORT])
def test_stalled_readers_leave_threads_for_others(long_log: Service, path: str) -> None:
    """With three times as many stalled readers as threads, reads, /status, /health and /kill are answered at once."""
    with ExitStack() as readers:
        for _ in range(READERS):
            client = readers.enter_context(begin_to_read(long_log, path))
            client.recv(1)  # it has begun to be answered
        assert_quick(long_log)
    start_again(long_log)


def test_a_client_that_is_gone_frees_its_place_at_once(long_log: Service) -> None:
    """When clients hang up in the middle of long answers, the one place that four threads have is free for the next."""

    def begins_and_is_gone() -> bool:
        with begin_to_read(long_log, LONG) as client:
            return client.recv(12) == b"HTTP/1.1 200"

    for _ in range(READERS):
        wait_until(begins_and_is_gone, 1.0)
    answer = wait_until(lambda: answer if (answer := long_log.get(LONG)).status == 200 else None, 1.0)
    assert len(answer.body["content"]) == LINES * (len(TEXT) + 1) - 1
