"""Runs in the chaos runner: every run that is over, gathered from files, answers and notes, and checked once."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Any

from bench.chaos import checks, files
from bench.chaos.faults import World
from bench.chaos.files import Record
from bench.chaos.host import BrokenPromiseError, wait_for
from bench.chaos.notes import Noted

OVER_TIMEOUT = 20.0


class Judge:
    """Check runs as they end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._executed = world.notebook.directory.with_name("checked")
        self._executed.mkdir()

    def look(self) -> None:
        """Check what has ended since the last look."""
        for run_id, record in files.records(self._world.host.logs, self._world.checked).items():
            if record.ended:
                self._check(run_id, record)

    def finish(self) -> None:
        """Check the rest, once everything was ended; notes that belong to no run are of an execution too many."""
        try:
            wait_for(self._all_are_over, OVER_TIMEOUT, "there are runs that are not over although all were ended")
        except BrokenPromiseError as error:
            self._world.ledger.violate(f"{error}: {sorted(files.records(self._world.host.logs, self._world.checked))}")
        for name, noted in self._world.notebook.all().items():
            self._world.ledger.violate(f"{name} was executed, and no run is its: {noted.members}")

    def _all_are_over(self) -> bool:
        self.look()
        return not files.records(self._world.host.logs, self._world.checked)

    def _check(self, run_id: str, record: Record) -> None:
        world = self._world
        answer = world.caller.call("GET", f"/status?run_id={run_id}")
        content = world.caller.call("GET", f"/logs?run_id={run_id}")
        if answer.status != HTTPStatus.OK or content.status != HTTPStatus.OK:
            return  # the next look asks again, and the answer is judged as any other
        # Read after the record said that the run has ended: before, notes might be missing.
        name = _name_of(record, world.notebook.all())
        if name and not world.notebook.is_settled(name):
            return  # the kernel's word is yet to come
        case = checks.Case(
            record=record,
            status=answer.body,
            log=files.read_log(world.host.logs / f"{run_id}.log"),
            content=content.body["content"],
            noted=world.notebook.all()[name] if name else None,
            told=frozenset(world.caller.told.get(run_id, ())),
            keepers_killed=sum(keeper.keeps(record) for keeper in world.keepers_killed),
            asked_to_end=world.ledger.asked_to_end(_time(answer.body, "created_at"), _time(answer.body, "stopped_at")),
        )
        for violation in checks.violations(case):
            world.ledger.violate(violation, run_id, _time(answer.body, "created_at"))
        self._close(run_id, case, name)

    def _close(self, run_id: str, case: checks.Case, name: str | None) -> None:
        ledger = self._world.ledger
        self._world.checked.add(run_id)
        ledger.runs += 1
        ledger.unknown_codes += case.status["exit_code"] is None
        if case.noted is None or name is None:
            ledger.silent += 1
            return
        ledger.lost += len(case.noted.written) - len(set(case.log.lines) & set(map(str, case.noted.written)))
        if case.noted.token in self._world.refused:
            ledger.violate(f"{name} was executed, although its start was refused", run_id)
        if left := self._world.notebook.living({name}):
            ledger.violate(f"its record says that it has ended, and it has not: {left}", run_id)
        (self._world.notebook.directory / name).rename(self._executed / name)


def _name_of(record: Record, noted: dict[str, Noted]) -> str | None:
    """Return the name of the notes of a run: those of its token and, where that is known, its pid."""
    mine = [name for name, each in noted.items() if f" {each.token} " in record.command]
    if record.process is None:
        return mine[0] if len(mine) == 1 else None
    return next((name for name in mine if name.endswith(f".{record.process.pid}")), None)


def _time(status: dict[str, Any], field: str) -> float:
    return datetime.fromisoformat(status[field]).timestamp()
