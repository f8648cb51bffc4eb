"""The long form of the cycle tests: `python -m bench.soak`, or `make soak`; fails on any growth or any 5xx."""

import argparse
import contextlib
import http.client
import itertools
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.service import ZYGOTE, Service, looks, memory_kib, name, serving, tree, wait_until
from bench.table import Row, machine, render

Call = tuple[str, str, object]
COMMAND = "echo ready; exec sleep 1000"
# Every call that can meet every other; what they answer is not looked at here, only whose fault it is.
ENDPOINTS: tuple[Call, ...] = (
    ("POST", "/start", {"command": COMMAND}),
    ("POST", "/start", {"command": COMMAND, "replace": True}),
    ("GET", "/status", None),
    ("GET", "/logs", None),
    ("GET", "/logs?lines=10", None),
    ("GET", "/logs?seconds=10", None),
    ("POST", "/kill?timeout=1", None),
    ("POST", "/restart?timeout=1", None),
    ("GET", "/health", None),
    ("GET", "/openapi.json", None),
)
WARM_UP = 0.1  # of each phase, before the first measurement
NOISE_KIB = 8 * 1024
SERVER_FAULT = 500
BROKEN = 0  # stands among the statuses for a connection that broke
SETTLING_TIMEOUT = 10.0


class Size(NamedTuple):
    """What a process takes."""

    descriptors: int
    threads: int
    resident_kib: int


class Phase(NamedTuple):
    """One phase of the soak: what was done and answered, the worker's size before and after, how many are left over."""

    name: str
    done: int
    seconds: float
    answers: Counter[int]
    before: Size
    after: Size
    strays: int

    @property
    def faults(self) -> list[str]:
        """Return what is wrong, in words."""
        bad = {status: n for status, n in self.answers.items() if status >= SERVER_FAULT or status == BROKEN}
        found = [f"{count} answers of status {status or 'none'}" for status, count in bad.items()]
        for what, allowance in (("descriptors", 0), ("threads", 0), ("resident_kib", NOISE_KIB)):
            growth = getattr(self.after, what) - getattr(self.before, what)
            if growth > allowance:
                found.append(f"{what} grew by {growth}")
        if self.strays:
            found.append(f"{self.strays} processes left over")
        return [f"{self.name}: {fault}" for fault in found]

    def rows(self) -> Iterator[Row]:
        """Yield the figures for the table."""
        told = ", ".join(f"{count} x {status or 'broken'}" for status, count in sorted(self.answers.items()))
        rate = f"{self.done / self.seconds:.0f}/s"
        yield Row(self.name, "calls", rate, f"{self.done} in {self.seconds:.0f} s: {told}")
        for what in ("descriptors", "threads", "resident_kib"):
            before, after = getattr(self.before, what), getattr(self.after, what)
            yield Row(self.name, what.replace("_", " "), f"{after - before:+}", f"{before} → {after}")


class Caller:
    """Make calls over one kept connection and count the answers."""

    def __init__(self, port: int) -> None:
        self.answers: Counter[int] = Counter()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def call(self, method: str, path: str, body: object) -> None:
        """Send one request and read its answer to the end."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        for last_try in (False, True):
            fresh = self._connection.sock is None
            try:
                self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
                response = self._connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                self._connection.close()
                # A kept connection may have been closed by the server in the meantime; a fresh one may not.
                if fresh or last_try:
                    self.answers[BROKEN] += 1
                    return
            else:
                self.answers[response.status] += 1
                return

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def size_of(pid: int) -> Size:
    """Measure a process."""
    descriptors, threads = (len(list(Path(f"/proc/{pid}/{what}").iterdir())) for what in ("fd", "task"))
    return Size(descriptors, threads, memory_kib(pid, "VmRSS"))


def settle(service: Service) -> Size:
    """End what runs, wait until the service has nothing more to do, and return its worker's size."""
    caller = Caller(service.port)
    caller.call("POST", "/kill?type=SIGKILL", None)
    caller.close()
    service.connection.close()
    # Connections are closed, and shims reaped, a moment after their end; who stays longer is told as left over.
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not strays_of(service), SETTLING_TIMEOUT)
    return steady_size_of(service.worker)


def steady_size_of(pid: int) -> Size:
    """Measure a process once it has opened, closed, begun and ended nothing for a second; raises `TimeoutError`."""
    sizes = (size_of(pid) for _ in looks(1.0, SETTLING_TIMEOUT))
    return next(now for before, now in itertools.pairwise(sizes) if before[:2] == now[:2])


def strays_of(service: Service) -> int:
    """Return how many processes the service has beside its worker and the zygote."""
    expected = (service.pid, service.worker)
    return len([pid for pid in tree(service.pid) if pid not in expected and name(pid) not in ("", ZYGOTE)])


def cycles(service: Service, name: str, calls: list[Call], count: int) -> Phase:
    """Repeat some calls one after the other."""
    caller = Caller(service.port)
    warm_up = int(count * WARM_UP) + 1
    for _ in range(warm_up):
        for call in calls:
            caller.call(*call)
    before = settle(service)
    began = time.monotonic()
    for _ in range(count):
        for call in calls:
            caller.call(*call)
    seconds = time.monotonic() - began
    caller.close()
    return Phase(name, count * len(calls), seconds, caller.answers, before, settle(service), strays_of(service))


def crowd(service: Service, callers: int, seconds: float) -> Phase:
    """Let many callers use every endpoint at the same time."""
    answers = _call_from_everywhere(service, callers, seconds * WARM_UP + 1)
    before = settle(service)
    began = time.monotonic()
    counted = _call_from_everywhere(service, callers, seconds)
    took = time.monotonic() - began
    after = settle(service)
    return Phase(f"{callers} callers", counted.total(), took, counted + answers, before, after, strays_of(service))


def _call_from_everywhere(service: Service, callers: int, seconds: float) -> Counter[int]:
    everybody = [Caller(service.port) for _ in range(callers)]
    until = time.monotonic() + seconds

    def go_through(caller: Caller, first: int) -> None:
        for call in itertools.islice(itertools.cycle(ENDPOINTS), first, None):
            if time.monotonic() > until:
                break
            caller.call(*call)
        caller.close()

    threads = [threading.Thread(target=go_through, args=(caller, n)) for n, caller in enumerate(everybody)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum((caller.answers for caller in everybody), Counter())


def main() -> None:
    """Soak a service as long as asked for and print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description="Use LLM Shell for long, look for growth."
    )
    parser.add_argument("--cycles", type=int, default=5000, help="of start and kill, and of restart (default: 5000)")
    parser.add_argument("--minutes", type=float, default=10.0, help="of callers at the same time (default: 10)")
    parser.add_argument("--callers", type=int, default=64, help="how many of them (default: 64)")
    asked = parser.parse_args()
    start_and_kill: list[Call] = [("POST", "/start", {"command": COMMAND}), ("POST", "/kill?type=SIGKILL", None)]
    restart: list[Call] = [("POST", "/restart?timeout=1", None)]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-shell-soak-")))
        service = stack.enter_context(serving(folder))
        phases = [
            crowd(service, asked.callers, asked.minutes * 60),
            cycles(service, "start and kill", start_and_kill, asked.cycles),
            cycles(service, "restart", restart, asked.cycles),
        ]
    print(f"{machine()}\n\n{render([row for phase in phases for row in phase.rows()])}")
    if faults := [fault for phase in phases for fault in phase.faults]:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
