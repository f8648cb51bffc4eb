"""How long nginx waits for the service: for a slow kill as long as it takes, for anything else not long."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from tests.kit.places import PROGRAMS
from tests.kit.waiting import wait_until
from tests.service.proxied.site import Site, addresses, site_in


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a site whose usual patience is a second instead of a minute."""
    with site_in(tmp_path_factory.mktemp("site"), {"proxy_read_timeout    60s": "proxy_read_timeout 1s"}) as site:
        yield site


@pytest.mark.parametrize("prefix", ["", "/shell"])
@pytest.mark.parametrize("call", ["kill", "restart"])
def test_slow_end_is_waited_for(site: Site, prefix: str, call: str) -> None:
    """A kill and a restart that take longer than other calls may are answered when they are done."""
    site.client.post("/start", {"command": f"exec {sys.executable} {PROGRAMS / 'stubborn.py'}"}, source=next(addresses))
    wait_until(lambda: "ready" in site.client.get("/logs").json["content"])
    assert site.client.post(f"{prefix}/{call}?timeout=1.5", source=next(addresses)).status == 200


def test_service_that_hangs(site: Site) -> None:
    """A service that does not answer is a 504 in the API's form that says what to look at."""
    (worker,) = site.service.workers
    os.kill(worker, signal.SIGSTOP)
    try:
        reply = site.client.get("/health", source=next(addresses))
    finally:
        os.kill(worker, signal.SIGCONT)
    assert (reply.status, reply.json["title"]) == (504, "Gateway Timeout")
    assert "GET /status" in reply.json["detail"]
