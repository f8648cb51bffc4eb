"""Places for operations that wait, so that there is always a thread for a look at the process, and for SIGKILL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from flask import Flask, current_app
from werkzeug.exceptions import TooManyRequests

# One that works and one that joins it or is told that it must wait.
OPERATIONS = 2
_KEY = "places-for-operations"


class _Places:
    def __init__(self) -> None:
        self.usual = BoundedSemaphore(OPERATIONS)
        self.last = BoundedSemaphore(1)


def register(app: Flask) -> None:
    """Give the application its places; the worker has as many threads beyond those of the settings."""
    app.extensions[_KEY] = _Places()


@contextmanager
def operation() -> Iterator[None]:
    """Take one of the places of /start, /kill and /restart, or raise a 429 before anything is done."""
    with _taken(_places().usual):
        yield


@contextmanager
def last_resort() -> Iterator[None]:
    """Take a place as any operation does or, where there is none, the one that is kept for SIGKILL."""
    places = _places()
    if places.usual.acquire(blocking=False):
        try:
            yield
        finally:
            places.usual.release()
    else:
        with _taken(places.last):
            yield


def _places() -> _Places:
    places: _Places = current_app.extensions[_KEY]
    return places


@contextmanager
def _taken(place: BoundedSemaphore) -> Iterator[None]:
    if not place.acquire(blocking=False):
        raise TooManyRequests(
            "Two other operations are under way: wait for their answers, or call POST /kill?type=SIGKILL, which gets "
            "through. GET /status tells how things are.",
            retry_after=1,
        )
    try:
        yield
    finally:
        place.release()
