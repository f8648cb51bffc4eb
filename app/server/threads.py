"""The threads that answer requests: all made at once, so that no request ever needs one more. Runs in the worker."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, NamedTuple


class _Task(NamedTuple):
    future: "Future[Any]"
    call: Callable[..., Any]
    arguments: tuple[Any, ...]

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self.call(*self.arguments))
        except BaseException as error:  # noqa: BLE001  the future hands on whatever it is, as concurrent.futures does
            self.future.set_exception(error)


class Threads:
    """Run calls in up to `size` threads. As many as the system gives are made at once, and the rest with `fill`.

    Without any, a call is run by who asks for it: a slow service can still be told to end what eats its threads.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._changing = threading.Lock()
        self._threads: list[threading.Thread] = []
        # The one that became idle last is the next to work: what it needs is still in the processor's caches.
        self._idle: list[SimpleQueue[_Task | None]] = []
        self._waiting: deque[_Task] = deque()
        self._closed = False
        self.fill()

    def fill(self) -> None:
        """Make the threads that are missing, as far as the system gives them."""
        while len(self._threads) < self._size:
            thread = threading.Thread(target=self._work, name=f"request-{len(self._threads)}")
            try:
                thread.start()
            except RuntimeError:  # all that CPython tells of pthread_create(3)'s EAGAIN
                return
            self._threads.append(thread)

    def submit(self, call: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Have a thread make this call; return what its result will be in."""
        task = _Task(Future(), call, arguments)
        if not self._threads:
            task.run()
            return task.future
        with self._changing:
            if self._idle:
                self._idle.pop().put(task)
            else:
                self._waiting.append(task)
        return task.future

    def shutdown(self, wait: bool = True) -> None:
        """Let every thread end once nothing waits for it; `wait` for that."""
        with self._changing:
            self._closed = True
            for orders in self._idle:
                orders.put(None)
            self._idle.clear()
        if wait:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        orders: SimpleQueue[_Task | None] = SimpleQueue()
        while (task := self._next(orders)) is not None:
            task.run()
            del task  # or the last request would be kept until the next one

    def _next(self, orders: "SimpleQueue[_Task | None]") -> _Task | None:
        with self._changing:
            if self._waiting:
                return self._waiting.popleft()
            if self._closed:
                return None
            self._idle.append(orders)
        return orders.get()
