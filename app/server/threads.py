"""Runs in the worker: a pool with threads before they are needed, which makes more only while all are busy."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

# Seconds without a call after which a thread beyond the first ones ends.
PATIENCE = 60.0
_numbers = count()


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


_Tasks = SimpleQueue[_Task | None]


class _Group:
    """Hold threads that wait for calls without end, or only for `patience` seconds; and which of them are idle."""

    def __init__(self, size: int, patience: float | None) -> None:
        self.size = size
        self.patience = patience
        self.threads: set[threading.Thread] = set()
        # Last in, first out: the last thread's data is still in the processor's caches.
        self.idle: list[_Tasks] = []

    def add(self, work: "Callable[[_Group, _Tasks], None]", task: _Task | None) -> bool:
        """Create a thread that has this task or is idle, unless all are there or the system refuses."""
        if len(self.threads) >= self.size:
            return False
        tasks: _Tasks = SimpleQueue()
        thread = threading.Thread(target=work, args=[self, tasks], name=f"request-{next(_numbers)}")
        try:
            thread.start()
        except RuntimeError:  # CPython's only sign of EAGAIN from pthread_create(3)
            return False
        self.threads.add(thread)
        if task is None:
            self.idle.append(tasks)
        else:
            tasks.put(task)
        return True


class Threads:
    """Run calls in `first` threads, created at once, and in up to `most` while calls find none idle.

    Those that the system refuses at the start are created by `fill`. Where it refuses a further one the call waits for
    a thread. Without any, `submit` runs the call itself, so that a /kill can still end the run that uses up the limit.
    """

    def __init__(self, first: int, most: int, patience: float = PATIENCE) -> None:
        self._changing = threading.Lock()
        self._first = _Group(first, None)
        self._further = _Group(most - first, patience)
        self._waiting: deque[_Task] = deque()
        self._closed = False
        self.fill()

    def fill(self) -> None:
        """Create the threads that are missing, as far as the system allows, and further ones for calls that wait."""
        if len(self._first.threads) == self._first.size and not self._waiting:
            return
        with self._changing:
            while not self._closed and self._grow(self._first):
                pass
            while self._waiting and self._grow(self._further):
                pass

    def submit(self, call: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Have a thread make this call; return the future of its result."""
        task = _Task(Future(), call, arguments)
        with self._changing:
            if idle := self._first.idle or self._further.idle:
                idle.pop().put(task)
                return task.future
            self._waiting.append(task)
            if self._grow(self._first) or self._grow(self._further) or self._first.threads or self._further.threads:
                return task.future
            self._waiting.pop()
        task.run()
        return task.future

    def shutdown(self, wait: bool = True) -> None:
        """Let every thread exit once no call waits; `wait` until they have."""
        with self._changing:
            self._closed = True
            for group in (self._first, self._further):
                for tasks in group.idle:
                    tasks.put(None)
                group.idle.clear()
            threads = self._first.threads | self._further.threads
        if wait:
            for thread in threads:
                thread.join()

    def _grow(self, group: _Group) -> bool:
        """Add a thread, for the call that has waited longest if any does."""
        task = self._waiting[0] if self._waiting else None
        added = group.add(self._work, task)
        if added and task is not None:
            self._waiting.popleft()
        return added

    def _work(self, group: _Group, tasks: _Tasks) -> None:
        while (task := self._next(group, tasks)) is not None:
            task.run()
            del task  # or the last request would stay referenced until the next one
            with self._changing:
                if self._waiting:
                    tasks.put(self._waiting.popleft())
                elif self._closed:
                    tasks.put(None)
                else:
                    group.idle.append(tasks)

    def _next(self, group: _Group, tasks: _Tasks) -> _Task | None:
        """Return what this thread is handed; None where it is to end, as nothing came while its patience lasted."""
        try:
            return tasks.get(timeout=group.patience)
        except Empty:
            pass
        with self._changing:
            if tasks not in group.idle:  # something came at the last moment
                return tasks.get_nowait()
            group.idle.remove(tasks)
            group.threads.remove(threading.current_thread())
            return None
