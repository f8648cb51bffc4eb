"""A kill never runs the next step of a command, whoever of the tree has a group or session of its own."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from app.runs.spec import Spec
from app.service import manage
from app.supervisor.policy import Policy
from tests.kit.requiring import require
from tests.real.conftest import shell_named

# Side by side, since a try is mostly waiting; what is waited for is the time until the kill, as a caller would.
SIDE_BY_SIDE = 12
# su gives its child two seconds between SIGTERM and SIGKILL, in any case (util-linux 2.38).
SIDE_BY_SIDE_OF_SU = 42
BEFORE_THE_KILL = 0.15
# `next` is what writes F; each first step is one that a lone signal ends so that `next` would run.
COMMANDS = {
    ";": "timeout 600 sleep 601; echo x > F",
    "||": "timeout 600 sleep 601 || echo x > F",
    "&&": "timeout 600 sh -c 'trap \"exit 0\" TERM; sleep 601 & wait' && echo x > F",
    "su": "su nobody -s /bin/sh -c 'sleep 601'; echo x > F",
    "setsid": "setsid sleep 601; echo x > F",
    "setsid --wait": "setsid --wait sleep 601; echo x > F",
    "if": "if ! timeout 600 sleep 601; then echo x > F; fi",
    "a shell below": "sh -c 'timeout 600 sleep 601; echo x > F'; echo x > F",
}
# A try costs a tenth of a second of a processor, so what is rarer, or differs less, is tried less often.
OFTEN, SOMETIMES = 504, 96
CASES = [
    *[("dash", name, "SIGTERM", OFTEN) for name in (";", "||", "&&", "su", "setsid")],
    ("bash", ";", "SIGTERM", OFTEN),
    *[("dash", name, "SIGTERM", SOMETIMES) for name in ("setsid --wait", "if", "a shell below")],
    *[
        ("bash", name, "SIGTERM", SOMETIMES)
        for name in ("||", "&&", "su", "setsid", "setsid --wait", "if", "a shell below")
    ],
    *[
        ("dash", name, kill, SOMETIMES)
        for name in (";", "||", "&&", "su", "setsid")
        for kill in ("SIGKILL", "no grace")
    ],
]
GRACE = {"SIGTERM": 5.0, "SIGKILL": 5.0, "no grace": 0.0}
# Without a grace SIGKILL follows at once, and comes first where a shell that forks has SIGTERM blocked for the moment.
CODES = {"SIGTERM": {-15}, "SIGKILL": {-9}, "no grace": {-15, -9}}


class Seen(NamedTuple):
    """What was seen of one try."""

    exit_code: int | None
    next_step: bool
    survivors: int


class Lane:
    """Try a command again and again, each time with other pids."""

    def __init__(self, folder: Path, shell: str, seed: int) -> None:
        self._folder = folder
        self._pm = manage(folder / "logs", Policy(shell=shell, log_keep=1))
        self._random = random.Random(seed)  # noqa: S311  it is to be repeatable, not secret

    def close(self) -> None:
        """End what is left and let go of it."""
        self._pm.shut_down(0.0)
        self._pm.close()

    def attempt(self, command: str, kill: str) -> Seen:
        """Start the command, kill it a moment later, and look."""
        mark = self._folder / "F"
        mark.unlink(missing_ok=True)
        self._use_up_pids()
        self._pm.start(Spec(command, cwd=str(self._folder)))
        time.sleep(BEFORE_THE_KILL)  # the moment that the promise speaks of, not a wait for something
        answer = self._pm.kill("SIGKILL" if kill == "SIGKILL" else "SIGTERM", GRACE[kill])
        return Seen(answer["exit_code"], mark.exists(), len(answer["survivors"]))

    def _use_up_pids(self) -> None:
        """Have the next processes get pids at another distance, so that no order of pids stays the same."""
        for _ in range(self._random.randrange(12)):
            os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


@contextmanager
def lanes(folder: Path, shell: str, count: int) -> Iterator[list[Lane]]:
    """Offer lanes with directories and process managers of their own."""
    made: list[Lane] = []
    for number in range(count):
        place = folder / f"lane-{number}"
        place.mkdir()
        made.append(Lane(place, shell, number))
    try:
        yield made
    finally:
        with ExitStack() as cleanup:
            for lane in made:
                cleanup.callback(lane.close)


@pytest.mark.parametrize(("shell_name", "command", "kill", "tries"), CASES)
def test_the_next_step_never_runs(tmp_path: Path, shell_name: str, command: str, kill: str, tries: int) -> None:
    """In none of hundreds of tries does the next step run, nobody survives, and the exit code is always the same."""
    require(os.geteuid() == 0 or command != "su", "root, to become another user without a password")
    with lanes(tmp_path, shell_named(shell_name), SIDE_BY_SIDE_OF_SU if command == "su" else SIDE_BY_SIDE) as made:
        seen = tally(made, lambda lane: lane.attempt(COMMANDS[command], kill), tries)
    assert sum(seen.values()) >= tries
    assert not [each for each in seen if each.next_step or each.survivors], seen
    assert {each.exit_code for each in seen} <= CODES[kill], seen


def tally(made: list[Lane], attempt: Callable[[Lane], Seen], tries: int) -> Counter[Seen]:
    """Count what was seen in at least so many tries, side by side."""
    each = -(-tries // len(made))
    with ThreadPoolExecutor(len(made)) as pool:
        runs = pool.map(lambda lane: [attempt(lane) for _ in range(each)], made)
        return Counter(seen for run in runs for seen in run)
