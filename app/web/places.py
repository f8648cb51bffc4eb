"""Runs in the worker: limit operations and long answers, so that reads and SIGKILL always have a thread."""

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import BoundedSemaphore, Lock

from flask import Flask, current_app, request
from werkzeug.exceptions import TooManyRequests

from app.runs.spec import DEFAULT_NAME
from app.web.kinds import ALL, FORCED, USUAL, Kind

# Seconds for one piece of a long answer to be sent: a client that stops reading loses its place.
LONG_ANSWER_SECONDS = 30.0
MANY_LONG_ANSWERS = "Too many long answers are being sent already; ask for fewer lines, or try again in a second."
MANY_KILLS_OF_ALL = (
    "Another kill of all processes is under way: wait for its answer, or call POST /kill?all=true&type=SIGKILL, which "
    "has a place of its own. GET /processes shows the state."
)
MANY_FORCED = "Another kill with SIGKILL is under way already: wait for its answer."
_KEY = "places-for-operations"


class _Places:
    def __init__(self, threads: int) -> None:
        self.long_answers = BoundedSemaphore(max(1, threads // 4))
        self._counting = Lock()
        # By kind and process; of one without any there is no entry.
        self._operations: Counter[tuple[Kind, str | None]] = Counter()

    def take(self, name: str | None, kinds: tuple[Kind, ...]) -> Kind | None:
        """Take a place of the first of these kinds that has one left for this process."""
        with self._counting:
            kind = next((kind for kind in kinds if self._operations[kind, name] < kind.most), None)
            if kind is not None:
                self._operations[kind, name] += 1
            return kind

    def give_back(self, name: str | None, kind: Kind) -> None:
        with self._counting:
            self._operations[kind, name] -= 1
            if not self._operations[kind, name]:
                del self._operations[kind, name]


def register(app: Flask, threads: int) -> None:
    """Give the application its places; for those of operations, the worker has threads beyond the settings'."""
    app.extensions[_KEY] = _Places(threads)


def operation(name: str) -> AbstractContextManager[None]:
    """Take one of a process's places of /start, /kill and /restart, or raise a 429 before anything is done."""
    return _taken(name, (USUAL,), many_operations(name))


def forced_kill(name: str) -> AbstractContextManager[None]:
    """Take a place as any operation does or, where there is none, the one reserved for SIGKILL."""
    return _taken(name, (USUAL, FORCED), MANY_FORCED)


def kill_all() -> AbstractContextManager[None]:
    """Take the place of a kill of all processes, which needs none of theirs."""
    return _taken(None, (ALL,), MANY_KILLS_OF_ALL)


def forced_kill_all() -> AbstractContextManager[None]:
    """Take that place or, where it is taken, the one reserved for SIGKILL."""
    return _taken(None, (ALL, FORCED), MANY_FORCED)


def many_operations(name: str) -> str:
    """Return why an operation on this process has no place, and what has."""
    of, query = (f" on {name}", f"name={name}") if name != DEFAULT_NAME else ("", "")
    forced = "&".join(filter(None, (query, "type=SIGKILL")))
    return (
        f"Two other operations{of} are under way: wait for their answers, or call POST /kill?{forced}, which has a "
        f"place of its own. GET /status{query and '?'}{query} shows the state."
    )


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
def _taken(name: str | None, kinds: tuple[Kind, ...], refusal: str) -> Iterator[None]:
    places = _places()
    kind = places.take(name, kinds)
    if kind is None:
        raise TooManyRequests(refusal, retry_after=1)
    try:
        yield
    finally:
        places.give_back(name, kind)
