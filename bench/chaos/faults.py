"""Runs in the chaos runner: each kind of action, done to a real service."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from bench.chaos import files, processes
from bench.chaos.calls import Answer, Caller
from bench.chaos.files import Record
from bench.chaos.host import Host, wait_for
from bench.chaos.ledger import Ledger
from bench.chaos.notes import Notebook
from bench.chaos.plan import Action, Call, Limit, Reload, Renewal, Role, Step, Strike, Talk
from bench.chaos.processes import Identity

TALKER = Path(__file__).with_name("talker.py")
# Beyond the grace that was asked for: 2 s after SIGKILL, 2 s for leftovers, and what a busy machine takes.
OPERATION_TIMEOUT = 8.0
KILL_AT_ONCE = "/kill?type=SIGKILL"
REPLACE_GRACE = 5.0
KILL_TIMEOUT = 10.0


class Undo(NamedTuple):
    """What ends a part of a fault, and after how many seconds."""

    after: float
    job: Callable[[], object]


class Keeper(NamedTuple):
    """A shim or understudy: the runs whose records name it, and what was below it."""

    runs: frozenset[str]
    below: frozenset[Identity]

    def keeps(self, record: Record) -> bool:
        """Tell whether it was this run's, whose record may not have named it yet."""
        return record.run_id in self.runs or record.process in self.below


@dataclass
class World:
    """What faults are thrown at, and what is known of it: commands whose start was refused, runs that were checked."""

    host: Host
    caller: Caller
    notebook: Notebook
    ledger: Ledger
    keepers_killed: list[Keeper] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    checked: set[str] = field(default_factory=set)
    tokens: int = 0

    def find(self, role: Role) -> Identity | None:
        """Return the process that has this role now; the run's own from its record, for /status may not answer."""
        if role != "process":
            return self.host.find(role)
        try:
            process = files.current(self.host.logs).process
        except (OSError, ValueError):
            return None
        return process if process and processes.alive(process) else None


def obstacle(step: Step, world: World) -> str | None:
    """Return why a fault can't be thrown now; None where it can."""
    for action in step.actions:
        if isinstance(action, Limit) and action.resource == "NPROC" and os.geteuid() == 0:
            return "RLIMIT_NPROC does not bind root"
        if isinstance(action, Strike | Limit) and world.find(action.role) is None:
            return f"there is no {action.role}"
    return None


def _begin(action: Strike | Limit | Reload | Renewal, world: World) -> Undo | None:
    match action:
        case Strike():
            return _strike(action, world)
        case Limit():
            return _lower(action, world)
        case Reload():
            processes.send(world.host.master, signal.SIGHUP)
        case Renewal():
            processes.send(world.host.master, signal.SIGTERM)
    return None


def start(talk: Talk, world: World, *, replace: bool) -> Answer:
    """Call /start with a command that talks."""
    world.tokens += 1
    token = f"talk-{world.tokens}"
    words = [sys.executable, "-I", "-S", TALKER, world.notebook.directory, token, json.dumps(talk._asdict())]
    command = f"exec {shlex.join(map(str, words))}"
    before = world.notebook.names()
    bound = OPERATION_TIMEOUT + (REPLACE_GRACE if replace else 0)
    began = time.time()
    answer = world.caller.call("POST", "/start", {"command": command, "replace": replace}, bound)
    if replace:
        world.ledger.could_end(began, answer, newer=False, ok=201)
    if answer.status >= HTTPStatus.BAD_REQUEST:  # refused, or failed
        world.refused.add(token)
    if answer.status == HTTPStatus.CREATED:
        _expect_ended("/start", before, answer, world)
    return answer


