"""Runs in the worker: the ports that a tree listens on, what becomes of them at its end, and a start's own port."""

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from app.linux import ports
from app.linux.ports import Table
from app.linux.proc import Member, command_line, members_below, read_member, snapshot
from app.runs.members import live_keepers
from app.runs.pointer import Pointer
from app.runs.record import RunRecord, read_record
from app.supervisor import refusals
from app.supervisor.index import RunIndex
from app.supervisor.leftovers import divide
from app.supervisor.naming import shown
from app.supervisor.remains import members_of

# Limits of a look at a tree: it comes before the first signal of a kill, and a tree may fork as fast as it is read. Of
# the members the oldest are looked at, and each network namespace beside the service's takes milliseconds.
MAX_MEMBERS = 1000
MAX_NAMESPACES = 8


class Listener(NamedTuple):
    """Hold one address that a tree listens on, and the process that does: of several with one socket the oldest.

    `beside` tells that the socket is of another network namespace than the service's.
    """

    address: str
    port: int
    pid: int
    beside: bool


def members_now(record: RunRecord) -> list[Member]:
    """Return the live members of a run, as `members_of` does, but quickly where they are few."""
    keepers = live_keepers(record)
    top = record.understudy
    if top is None or record.shim is None or keepers != {top.pid, record.shim.pid}:
        return members_of(record)
    members = members_below(top.pid)
    if live_keepers(record) != keepers:  # a keeper has ended meanwhile, and what was below it is elsewhere
        return members_of(record)
    return [member for member in members if member.pid not in keepers]


def listeners_of(members: list[Member]) -> list[Listener]:
    """Return where these processes listen, once for each address and port, sorted. Raises `OSError`."""
    members = sorted(members, key=lambda one: one.start_ticks)[:MAX_MEMBERS]
    table, beside = _tables(members)
    sockets = table | beside
    holders = ports.held(members, sockets.keys())
    by_socket: dict[int, list[Member]] = {}
    for member in members:
        for inode in holders.get(member.pid, ()):
            by_socket.setdefault(inode, []).append(member)
    found: dict[tuple[str, int, bool], Member] = {}
    for inode, owners in by_socket.items():
        key = (*sockets[inode], inode in beside)
        found[key] = _oldest([*owners, *([found[key]] if key in found else [])])
    return sorted(Listener(address, port, one.pid, other) for (address, port, other), one in found.items())


def _tables(members: Iterable[Member]) -> tuple[Table, Table]:
    """Return the listening sockets of the service's network namespace, and those of other ones with members."""
    own = ports.own_namespace()
    others = {name: member.pid for member in members if (name := ports.namespace_of(member)) not in ("", own)}
    beside: Table = {}
    for pid in list(others.values())[:MAX_NAMESPACES]:
        beside |= ports.listening_beside(pid)
    return ports.listening(), beside


def _oldest(owners: list[Member]) -> Member:
    """Return the first to have had a socket: forks have a later start or, within a clock tick, a parent among these."""
    pids = {member.pid for member in owners}
    return min(owners, key=lambda one: (one.start_ticks, one.ppid in pids, one.pid))


class Noted:
    """Hold the ports of a tree that is being ended: those of the service's network namespace, and of others."""

    def __init__(self) -> None:
        self.kills = 0
        self.own: set[int] = set()
        self.beside: set[int] = set()

    def add(self, listeners: Iterable[Listener]) -> None:
        """Note where the tree listens now."""
        listeners = list(listeners)
        self.own = self.own | {one.port for one in listeners if not one.beside}
        self.beside = self.beside | {one.port for one in listeners if one.beside}


_noted: dict[str, Noted] = {}
_noting = threading.Lock()


@contextlib.contextmanager
def noted(record: RunRecord) -> Iterator[Noted]:
    """Note a tree's ports before its first signal; a kill that joins others knows what those have noted."""
    with _noting:
        entry = _noted.setdefault(record.control, Noted())
        entry.kills += 1
    try:
        with contextlib.suppress(OSError):  # no descriptor is free: a kill must get through all the same
            entry.add(listeners_of(members_now(record)))
        yield entry
    finally:
        with _noting:
            entry.kills -= 1
            if entry.kills == 0:
                del _noted[record.control]


