"""Slow clients stay with nginx, and long answers flow through it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.service.nginx import HOST
from tests.service.proxied.site import TOKEN, Site, addresses

MIB = 1024 * 1024


@contextmanager
def slow_clients(site: Site, request: str, count: int) -> Iterator[list[ssl.SSLSocket]]:
    """Keep clients that have sent this much, which is not all, or that read none of their answer."""
    with ExitStack() as stack:
        clients = []
        source = next(addresses)
        for number in range(count):
            if number % 30 == 29:  # at most 32 requests at a time have one address
                source = next(addresses)
            client = stack.enter_context(site.client.connect(source))
            client.sendall(request.encode())
            clients.append(client)
        yield clients


def assert_quick(site: Site) -> None:
    """Fail unless /health and /status answer within a second, several times over."""
    for _ in range(5):
        for path in ("/health", "/status"):
            began = time.monotonic()
            assert site.client.get(path).status == 200
            assert time.monotonic() - began < 1


def test_300_clients_that_never_finish_their_headers(site: Site) -> None:
    """/health and /status answer within 1 s while 300 clients never finish their headers."""
    site.run_to_end("true")
    with slow_clients(site, f"GET /status HTTP/1.1\r\nHost: {HOST}\r\nX-Slow: ", 300) as clients:
        assert_quick(site)
        for client in (clients[0], clients[-1]):  # they have been waited for all the time
            client.sendall(b"x\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 401"


def test_clients_that_never_finish_their_body(site: Site) -> None:
    """The same holds while many clients never finish their body: no thread of the service waits for them."""
    site.run_to_end("true")
    head = (
        f"POST /start HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    )
    # Few enough from each address for nginx's limit of changes.
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(slow_clients(site, f'{head}Content-Length: 100\r\n\r\n{{"comm', 15))
        assert_quick(site)


def test_clients_that_never_read_their_answer(site: Site) -> None:
    """The same holds while more clients than the service has threads leave an answer of its usual size unread."""
    site.run_to_end(f"yes {'x' * 99} | head -c 150000")
    request = f"GET /logs HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    with slow_clients(site, request, 60):
        assert_quick(site)


def test_long_answer_is_streamed(site: Site) -> None:
    """100 MB of /logs come as the service sends them: at once, whole, and through little memory."""
    site.run_to_end(f"yes {'x' * 127} | head -c 100000000")
    before = site.nginx.resident_kib
    with site.client.exchange("GET /logs HTTP/1.1") as response:
        assert response.status == 200
        received = len(response.read(MIB))
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:  # nobody reads for a second, and what no buffer holds waits in the service
            assert_quick(site)
        while piece := response.read(4 * MIB):
            received += len(piece)
    assert received > 100_000_000
    assert site.nginx.resident_kib - before < 4096
