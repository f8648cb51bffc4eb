"""Runs in the master and the worker: tell what a process has left behind: leftovers, and daemons."""

from collections.abc import Iterable
from typing import NamedTuple

from app.linux.proc import Member
from app.runs.record import RunRecord
from app.stopping.daemons import daemons_among
from app.stopping.facts import ProcFacts


class Left(NamedTuple):
    """Hold the pids of the members that live on after their process has ended, in ascending order.

    `daemons` have left its session and its output, `leftovers` have not, or their descriptors can't be read.
    """

    leftovers: list[int]
    daemons: list[int]


NOTHING = Left([], [])


def divide(record: RunRecord, members: Iterable[Member]) -> Left:
    """Divide the live members of a run whose process has ended, as `/proc` shows them now.

    The cost is that of one look (`stopping/facts.py`); members beyond its limits count as leftovers.
    """
    members = list(members)
    session = record.process.pid if record.process is not None else 0
    daemons = {one.pid for one in daemons_among(members, session, ProcFacts(record.pipe or None).holds_output)}
    return Left(sorted(one.pid for one in members if one.pid not in daemons), sorted(daemons))
