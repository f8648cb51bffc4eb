"""Runs in the chaos runner: calls to the service, those that poll it all the time, and what a fault excuses of them."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Literal, NamedTuple

from bench.chaos.plan import KEEPERS, Limit, Renewal, Step, Strike

BROKEN = 0  # stands among the statuses for a connection that broke or was refused
SERVER_FAULT = 500
PATHS = ("/status", "/logs?lines=20", "/health")
POLL_INTERVAL = 0.1
SLOW = 5.0  # no answer of a call that only reads may take longer
GIVEN_UP_AFTER = 30.0
Excuse = Literal["nothing", "operations", "everything"]


class Answer(NamedTuple):
    """One call and what came back."""

    call: str
    status: int
    body: Any
    began: float
    took: float
    bound: float

    @property
    def reads(self) -> bool:
        """Tell whether it only reads, which nothing but the worker's own state may delay."""
        return self.call.startswith("/")

    @property
    def fault(self) -> str | None:
        """Return what is wrong with it, whoever's fault it is."""
        if self.status == BROKEN:
            return "broken"
        if self.status >= SERVER_FAULT:
            return str(self.status)
        return "slow" if self.took > self.bound else None


class Window(NamedTuple):
    """The time in which a fault, and its recovery, may show in answers."""

    number: int
    kind: str
    excuse: Excuse
    began: float
    ended: float

    def excuses(self, answer: Answer) -> bool:
        """Tell whether the fault explains what is wrong with an answer that was under way in its time."""
        if answer.began > self.ended or answer.began + answer.took < self.began:
            return False
        return self.excuse == "everything" or (
            self.excuse == "operations" and not answer.reads and answer.status != BROKEN
        )


def excuse_of(step: Step) -> Excuse:
    """Return which answers a fault may spoil: all where the worker is hit, operations where a shim's side is."""
    excuse: Excuse = "nothing"
    for action in step.actions:
        match action:
            case Renewal() | Strike(role="worker") | Limit(role="worker") | Strike(role="master", seconds=None):
                return "everything"
            case Strike(role=role) | Limit(role=role) if role in KEEPERS:
                excuse = "operations"
    return excuse


class Caller:
    """Call whatever service there is, and keep every answer."""

    def __init__(self, port: Callable[[], int]) -> None:
        self._answers: list[Answer] = []
        self.told: dict[str, set[int]] = {}
        self._port = port
        self._open = threading.Event()
        self._over = threading.Event()
        self._busy = [threading.Lock() for _ in PATHS]
        self._threads = [
            threading.Thread(target=self._poll, args=(path, busy), name=path, daemon=True)
            for path, busy in zip(PATHS, self._busy, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def call(self, method: str, path: str, body: object = None, bound: float = SLOW) -> Answer:
        """Send one request over a connection of its own, read its answer to the end, and keep it.

        After `bound` seconds the answer is late; some time later none is waited for.
        """
        began = time.monotonic()
        try:
            status, content = self._exchange(method, path, body, bound + GIVEN_UP_AFTER)
        except (OSError, http.client.HTTPException, ValueError) as error:
            status, content = BROKEN, repr(error)
        took = time.monotonic() - began
        answer = Answer(path if method == "GET" else f"{method} {path}", status, content, began, took, bound)
        if isinstance(content, dict) and isinstance(content.get("exit_code"), int) and "run_id" in content:
            self.told.setdefault(content["run_id"], set()).add(content["exit_code"])
        self._answers.append(answer)
        return answer

    def take(self) -> list[Answer]:
        """Return the answers since the last time."""
        taken, self._answers = self._answers, []
        return taken

    def hang_up(self, path: str, after: float) -> None:
        """Send a POST and go before its answer comes."""
        with closing(http.client.HTTPConnection("127.0.0.1", self._port(), timeout=SLOW)) as connection:
            try:
                connection.request("POST", path)
            except OSError:
                return  # there is no service at this moment
            time.sleep(after)  # the plan's moment for the hang-up, no wait for anything

    def status(self) -> dict[str, Any]:
        """Return the current run's status object; nothing where there is none."""
        answer = self.call("GET", "/status")
        return answer.body if answer.status == http.HTTPStatus.OK else {}

    def healthy(self) -> bool:
        """Tell whether the service answers at this moment; a look of the runner's own, which is not kept."""
        try:
            return self._exchange("GET", "/health", None, 1.0)[0] == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException, ValueError):
            return False

    @contextmanager
    def polling(self) -> Iterator[None]:
        """Poll meanwhile."""
        self._open.set()
        try:
            yield
        finally:
            self.pause()

    def resume(self) -> None:
        """Poll from now on."""
        self._open.set()

    def pause(self) -> None:
        """Poll no longer, and wait for the answers under way."""
        self._open.clear()
        for busy in self._busy:
            with busy:
                pass

    def _poll(self, path: str, busy: threading.Lock) -> None:
        while True:
            self._open.wait()
            with busy:
                if self._open.is_set():
                    self.call("GET", path)
            time.sleep(POLL_INTERVAL)  # the rate of a caller, no wait for anything

    def _exchange(self, method: str, path: str, body: object, timeout: float) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        with closing(http.client.HTTPConnection("127.0.0.1", self._port(), timeout=timeout)) as connection:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            with connection.getresponse() as response:  # which has the socket, once it is the connection's last
                return response.status, json.loads(response.read())
