"""Neither a reload of nginx nor one of the service costs a request."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.kit.actors import reload
from tests.kit.waiting import wait_until
from tests.service.proxied.site import Site, addresses


@contextmanager
def load(site: Site) -> Iterator[list[int]]:
    """Call without a pause, reads and changes, on a connection each; whatever is not answered well fails the test."""
    answered: list[int] = []
    faults: list[str] = []
    enough = threading.Event()

    def keep_calling(call: Callable[[], Any], expected: int) -> None:
        while not enough.is_set():
            try:
                status = call().status
            except (OSError, http.client.HTTPException) as error:
                faults.append(repr(error))
                continue
            if status == expected:
                answered.append(status)
            else:
                faults.append(f"{status} instead of {expected}")

    calls = [
        (lambda: site.client.get("/health"), 200),
        (lambda: site.client.get("/logs?lines=10"), 200),
        (lambda: site.client.post("/start", {"command": "true"}, source=next(addresses)), 409),
    ]
    threads = [threading.Thread(target=keep_calling, args=call) for call in calls]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(answered) > 20)
        yield answered
        reached = len(answered)
        wait_until(lambda: len(answered) > reached + 20)
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert not faults


def test_reload_of_nginx_under_load(site: Site) -> None:
    """While nginx reloads, twice, every request is answered."""
    site.client.post("/start", {"command": "exec sleep 300"})
    with load(site):
        for _ in range(2):
            site.nginx.reload()


def test_reload_of_the_service_under_load(site: Site) -> None:
    """While gunicorn reloads, twice, every request is answered, and the process is the same all along."""
    pid = site.client.post("/start", {"command": "exec sleep 300"}).json["process_pid"]
    with load(site):
        for _ in range(2):
            reload(site.service)
    assert site.client.get("/status").json["process_pid"] == pid
    assert site.socket.is_socket()
