"""Places for what waits, operations and long answers: a look at the process, and SIGKILL, always have a thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from flask import Flask, current_app, request
from werkzeug.exceptions import TooManyRequests

# One that works and one that joins it or is told that it must wait.
OPERATIONS = 2
# Seconds for one piece of a long answer to get through: a client that has stopped gives up its place.
LONG_ANSWER_SECONDS = 30.0
_KEY = "places-for-operations"


class _Places:
    def __init__(self, threads: int) -> None:
        self.long_answers = BoundedSemaphore(max(1, threads // 4))
        self.usual = BoundedSemaphore(OPERATIONS)
        self.last = BoundedSemaphore(1)


def register(app: Flask, threads: int) -> None:
    """Give the application its places; the worker has as many threads beyond those of the settings."""
    app.extensions[_KEY] = _Places(threads)


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


@contextmanager
def long_answer() -> Iterator[None]:
    """Take a place to send more than the kernel takes at once, or raise a 429; hold it until all is sent."""
    places = _places().long_answers
    if not places.acquire(blocking=False):
        raise TooManyRequests(
            "Too many long answers are being sent already; ask for fewer lines, or try again in a second.",
            retry_after=1,
        )
    try:
        if (connection := request.environ.get("gunicorn.socket")) is not None:
            connection.settimeout(LONG_ANSWER_SECONDS)
        yield
    finally:
        places.release()


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
