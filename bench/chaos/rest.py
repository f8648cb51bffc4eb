"""Runs in the chaos runner: a service at rest, with nothing running, is as small as it was at the first rest."""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import NamedTuple

from bench.chaos import processes
from bench.chaos.faults import World, kill_at_once
from bench.chaos.host import BrokenPromiseError, wait_for
from bench.chaos.plan import Role
from bench.chaos.processes import Identity, Process

MEASURED: tuple[Role, ...] = ("worker", "master", "zygote")
REST_TIMEOUT = 40.0  # an old worker that a reload leaves behind may take gunicorn's 30 s
STEADY_FOR = 1.0
_VARYING = re.compile(r"\d+|(?<=wgunicorn-)\w+")


class Size(NamedTuple):
    """What a process holds: descriptors by what they lead to, numbers aside, and threads."""

    descriptors: Counter[str]
    threads: int


class Rest:
    """Bring a service to rest and compare it with its first rest."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._first: dict[Role, Size] = {}

    def check(self) -> None:
        """End what runs, wait until nothing changes any more, and look for growth, zombies and what is left."""
        world = self._world
        world.caller.pause()
        kill_at_once(world)
        try:
            wait_for(lambda: not self._left(), REST_TIMEOUT, "not at rest")
            sizes = self._steady()
        except BrokenPromiseError as error:
            world.ledger.violate(f"{error}: {', '.join(self._left()) or 'descriptors or threads go on changing'}")
            return
        finally:
            world.caller.resume()
        world.ledger.rests += 1
        for role, size in sizes.items():
            self._compare(role, size, self._first.setdefault(role, size))

    def _left(self) -> list[str]:
        """Name what should not be there: members of trees, zombies, shims with a run, a second worker or zygote."""
        found = [f"{identity.pid}, {kind}" for identity, kind in self._world.notebook.living().items()]
        own = {self._world.host.master.pid, *(worker.pid for worker in self._world.host.workers()[-1:])}
        return found + [
            str(process)
            for process in self._world.host.everything()
            if process.identity.pid not in own and not self._belongs(process, own)
        ]

    def _belongs(self, process: Process, own: set[int]) -> bool:
        """Tell whether it is the one zygote of the worker that is there."""
        return process.alive and process.parent in own and process.identity == self._world.find("zygote")

    def _steady(self) -> dict[Role, Size]:
        last: tuple[float, dict[Role, Identity], dict[Role, Size]] = (time.monotonic(), {}, {})

        def unchanged() -> dict[Role, Size]:
            nonlocal last
            found = {role: identity for role in MEASURED if (identity := self._world.find(role)) is not None}
            try:
                sizes = {role: _size_of(identity) for role, identity in found.items()}
            except OSError:  # one has ended
                return {}
            if (found, sizes) != last[1:]:
                last = (time.monotonic(), found, sizes)
            return sizes if time.monotonic() - last[0] > STEADY_FOR else {}

        return wait_for(unchanged, REST_TIMEOUT, "not steady")

    def _compare(self, role: Role, now: Size, first: Size) -> None:
        self._world.ledger.write(f"{role} at rest: {now.descriptors.total()} descriptors, {now.threads} threads")
        if now.descriptors.total() > first.descriptors.total():
            more = dict(now.descriptors - first.descriptors)
            self._world.ledger.violate(f"{role} has more descriptors than at its first rest: {more}")
        if now.threads > first.threads:
            self._world.ledger.violate(f"{role} has {now.threads} threads, {first.threads} at its first rest")


def _size_of(identity: Identity) -> Size:
    found = processes.read(identity.pid)
    if found is None or found.identity != identity:
        raise ProcessLookupError(identity.pid)
    return Size(Counter(_VARYING.sub("N", each) for each in processes.descriptors(identity.pid)), found.threads)
