"""Commands that leave a mark whenever they are executed, and what the answers to their starts promised about that."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.kit.actors import Request, worker_of, zygote_of
from tests.kit.processes import send
from tests.kit.service import Answer, Service
from tests.kit.waiting import wait_until

SEED = 12
# Seconds that a start takes.
LONGEST = 0.01


class Executions:
    """Starts in one service, each of a command that appends its number to a file."""

    def __init__(self, service: Service, file: Path) -> None:
        self.service = service
        self._file = file
        file.touch()
        self._promised: list[bool] = []

    @property
    def counts(self) -> Counter[int]:
        """Return how often each command was executed so far."""
        return Counter(int(line) for line in self._file.read_text().split())

    def next_command(self) -> str:
        """Return a command with the next number."""
        self._promised.append(False)
        return f"echo {len(self._promised) - 1} >> {self._file}"

    def start(self, disturb: Callable[[], object] = lambda: None) -> Answer:
        """Start the next command, `disturb` the start meanwhile, and return its answer: 201, or 500 with the reason."""
        command = self.next_command()
        request = Request(lambda: self.service.post("/start", {"command": command, "replace": True}, timeout=60))
        disturb()
        answer = request.answer()
        assert answer is not None
        assert answer.status in {201, 500}, answer.body
        self._promised[-1] = answer.status == 201
        if answer.status == 201:
            self.service.wait_for_exit()
        return answer

    def check(self) -> None:
        """Fail unless each command that was said to have started was executed once, and no other, now or later."""
        self.service.wait_until_alone()
        promised = Counter(number for number, promised in enumerate(self._promised) if promised)
        assert self.counts == promised

    @property
    def zygote(self) -> int:
        """Return the pid of the zygote, which there is after a start."""
        return zygote_of(worker_of(self.service))


def started(executions: Executions) -> None:
    """Fail unless a start works now, as it does in the end of all faults."""
    answer = executions.start()
    assert answer.status == 201, answer.body
    wait_until(lambda: executions.service.status()["exit_code"] == 0)


def lose_zygotes(executions: Executions, times: int) -> None:
    """Kill the zygote at random moments of so many starts, each of which must succeed."""
    moments = random.Random(SEED)  # noqa: S311  nothing is kept secret with it
    for _ in range(times):
        pid = executions.zygote

        def kill(pid: int = pid) -> None:
            time.sleep(moments.uniform(0, LONGEST))  # no state to wait for: the moments themselves are under test
            send(signal.SIGKILL, pid)

        answer = executions.start(kill)
        assert answer.status == 201, answer.body
        started(executions)
