"""Threads that are there before they are needed."""

import threading

import pytest

from app.server.threads import Threads


def test_all_are_made_at_once_and_work_side_by_side() -> None:
    """As many calls as there are threads run at the same time; what is beyond that waits, and all are done."""
    threads = Threads(3)
    together = threading.Barrier(4)
    calls = [threads.submit(together.wait, 10) for _ in range(3)]
    late = threads.submit(lambda: "late")
    assert not late.done()
    together.wait(10)
    assert sorted(call.result(10) for call in calls) == [0, 1, 2] or len({call.result(10) for call in calls}) == 3
    assert late.result(10) == "late"
    threads.shutdown()


def test_what_a_call_raises_is_its_result() -> None:
    """A call that fails leaves its thread for the next one."""
    threads = Threads(1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 // 0).result(10)
    assert threads.submit(threading.get_ident).result(10) != threading.get_ident()
    threads.shutdown()


def test_without_any_the_caller_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no thread a call is run by who asks for it, and threads are made as soon as it does."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as scarce:
        scarce.setattr(threading.Thread, "start", refuse)
        threads = Threads(2)
        assert threads.submit(threading.get_ident).result(0) == threading.get_ident()
    threads.fill()
    assert threads.submit(threading.get_ident).result(10) != threading.get_ident()
    threads.shutdown()
