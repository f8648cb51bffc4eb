"""Runs in the worker: how many operations of each kind may hold a thread at once.

Not in `places.py`, since the master imports this with the worker's class, and is to be without Flask.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """Name a kind of operations, and say how many of it have a place at once."""

    name: str
    most: int


# Of a process: one that is under way, and one that joins it or is refused.
USUAL = Kind("usual", 2)
# Of all processes at once: one that joined it would end nothing more.
ALL = Kind("all", 1)
FORCED = Kind("forced", 1)
# Threads that operations hold at most: those on one process, and those on all at once.
OF_A_PROCESS = USUAL.most + FORCED.most
OF_ALL = ALL.most + FORCED.most
