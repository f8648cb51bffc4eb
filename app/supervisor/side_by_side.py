"""Runs in the master and the worker: do several things that block at the same time, a thread each."""

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

Result = TypeVar("Result")


def side_by_side(calls: Iterable[Callable[[], Result]]) -> list[Result | Exception]:
    """Make all calls at the same time and return, in their order, what each has returned or raised.

    Blocks until the last one is done. Where the system refuses a thread, its call is made by the caller's, after the
    others have begun.
    """
    done: dict[int, Result | Exception] = {}

    def make(number: int, call: Callable[[], Result]) -> None:
        try:
            done[number] = call()
        except Exception as error:  # noqa: BLE001  it is returned to the caller
            done[number] = error

    waiting = list(enumerate(calls))
    last = waiting[-1:]  # by this thread, which would only wait
    threads = []
    for one in waiting[:-1]:
        thread = threading.Thread(target=make, args=one, name="side-by-side", daemon=True)
        try:
            thread.start()
            threads.append(thread)
        except RuntimeError:  # CPython's only sign of EAGAIN from pthread_create(3)
            last.append(one)
    for one in last:
        make(*one)
    for thread in threads:
        thread.join()
    return [done[number] for number, _call in waiting]
