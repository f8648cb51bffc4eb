"""Threads that are there before they are needed, and further ones only while all are busy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any

import pytest

from app.server.threads import Threads
from tests.kit.waiting import wait_until


@contextmanager
def refused(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the system give no thread."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as scarce:
        scarce.setattr(threading.Thread, "start", refuse)
        yield


@contextmanager
def held(threads: Threads, number: int) -> Iterator[list[Future[Any]]]:
    """Keep this many calls under way, or waiting for a thread."""
    leave = threading.Event()
    try:
        yield [threads.submit(leave.wait, 10) for _ in range(number)]
    finally:
        leave.set()


def all_run(calls: list[Future[Any]]) -> bool:
    """Tell whether all of these calls have a thread."""
    return all(call.running() for call in calls)


def threads_of_pools() -> list[threading.Thread]:
    """Return the threads of pools."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("request-")]


@pytest.fixture
def pool() -> Iterator[Callable[..., Threads]]:
    """Return a function that makes a pool, which ends with the test and leaves no thread."""
    made: list[Threads] = []

    def make(*options: Any, **more: Any) -> Threads:
        made.append(Threads(*options, **more))
        return made[-1]

    assert not threads_of_pools()
    yield make
    for threads in made:
        threads.shutdown()
    assert not threads_of_pools()


def test_the_first_are_made_at_once_and_work_side_by_side(pool: Callable[..., Threads]) -> None:
    """As many calls as there may be threads run at the same time; what is beyond that waits, and all are done."""
    threads = pool(3, 3)
    assert len(threads_of_pools()) == 3
    together = threading.Barrier(4)
    calls = [threads.submit(together.wait, 10) for _ in range(3)]
    late = threads.submit(lambda: "late")
    assert not late.done()
    together.wait(10)
    assert len({call.result(10) for call in calls}) == 3
    assert late.result(10) == "late"


def test_what_a_call_raises_is_its_result(pool: Callable[..., Threads]) -> None:
    """A call that fails leaves its thread for the next one."""
    threads = pool(1, 1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 // 0).result(10)
    assert threads.submit(threading.get_ident).result(10) != threading.get_ident()


def test_without_any_the_caller_does_it(pool: Callable[..., Threads], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no thread a call is run by who asks for it, and threads are made as soon as it does."""
    with refused(monkeypatch):
        threads = pool(2, 4)
        assert threads.submit(threading.get_ident).result(0) == threading.get_ident()
    threads.fill()
    assert len(threads_of_pools()) == 2
    assert threads.submit(threading.get_ident).result(10) != threading.get_ident()


def test_a_call_that_finds_none_idle_gets_a_further_one(pool: Callable[..., Threads]) -> None:
    """However many calls are under way, the next one runs at once, up to the most there may be."""
    threads = pool(2, 60)
    with held(threads, 59):
        for _ in range(20):
            assert threads.submit(lambda: "looked").result(10) == "looked"
        wait_until(lambda: len(threads_of_pools()) == 60)
        with held(threads, 1) as [last]:
            wait_until(last.running)
            late = threads.submit(lambda: "late")
            assert len(threads_of_pools()) == 60
            assert not late.running()
        assert late.result(10) == "late"


def test_none_is_made_while_one_is_idle(pool: Callable[..., Threads]) -> None:
    """Calls one after another, and as many at once as there are first ones, need no further thread."""
    threads = pool(3, 60)
    for _ in range(50):
        threads.submit(int).result(10)
        wait_until(lambda: len(threads._first.idle) == 3)
        together = threading.Barrier(3)
        for call in [threads.submit(together.wait, 10) for _ in range(3)]:
            call.result(10)
        wait_until(lambda: len(threads._first.idle) == 3)
    assert len(threads_of_pools()) == 3


def test_further_ones_end_after_a_while_and_the_first_stay(pool: Callable[..., Threads]) -> None:
    """What was made for a rush is gone when that is over, and the pool can grow again."""
    threads = pool(2, 40, patience=0.05)
    for _ in range(3):
        with held(threads, 30) as calls:
            wait_until(partial(all_run, calls))
            assert len(threads_of_pools()) >= 30
        wait_until(lambda: len(threads_of_pools()) == 2)
    assert threads.submit(lambda: "there").result(10) == "there"


def test_no_call_is_lost_to_a_thread_that_ends(pool: Callable[..., Threads]) -> None:
    """Calls that come at the moment when further threads give up waiting are all done."""
    threads = pool(1, 4, patience=0.0005)
    done: SimpleQueue[int] = SimpleQueue()
    tick = threading.Event()
    for number in range(1500):
        calls = [threads.submit(done.put, number) for _ in range(3)]
        tick.wait(0.0004 + number % 5 * 0.0001)
        for call in calls:
            call.result(10)
    assert done.qsize() == 4500


def test_where_a_further_one_is_refused_the_call_waits(
    pool: Callable[..., Threads], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call for which the system gives no thread is done by the next that is idle, or that can be made."""
    threads = pool(1, 8)
    with refused(monkeypatch), held(threads, 1):
        waiting = threads.submit(lambda: "done")
        threads.fill()
        assert not waiting.done()
    assert waiting.result(10) == "done"

    with held(threads, 1):
        with refused(monkeypatch):
            calls = [threads.submit(lambda: "done") for _ in range(20)]
            assert not any(call.done() for call in calls)
        threads.fill()
        assert {call.result(10) for call in calls} == {"done"}


def test_further_ones_end_with_the_pool(pool: Callable[..., Threads]) -> None:
    """At the shutdown idle threads exit at once, busy ones after their call, and what waits is still done."""
    threads = pool(1, 3)
    with held(threads, 5) as calls:
        threads.shutdown(wait=False)
        assert len(threads_of_pools()) == 3
    assert all(call.result(10) for call in calls)