def fate_of(before: Noted, survivors: Iterable[int]) -> dict[str, Any]:
    """Return what has become of a tree's ports: `ports` in the answer of /kill; of none where that can't be read."""
    holders: dict[int, int | None] = {}
    try:
        if before.own:
            table = {inode: one for inode, one in ports.listening().items() if one.port in before.own}
            holders |= {table[inode].port: pid for inode, pid in _holders_of(table).items()}
        if before.beside:
            left = [member for pid in survivors if (member := read_member(pid)) is not None]
            holders |= {one.port: one.pid for one in listeners_of(left) if one.beside}
    except OSError:  # no descriptor is free: the tree was ended all the same, and the caller is to know how
        return {"freed": [], "held": []}
    noted_ports = before.own | before.beside
    held = [{"port": port, **_named(holders[port])} for port in sorted(noted_ports & holders.keys())]
    return {"freed": sorted(noted_ports - holders.keys()), "held": held}


def _holders_of(table: Table) -> dict[int, int | None]:
    """Return who holds each of these sockets, by pid: the oldest of several, None where rights don't show anyone."""
    if not table:
        return {}
    members = snapshot()
    owners: dict[int, list[Member]] = {}
    for pid, inodes in ports.held(members.values(), table.keys()).items():
        for inode in inodes:
            owners.setdefault(inode, []).append(members[pid])
    return {inode: _oldest(owners[inode]).pid if inode in owners else None for inode in table}


def _named(pid: int | None) -> dict[str, Any]:
    words = shown(command_line(pid)) if pid is not None else ""
    return {"pid": pid, "command_line": words or None}


def refuse_taken(
    port: int, index: RunIndex, ending: RunRecord | None, asked: Mapping[int, tuple[str, int | None]]
) -> None:
    """Raise `ConflictError` when a start's port, 0 for none, is taken: a socket listens on it, at whatever address.

    The tree of `ending`, which is to be ended first, does not count, but its daemons do. `asked` has the ports that
    live processes of other names have asked for, with these names and their pids.
    """
    if not port:
        return
    if port in asked:
        raise refusals.port_asked(port, *asked[port])
    table = {inode: one for inode, one in ports.listening().items() if one.port == port}
    if table and ending is not None:
        table = {inode: table[inode] for inode in table.keys() - _released(ending, table)}
    if not table:
        return
    found = _holders_of(table).values()
    pid = next((pid for pid in found if pid is not None), None)
    path, record = _run_of(pid, index) if pid is not None else ("", None)
    raise refusals.port_taken(port, _named(pid), record, _end_of(path, record) if record is not None else None)


def _released(ending: RunRecord, table: Table) -> set[int]:
    """Return the sockets that are closed when a tree is ended without its daemons, as far as it alone has them."""
    members = members_now(ending)
    daemons = set(divide(ending, members).daemons)
    holders = ports.held(members, table.keys())
    kept = {inode for pid in daemons & holders.keys() for inode in holders[pid]}
    return {inode for inodes in holders.values() for inode in inodes} - kept


def _run_of(pid: int, index: RunIndex) -> tuple[str, RunRecord | None]:
    """Return the record of the run in whose tree this process is, and its path; None where it is no such member.

    It may be a past one: a database stays the daemon of the run that has started it.
    """
    above = _parents(pid)
    index.wait_until_built()
    for path in map(index.path_of, index.live()):
        record = read_record(path)
        if record is not None and not record.state.ended and _has_member(record, pid, above):
            return path, record
    return "", None


def _has_member(record: RunRecord, pid: int, above: set[int]) -> bool:
    """Tell whether a process is of a run's tree: below its keepers or, where these are dead, by other proofs."""
    keepers = live_keepers(record)
    return bool(keepers & above) if keepers else any(member.pid == pid for member in members_of(record))


def _end_of(path: str, record: RunRecord) -> str:
    """Return the call that ends a run: a past one is out of reach of a call by name."""
    if Pointer(Path(path).parent, record.name).read() == path:
        return f"/kill?name={record.name}"
    return f"/kill?run_id={record.run_id}"


def _parents(pid: int) -> set[int]:
    """Return the pids of all above a process."""
    found: set[int] = set()
    while (member := read_member(pid)) is not None and member.ppid not in found:
        pid = member.ppid
        found.add(pid)
    return found