def operate(call: Call, world: World) -> None:
    """Make one call that changes the run, and check what it promises."""
    if call.operation in {"start", "replace"}:
        start(call.talk, world, replace=call.operation == "replace")
        return
    now = {"type": "SIGKILL"} if call.operation == "kill at once" else {}
    path = f"/{call.operation.partition(' ')[0]}?{urlencode({**now, 'timeout': call.timeout})}"
    before = world.notebook.names()
    began = time.time()
    answer = None
    if call.hang_up_after is not None:
        world.caller.hang_up(path, call.hang_up_after)
    else:
        answer = world.caller.call("POST", path, bound=call.timeout + OPERATION_TIMEOUT)
    world.ledger.could_end(began, answer, newer=call.operation != "restart")
    if answer is not None and answer.status == HTTPStatus.OK:
        _expect_ended(path, before, answer, world)


def kill_at_once(world: World) -> None:
    """Call /kill with SIGKILL, and check that it has left nothing."""
    before = world.notebook.names()
    began = time.time()
    answer = world.caller.call("POST", KILL_AT_ONCE, bound=OPERATION_TIMEOUT)
    world.ledger.could_end(began, answer, newer=True)
    if answer.status == HTTPStatus.OK:
        _expect_ended(KILL_AT_ONCE, before, answer, world)


def _expect_ended(path: str, before: set[str], answer: Answer, world: World) -> None:
    """Find what is alive of the commands from before the call, but what its answer names, and daemons.

    Those live on beside later runs, and only a /kill of their own run ends them.
    """
    named = answer.body.get("survivors", [])
    left = {
        member: what
        for member, what in world.notebook.living(before).items()
        if member.pid not in named and not what.startswith("daemon ")
    }
    if left:
        world.ledger.violate(f"alive after {path}, and not named in survivors {named}: {left}")


def _strike(strike: Strike, world: World) -> Undo | None:
    victim = world.find(strike.role)
    if victim is None:
        return None
    if strike.seconds is not None:
        processes.send(victim, signal.SIGSTOP)
        return Undo(strike.seconds, partial(processes.send, victim, signal.SIGCONT))
    if strike.role in {"shim", "understudy"}:
        world.keepers_killed.append(_keeper(victim, world))
    if strike.role == "process":
        world.ledger.could_end(time.time(), None, newer=False)
    if processes.send(victim, signal.SIGKILL):
        wait_for(lambda: not processes.alive(victim), KILL_TIMEOUT, f"{strike.role} outlives SIGKILL")
    world.ledger.write(f"killed {strike.role} {victim.pid}")
    return None


def _keeper(victim: Identity, world: World) -> Keeper:
    records = files.records(world.host.logs, world.checked).values()
    below = processes.below(victim.pid, processes.table())
    return Keeper(
        frozenset(record.run_id for record in records if victim in {record.shim, record.understudy}),
        frozenset(process.identity for process in below),
    )


def _lower(limit: Limit, world: World) -> Undo | None:
    victim = world.find(limit.role)
    if victim is None:
        return None
    which = resource.RLIMIT_NOFILE if limit.resource == "NOFILE" else resource.RLIMIT_NPROC
    try:
        used = len(processes.descriptors(victim.pid)) if limit.resource == "NOFILE" else 1
        soft, hard = resource.prlimit(victim.pid, which)
        resource.prlimit(victim.pid, which, (used, hard))
    except (ProcessLookupError, FileNotFoundError):
        return None

    def restore() -> None:
        if processes.alive(victim):
            resource.prlimit(victim.pid, which, (soft, hard))

    return Undo(limit.seconds, restore)


class Background:
    """Do parts of a fault: calls on threads of their own, for they wait for an answer, all else at once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pool = ThreadPoolExecutor()
        self._calls: list[Future[None]] = []

    def begin(self, action: Action) -> Undo | None:
        """Do one part; return what is to be done later to end it."""
        if not isinstance(action, Call):
            return _begin(action, self._world)
        self._calls.append(self._pool.submit(operate, action, self._world))
        return None

    def wait(self) -> None:
        """Wait until all calls are over: each is answered, or given up."""
        for call in self._calls:
            call.result()
        self._pool.shutdown()
