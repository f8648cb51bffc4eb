"""Runs in the worker: a pool whose threads are all created at the start, so that no request ever needs a new one."""

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
        except BaseException as error:  # noqa: BLE001  the future raises it to the caller, as in concurrent.futures
            self.future.set_exception(error)


class Threads:
    """Run calls in up to `size` threads. As many as the system allows are created at once, and the rest by `fill`.

    Without any, `submit` runs the call itself, so that a /kill can still end the run that uses up the limit.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._changing = threading.Lock()
        self._threads: list[threading.Thread] = []
        # Last in, first out: the last thread's data is still in the processor's caches.
        self._idle: list[SimpleQueue[_Task | None]] = []
        self._waiting: deque[_Task] = deque()
        self._closed = False
        self.fill()

    def fill(self) -> None:
        """Create the threads that are missing, as far as the system allows."""
        while len(self._threads) < self._size:
            thread = threading.Thread(target=self._work, name=f"request-{len(self._threads)}")
            try:
                thread.start()
            except RuntimeError:  # CPython's only sign of EAGAIN from pthread_create(3)
                return
            self._threads.append(thread)

    def submit(self, call: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Have a thread make this call; return the future of its result."""
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
        """Let every thread exit once no call waits; `wait` until they have."""
        with self._changing:
            self._closed = True
            for tasks in self._idle:
                tasks.put(None)
            self._idle.clear()
        if wait:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        tasks: SimpleQueue[_Task | None] = SimpleQueue()
        while (task := self._next(tasks)) is not None:
            task.run()
            del task  # or the last request would stay referenced until the next one

    def _next(self, tasks: "SimpleQueue[_Task | None]") -> _Task | None:
        with self._changing:
            if self._waiting:
                return self._waiting.popleft()
            if self._closed:
                return None
            self._idle.append(tasks)
        return tasks.get()
