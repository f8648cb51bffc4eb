"""Runs in the chaos runner: throw one fault after the other, let the service recover, and have everything checked."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from functools import partial

from bench.chaos.calls import Window, excuse_of
from bench.chaos.faults import Background, Undo, World, obstacle, start
from bench.chaos.host import BrokenPromiseError, wait_for
from bench.chaos.judge import Judge
from bench.chaos.plan import Renewal, Step, Talk
from bench.chaos.rest import Rest

RECOVERY_TIMEOUT = 20.0
FREE_TIMEOUT = 15.0
RENEWAL_TIMEOUT = 45.0  # gunicorn waits 30 s for an operation under way
STEPS_TO_A_REST = 8
# Answers that were under way at the end of a recovery may still tell of the fault.
AFTERWARDS = 0.5
LONG_TALK = Talk(5000, 0.02, 3, "die", "die", "none", 0, sleeper=True, closes_at=0)


class Storm:
    """Throw faults at a service until it is time to stop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._judge = Judge(world)
        self._rest = Rest(world)

    def prepare(self) -> None:
        """Start the service, run one command, and measure it at rest, to compare with."""
        self._world.host.start()
        wait_for(self._world.caller.healthy, RECOVERY_TIMEOUT, "the service does not answer")
        self._start_long_talk()
        self._rest.check()

    def throw(self, step: Step) -> None:
        """Throw one fault, and go on when the service has recovered."""
        world = self._world
        time.sleep(step.pause)
        self._ensure_run(step.talk)
        time.sleep(step.settle)
        began = time.monotonic()
        if reason := obstacle(step, world):
            world.ledger.skip(step, reason)
        else:
            world.ledger.begin(step)
            self._perform(step)
            world.ledger.done[step.kind] += 1
        self._recover(step)
        excuse = excuse_of(step)
        time.sleep(AFTERWARDS)
        world.ledger.judge(Window(step.number, step.kind, excuse, began, time.monotonic()), world.caller.take())
        self._judge.look()
        if step.number % STEPS_TO_A_REST == 0:
            self._rest.check()

    def finish(self) -> None:
        """Stop the service that keeps its command, then another that does not, and look what is left."""
        world = self._world
        self._rest.check()
        self._judge.finish()
        world.caller.pause()
        world.host.stop()
        self._expect_nothing("a stop with nothing running")
        world.host.start("stop")
        wait_for(world.caller.healthy, RECOVERY_TIMEOUT, "the service does not answer")
        self._start_long_talk()
        world.host.stop()
        self._expect_nothing("a stop with a command running")

    def _start_long_talk(self) -> None:
        start(LONG_TALK, self._world, replace=False)
        wait_for(lambda: len(self._world.notebook.living()) > 1, FREE_TIMEOUT, "the command and its sleeper do not run")

    def _ensure_run(self, talk: Talk) -> None:
        """Start a command where none runs; a stop under way may have to end first."""

        def runs() -> bool:
            return self._world.caller.status().get("status") == "running" or (
                start(talk, self._world, replace=True).status == 201  # noqa: PLR2004  it has started
            )

        wait_for(runs, FREE_TIMEOUT, "no command can be started")

    def _perform(self, step: Step) -> None:
        """Do every part of a fault at its time, and undo what is for a time only."""
        order = itertools.count()
        zero = time.monotonic()
        background = Background(self._world)
        agenda: list[tuple[float, int, Callable[[], object]]] = [
            (action.at, next(order), partial(background.begin, action)) for action in step.actions
        ]
        heapq.heapify(agenda)
        while agenda:
            at, _, job = heapq.heappop(agenda)
            time.sleep(max(0.0, zero + at - time.monotonic()))
            undo = job()
            if isinstance(undo, Undo):
                heapq.heappush(agenda, (time.monotonic() - zero + undo.after, next(order), undo.job))
        background.wait()

    def _recover(self, step: Step) -> None:
        """Start another service where there is none, and wait until it answers."""
        world = self._world
        if any(isinstance(action, Renewal) for action in step.actions):
            wait_for(lambda: not world.host.running, RENEWAL_TIMEOUT, "the service did not stop")
        if not world.host.running:
            world.host.start()
        wait_for(world.caller.healthy, RECOVERY_TIMEOUT, "the service does not answer again")

    def _expect_nothing(self, after: str) -> None:
        try:
            wait_for(lambda: not self._world.host.everything(), 2.0, "")
        except BrokenPromiseError:
            left = ", ".join(map(str, self._world.host.everything()))
            self._world.ledger.violate(f"left after {after}: {left}")
