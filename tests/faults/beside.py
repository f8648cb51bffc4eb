"""A second process beside the one that a fault names: it stays untouched, to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.kit.actors import keepers_of
from tests.kit.counter import assert_whole, counter
from tests.kit.service import Service
from tests.kit.waiting import wait_until

NAME = "beside"


@contextmanager
def untouched(service: Service) -> Iterator[None]:
    """Have a counter count under another name meanwhile, and check that nothing has happened to it."""
    before = service.start(counter(interval=0.02), name=NAME)
    wait_until(lambda: "\n1\n" in service.content(f"?name={NAME}"))
    service.others = {before["process_pid"], *keepers_of(before)}
    yield
    service.others = set()
    counted = len(service.content(f"?name={NAME}"))
    wait_until(lambda: len(service.content(f"?name={NAME}")) > counted)
    after = _status(service)
    assert after == {**before, "reason": after["reason"]}
    assert after["reason"] is None
    status, killed = service.post(f"/kill?name={NAME}")
    assert (status, killed["signal"], killed["survivors"]) == (200, "SIGTERM", [])
    assert_whole(service.content(f"?name={NAME}"))


def _status(service: Service) -> dict[str, Any]:
    status, body = service.get(f"/status?name={NAME}")
    assert status == 200, body
    return dict(body)
