"""The places of operations: two a process, one more for SIGKILL, and those of a kill of all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import partial

import pytest
from flask import Flask
from werkzeug.exceptions import TooManyRequests

from app.web import places

Taken = AbstractContextManager[None]


@pytest.fixture
def app() -> Iterator[Flask]:
    """Return an application with places, in whose context the test runs."""
    app = Flask(__name__)
    places.register(app, threads=4)
    with app.app_context():
        yield app


def most_of(take: Callable[[], Taken]) -> int:
    """Return how many places can be taken at once."""
    with ExitStack() as held:
        for count in range(100):
            try:
                held.enter_context(take())
            except TooManyRequests:
                return count
    return 100


def refusal_of(take: Callable[[], Taken]) -> str:
    """Return how a place is refused."""
    with pytest.raises(TooManyRequests) as caught, take():
        pass
    assert caught.value.retry_after == 1
    return str(caught.value.description)


@pytest.mark.usefixtures("app")
def test_two_operations_of_each_process_and_a_forced_kill() -> None:
    """A process has two places and one for SIGKILL, however many others have all of theirs taken."""
    with ExitStack() as held:
        for number in range(20):
            name = f"process-{number}"
            assert most_of(partial(places.operation, name)) == 2
            assert most_of(partial(places.forced_kill, name)) == 3
            held.enter_context(places.operation(name))
            held.enter_context(places.operation(name))
            assert most_of(partial(places.operation, name)) == 0
            assert most_of(partial(places.forced_kill, name)) == 1
            held.enter_context(places.forced_kill(name))
            assert most_of(partial(places.forced_kill, name)) == 0


@pytest.mark.usefixtures("app")
def test_a_kill_of_all_has_its_own() -> None:
    """One kill of all processes and one with SIGKILL have places, which are none of any process's."""
    assert most_of(places.kill_all) == 1
    assert most_of(places.forced_kill_all) == 2
    with places.operation("web"), places.operation("web"), places.forced_kill("web"):
        assert most_of(places.kill_all) == 1
    with places.kill_all(), places.forced_kill_all():
        assert most_of(places.forced_kill_all) == 0
        assert most_of(partial(places.forced_kill, "web")) == 3


@pytest.mark.usefixtures("app")
def test_refusals_name_what_has_a_place() -> None:
    """Who is refused is told which process is busy, unless it is the one that calls without a name mean."""
    for name in ("default", "web"):
        with places.operation(name), places.operation(name):
            told = refusal_of(partial(places.operation, name))
            assert told == places.many_operations(name)
            with places.forced_kill(name):
                assert refusal_of(partial(places.forced_kill, name)) == places.MANY_FORCED
    assert places.many_operations("default") == (
        "Two other operations are under way: wait for their answers, or call POST /kill?type=SIGKILL, which has a "
        "place of its own. GET /status shows the state."
    )
    assert places.many_operations("web") == (
        "Two other operations on web are under way: wait for their answers, or call POST /kill?name=web&type=SIGKILL, "
        "which has a place of its own. GET /status?name=web shows the state."
    )
    with places.kill_all():
        assert refusal_of(places.kill_all) == places.MANY_KILLS_OF_ALL
        with places.forced_kill_all():
            assert refusal_of(places.forced_kill_all) == places.MANY_FORCED


def test_places_are_given_back(app: Flask) -> None:
    """A place is free again after an operation that failed, and of a process without any nothing is kept."""
    for number in range(1000):
        for take in (places.operation, places.forced_kill):
            with pytest.raises(ZeroDivisionError), take(f"process-{number}"):
                _ = 1 // 0
    assert most_of(partial(places.operation, "process-0")) == 2
    [kept] = [value for value in app.extensions.values() if hasattr(value, "long_answers")]
    assert len(kept._operations) == 0


def test_many_callers_at_once(app: Flask) -> None:
    """Of twenty callers at the same moment two get a place, each time."""
    callers, rounds = 20, 50
    together = threading.Barrier(callers, timeout=10)

    def call() -> int:
        got = 0
        with app.app_context():
            for _ in range(rounds):
                together.wait()
                with ExitStack() as held:
                    try:
                        held.enter_context(places.operation("web"))
                        got += 1
                    except TooManyRequests:
                        pass
                    together.wait()
        return got

    with ThreadPoolExecutor(callers) as pool:
        assert sum(future.result() for future in [pool.submit(call) for _ in range(callers)]) == 2 * rounds
