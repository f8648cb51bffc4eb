"""Runs in the chaos runner: which faults are thrown, in which order, when and at what: a pure function of the seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Literal, NamedTuple

Role = Literal["worker", "master", "zygote", "understudy", "shim", "process"]
Operation = Literal["kill", "kill at once", "restart", "replace", "start"]
KEEPERS: tuple[Role, ...] = ("shim", "understudy", "zygote")
STRUCK: tuple[Role, ...] = ("worker", "master", *KEEPERS)
STOPPED_AT_MOST = 3.0
LOWERED_AT_MOST = 2.0
RELOAD_TO_KILL_AT_MOST = 1.0


class Talk(NamedTuple):
    """What a run's command does; `talker.py` says what each field means."""

    lines: int
    interval: float
    code: int
    on_term: Literal["die", "ignore", "tidy"]
    on_pipe: Literal["die", "note"]
    child: Literal["none", "leftover", "escapee", "daemon"]
    child_lines: int
    sleeper: bool
    closes_at: int


class Strike(NamedTuple):
    """A signal: SIGKILL, or SIGSTOP and after so many seconds SIGCONT."""

    at: float
    role: Role
    seconds: float | None = None

    def __str__(self) -> str:
        if self.seconds is None:
            return f"kill {self.role}"
        return f"stop {self.role}"


class Limit(NamedTuple):
    """A soft limit that is lowered to what is in use, for so many seconds."""

    at: float
    role: Role
    resource: Literal["NOFILE", "NPROC"]
    seconds: float

    def __str__(self) -> str:
        return f"{self.resource} of {self.role}"


class Reload(NamedTuple):
    """SIGHUP to the master."""

    at: float

    def __str__(self) -> str:
        return "reload"


class Renewal(NamedTuple):
    """SIGTERM to the master, whose command is kept, and then another service."""

    at: float

    def __str__(self) -> str:
        return "stop and start of the service"


class Call(NamedTuple):
    """A call that changes the run; with `hang_up_after` its caller does not wait for the answer."""

    at: float
    operation: Operation
    timeout: float
    talk: Talk
    hang_up_after: float | None = None

    def __str__(self) -> str:
        return f"{self.operation} and hang up" if self.hang_up_after is not None else self.operation


Action = Strike | Limit | Reload | Renewal | Call


class Step(NamedTuple):
    """One fault: its parts in the order of their times, from its beginning.

    `talk` is for a run before it, which then has `settle` seconds: some are hit before they have printed anything.
    """

    number: int
    kind: str
    pause: float
    settle: float
    actions: tuple[Action, ...]
    talk: Talk

    def __str__(self) -> str:
        return f"{self.number} {self.kind}: " + ", ".join(f"{action} at {action.at:.3f}" for action in self.actions)


PAIR = "pair"
RELOAD_AND_KILL = "reload, then kill shim"
OPERATIONS: tuple[Operation, ...] = ("kill", "kill at once", "restart", "replace", "start")
KINDS: tuple[str, ...] = (
    *(f"kill {role}" for role in (*STRUCK, "process")),
    *(f"stop {role}" for role in STRUCK),
    *(PAIR,) * 4,
    "reload",
    *(RELOAD_AND_KILL,) * 2,
    "stop and start of the service",
    *(f"{resource} of {role}" for resource in ("NOFILE", "NPROC") for role in ("worker", "zygote")),
    "restart and hang up",
    "kill and hang up",
    *OPERATIONS,
)


def plan(seed: int) -> Iterator[Step]:
    """Yield faults without end: every kind once, in a random order, before any comes again."""
    chance = random.Random(seed)  # noqa: S311  it is to be repeatable, not secret
    bag: list[str] = []
    for number in itertools.count(1):
        if not bag:
            bag = chance.sample(KINDS, len(KINDS))
        kind = bag.pop()
        actions = [*_actions(kind, chance), *_beside(kind, chance)]
        # What is meant to come first, after what is meant to meet it, would wait for a time that is over.
        first = min(action.at for action in actions)
        timed = sorted((action._replace(at=action.at - first) for action in actions), key=lambda action: action.at)
        settle = chance.choice((0.0, chance.uniform(0, 0.5)))
        yield Step(number, kind, chance.uniform(0.1, 1.0), settle, tuple(timed), _talk(chance))


def _actions(kind: str, chance: random.Random) -> Iterator[Action]:
    verb, _, what = kind.partition(" ")
    if kind == PAIR:
        for role, at in zip(chance.sample(STRUCK, 2), (0.0, chance.choice((0.0, chance.uniform(0, 0.2)))), strict=True):
            yield _strike(role, at, chance.choice(("kill", "kill", "stop")), chance)
    elif kind == "reload":
        yield Reload(0.0)
    elif kind == RELOAD_AND_KILL:
        yield Reload(0.0)
        yield Strike(chance.uniform(0, RELOAD_TO_KILL_AT_MOST), "shim")
    elif kind == "stop and start of the service":
        yield Renewal(0.0)
    elif verb in {"NOFILE", "NPROC"}:
        yield from (
            Limit(0.0, role, resource, chance.uniform(0.2, LOWERED_AT_MOST))
            for role in STRUCK
            for resource in ("NOFILE", "NPROC")
            if kind == f"{resource} of {role}"
        )
    elif kind.endswith("hang up"):
        yield _call("restart" if verb == "restart" else "kill", chance)._replace(hang_up_after=chance.uniform(0, 0.5))
    elif kind in OPERATIONS:
        yield from (_call(operation, chance) for operation in OPERATIONS if operation == kind)
    else:
        yield from (_strike(role, 0.0, verb, chance) for role in (*STRUCK, "process") if role == what)


def _strike(role: Role, at: float, verb: str, chance: random.Random) -> Strike:
    return Strike(at, role, None if verb == "kill" else chance.uniform(0.1, STOPPED_AT_MOST))


def _beside(kind: str, chance: random.Random) -> Iterator[Action]:
    """Yield, half of the times, a call that the fault meets at some point of its way."""
    likely = ("start", "replace", "kill", "kill at once", "restart")
    needed = kind.startswith(("NOFILE", "NPROC"))
    if needed or chance.random() < 0.5:  # noqa: PLR2004  a half
        called = chance.choices(likely, (1, 4, 2, 1, 3))[0]
        # A start takes a few milliseconds: half of the calls come so shortly before the fault that it meets them there.
        at = chance.uniform(0, 0.2) if needed else chance.choice((chance.uniform(-0.2, 0.2), chance.uniform(-0.04, 0)))
        yield from (_call(operation, chance)._replace(at=at) for operation in OPERATIONS if operation == called)


def _call(operation: Operation, chance: random.Random) -> Call:
    return Call(0.0, operation, round(chance.uniform(0.1, 2.0), 2), _talk(chance))


def _talk(chance: random.Random) -> Talk:
    lines = chance.choice((chance.randint(1, 30), chance.randint(30, 300), 5000))
    return Talk(
        lines=lines,
        interval=round(chance.uniform(0.01, 0.05), 3),
        code=chance.choice((0, 1, 3, 7, 42, 200, 255)),
        on_term=chance.choices(("die", "ignore", "tidy"), (3, 1, 2))[0],
        on_pipe=chance.choice(("die", "note")),
        child=chance.choices(("none", "leftover", "escapee", "daemon"), (3, 1, 1, 1))[0],
        child_lines=chance.randint(5, 60),
        sleeper=chance.random() < 0.3,  # noqa: PLR2004  three of ten
        closes_at=chance.choices((0, chance.randint(1, lines)), (5, 1))[0],
    )
