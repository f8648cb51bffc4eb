"""Runs in the master and the worker: what is left of a run whose shim and understudy are both gone, and its end."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from app.linux.pidfd import send
from app.linux.proc import Identity, Member, boot_id, descendants
from app.log.clock import format_time
from app.protocol import NAME, UNDERSTUDY_NAME, Kill, Killed
from app.runs.members import find_members, live_keepers, orphans
from app.runs.record import RecordFile, RunRecord, State, record_path
from app.stopping.daemons import Exempt
from app.stopping.sequence import AFTER_KILL_TIMEOUT, StopSequence
from app.supervisor.handshake import name_of
from app.supervisor.naming import name_all
from app.supervisor.orphans import subreapers
from app.supervisor.status import KEEPERS_GONE, ended_unseen

ABANDONED = f"{KEEPERS_GONE}: its output since then is lost."
# Seconds between looks at the tree, whose ends no event announces.
INTERVAL = 0.02
_NO_PROCESS = Identity(0, 0)


class Remains:
    """Find the members that a run provably has, for a stop sequence in the service itself; see `find_members`."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record

    def members(self) -> list[Member]:
        """Return every live process that provably belongs to the run."""
        if self._record.boot_id != boot_id():
            return []
        return find_members(self._record, subreapers())

    def watch(self, awaited: Iterable[Identity]) -> None:
        """Do nothing: `end` looks at the tree again and again."""

    def kill_children(self, spares: Callable[[int], bool] | None = None) -> None:
        """Do nothing: the members are other processes' children."""


def members_of(record: RunRecord) -> list[Member]:
    """Return the live members of a run; where a keeper has ended, also those that are provably its own.

    One that is ending gets no orphans any more (find_alive_thread(), kernel/exit.c), though it still seems alive.
    """
    while keepers := live_keepers(record):
        members = descendants(keepers)
        if live_keepers(record) == {one.pid for one in (record.shim, record.understudy) if one}:
            return members
        if live_keepers(record) == keepers:  # or those of one that has just ended are below another process
            found = {one.identity: one for one in (*members, *Remains(record).members())}
            return [one for one in found.values() if one.pid not in keepers]
    return Remains(record).members()


def look_at(record: RunRecord) -> State:
    """Return the state of a run without keepers, which ends with the last member that it provably has.

    Writes an end that it finds to the record, whose exit code is unknown.
    """
    state = replace(record.state, output_open=False, unknown=record.state.unknown or ABANDONED)
    members = {member.identity for member in Remains(record).members()}
    if not members:
        return _close(record)
    if state.stopped_at is None and record.process not in members:
        state = replace(state, stopped_at=format_time(time.time_ns()))
    return state


def end(record: RunRecord, kill: Kill) -> Killed:
    """End what a run without keepers provably has; blocks for its `timeout` plus two seconds at most."""
    remains = Remains(record)
    process = record.process or _NO_PROCESS
    stop = StopSequence(remains, process, exempt=None if kill.daemons else Exempt(process, record.pipe or None))
    if not remains.members():
        return Killed(found=False)
    if kill.signal == "SIGKILL":
        stop.kill()
    else:
        stop.terminate(time.monotonic() + kill.timeout)
    while remains.members() and not stop.advance(time.monotonic()):
        time.sleep(INTERVAL)  # the members are not this process's children, and may be thousands
        stop.note_end()
    survivors = sorted(member.pid for member in stop.remaining())
    refused = sorted({identity.pid for identity in stop.refused}.intersection(survivors))
    return Killed(found=True, escalated=stop.escalated, survivors=survivors, refused=refused)


def stop_below_keepers(record: RunRecord, *, daemons: bool) -> bool:
    """Send SIGSTOP to all that is below a run's shim and understudy until none of it runs; False where none did.

    For a tree that is to be killed, with its `daemons` or without, and of which a member keeps stopping the shim: from
    here on none does. Blocks for two seconds at most.
    """
    deadline, found = time.monotonic() + AFTER_KILL_TIMEOUT, False
    exempt = Exempt(record.process or _NO_PROCESS, record.pipe or None)
    while time.monotonic() < deadline:
        below = descendants(live_keepers(record))
        running = [one for one in (below if daemons else exempt.others(below)) if one.state not in "Tt"]
        if not running:
            break
        found = True
        for member in running:
            send(member.identity, signal.SIGSTOP)
    return found


def _close(record: RunRecord) -> State:
    """Record the end of a run without keepers; name the orphans of the service that may be its own."""
    state = ended_unseen(record)
    # The reason for an unknown code says so, too.
    lost = ABANDONED if record.boot_id == boot_id() and record.state.stopped_at is not None else None
    record.state = replace(state, unknown=" ".join(filter(None, (state.unknown, lost, _unproven()))) or None)
    with contextlib.suppress(OSError):  # disk full or no permission: the next look tries again
        RecordFile(record_path(record.log_file), record.log_mode).replace(record)
    return record.state


def _unproven() -> str:
    """Name, as a sentence, orphans of which nothing proves whose they are; empty where there are none.

    Those of pid 1 may be any program's.
    """
    found = orphans([pid for pid in subreapers() if pid != 1])
    pids = sorted(one.pid for one in found if name_of(one.pid) not in (NAME, UNDERSTUDY_NAME))
    return f"These processes may be its own, and were left alone: {name_all(pids)}." if pids else ""
