"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import pytest

Value = TypeVar("Value")


def wait_until(predicate: Callable[[], Value | Literal[False] | None], timeout: float = 10.0) -> Value:
    """Call `predicate` until it returns something true, and return that; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() > deadline:
            pytest.fail(f"still {value!r} after {timeout} s: {getattr(predicate, '__name__', predicate)}")
        time.sleep(0.01)
    return value


def ended(get_status: Callable[[], dict[str, Any]], timeout: float = 10.0) -> dict[str, Any]:
    """Wait until the process whose status `get_status` returns has ended, and return that status.

    Its output may still be open: `Service.wait_for_exit` waits for the end of that, too.
    """
    return wait_until(lambda: (status := get_status())["status"] != "running" and status, timeout)
