"""Runs in the worker: limit operations and long answers, so that reads and SIGKILL always have a thread."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import BoundedSemaphore

from flask import Flask, current_app, request
from werkzeug.exceptions import TooManyRequests

# One that is under way, and one that joins it or is refused.
OPERATIONS = 2
# Seconds for one piece of a long answer to be sent: a client that stops reading loses its place.
LONG_ANSWER_SECONDS = 30.0
MANY_LONG_ANSWERS = "Too many long answers are being sent already; ask for fewer lines, or try again in a second."
MANY_OPERATIONS = (
    "Two other operations are under way: wait for their answers, or call POST /kill?type=SIGKILL, which has a place of "
    "its own. GET /status shows the state."
)
_KEY = "places-for-operations"


class _Places:
    def __init__(self, threads: int) -> None:
        self.long_answers = BoundedSemaphore(max(1, threads // 4))
        self.usual = BoundedSemaphore(OPERATIONS)
        self.last = BoundedSemaphore(1)


def register(app: Flask, threads: int) -> None:
    """Give the application its places; for those of operations, the worker has threads beyond the settings'."""
    app.extensions[_KEY] = _Places(threads)


def operation() -> AbstractContextManager[None]:
    """Take one of the places of /start, /kill and /restart, or raise a 429 before anything is done."""
    return _taken(_places().usual)


def forced_kill() -> AbstractContextManager[None]:
    """Take a place as any operation does or, where there is none, the one reserved for SIGKILL."""
    return _taken(_places().usual, _places().last)


@contextmanager
def long_answer() -> Iterator[None]:
    """Take a place to send more than the send buffer holds, or raise a 429; hold it until all is sent."""
    places = _places().long_answers
    if not places.acquire(blocking=False):
        raise TooManyRequests(MANY_LONG_ANSWERS, retry_after=1)
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
def _taken(*places: BoundedSemaphore) -> Iterator[None]:
    place = next((place for place in places if place.acquire(blocking=False)), None)
    if place is None:
        raise TooManyRequests(MANY_OPERATIONS, retry_after=1)
    try:
        yield
    finally:
        place.release()
