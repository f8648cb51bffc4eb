"""Runs in the worker: continue, or kill, the processes of a start that has reported nothing, not even a pid."""

import os
import signal
import time

from app.linux.pidfd import send
from app.linux.proc import Member, descendants, holds_pipe, initial_environment, snapshot
from app.protocol import NAME, UNDERSTUDY_NAME, ZYGOTE_NAME, Kill
from app.runs.members import run_entry
from app.runs.record import RunRecord
from app.stopping.sequence import AFTER_KILL_TIMEOUT
from app.supervisor.handshake import name_of, wake
from app.supervisor.remains import INTERVAL, end

# Of a start's processes, in the order in which they are killed. A fork has its parent's name at first, and a zygote
# that holds the pipe is in the middle of a fork.
_NAMES = (ZYGOTE_NAME, UNDERSTUDY_NAME, NAME)


def wake_keepers(record: RunRecord) -> None:
    """Continue the processes of a start that were stopped."""
    for _name, keeper in _keepers(_holders(record)):
        wake(keeper.pid)


def end_start(record: RunRecord) -> None:
    """End a start whose permit is taken, so that nothing of it is executed any more; blocks for four seconds at most.

    Its command has just begun, so that pipe and id together prove it: no process that ran before has both.
    """
    deadline = time.monotonic() + AFTER_KILL_TIMEOUT
    while time.monotonic() < deadline:
        holders = _holders(record)
        keepers = _keepers(holders)
        environments = [(one, initial_environment(one.pid)) for one in holders]
        found = [one for _name, one in keepers]
        # Not below a zygote, which has all runs there.
        found += descendants({one.pid for name, one in keepers if name != ZYGOTE_NAME})
        found += [one for one, entries in environments if run_entry(record.run_id) in entries]
        for one in found:
            send(one.identity, signal.SIGKILL)
        # During an execve(2) a process has no environment: it may be the command.
        if not found and all(any(entries) for _one, entries in environments):
            break
        time.sleep(INTERVAL)  # no event announces the ends of other processes' children
    end(record, Kill("SIGKILL", 0.0, "kill"))


def _holders(record: RunRecord) -> list[Member]:
    """Return the other processes that hold the run's pipe."""
    others = [one for one in snapshot().values() if one.alive and one.pid != os.getpid()]
    return [one for one in others if holds_pipe(one.pid, record.pipe)]


def _keepers(holders: list[Member]) -> list[tuple[bytes, Member]]:
    """Return the keepers among processes, each after its name, in the order of `_NAMES`."""
    named = [(name_of(one.pid), one) for one in holders]
    return sorted((pair for pair in named if pair[0] in _NAMES), key=lambda pair: _NAMES.index(pair[0]))
