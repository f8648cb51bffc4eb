"""Runs in the chaos runner: what the commands have noted, and their exit codes as the kernel has them."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import threading
from pathlib import Path
from typing import NamedTuple

from bench.chaos.processes import Identity, alive, read

# Linux 6.15: struct pidfd_info, whose last field is the exit code once the process was reaped, by whatever process.
_GET_INFO = 0xC040FF0B
_EXIT = 1 << 3
_INFO = struct.Struct("=QQ11Ii")
LOOKS_A_SECOND = 50


class Noted(NamedTuple):
    """All that is known about one execution of a command, beside what the service says."""

    token: str
    process: Identity | None
    members: dict[Identity, str]
    written: frozenset[int]
    refused: frozenset[int]
    said: int | None
    code: int | None


def parse(name: str, text: str, code: int | None = None) -> Noted:
    """Read one file of notes; its last line may be unfinished."""
    events = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
    members = {Identity(int(rest[0]), int(rest[1])): rest[2] for what, *rest in events if what == "pid"}
    numbers = {
        word: frozenset(int(rest[0]) for what, *rest in events if what == word) for word in ("line", "refused", "exit")
    }
    return Noted(
        token=name.rpartition(".")[0],
        process=next((member for member, kind in members.items() if kind == "process"), None),
        members=members,
        written=numbers["line"],
        refused=numbers["refused"],
        said=next(iter(numbers["exit"]), None),
        code=code,
    )


class Notebook:
    """Follow a directory of notes: hold a pidfd of each command from its first note until its exit code is known."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._codes: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self._seen: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="notes", daemon=True)
        self._thread.start()

    def all(self) -> dict[str, Noted]:
        """Return what is noted by now, by the names of the files."""
        return {path.name: parse(path.name, _text_of(path), self._codes.get(path.name)) for path in self._files()}

    def names(self) -> set[str]:
        """Return the names of the files that there are by now."""
        return {path.name for path in self._files()}

    def living(self, names: set[str] | None = None) -> dict[Identity, str]:
        """Return the members that are alive, of all commands or of these."""
        return {
            member: f"{kind} of {name}"
            for name, noted in self.all().items()
            if names is None or name in names
            for member, kind in noted.members.items()
            if alive(member)
        }

    def is_settled(self, name: str) -> bool:
        """Tell whether the exit code of this command is known, or will never be."""
        return name in self._seen and name not in self._held

    def close(self) -> None:
        """Follow no longer."""
        self._over.set()
        self._thread.join()
        for pidfd in self._held.values():
            os.close(pidfd)

    def _files(self) -> list[Path]:
        return sorted(self.directory.iterdir())

    def _follow(self) -> None:
        while not self._over.wait(1 / LOOKS_A_SECOND):
            for path in self._files():
                if path.name not in self._seen:
                    self._hold(path)
            for name, pidfd in list(self._held.items()):
                self._look(name, pidfd)

    def _hold(self, path: Path) -> None:
        process = parse(path.name, _text_of(path)).process
        if process is None:
            # It has yet to note its start time, unless it has ended before: the name of its file has its pid.
            if read(int(path.name.rpartition(".")[2])) is None:
                self._seen.add(path.name)
            return
        self._seen.add(path.name)
        try:
            pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return
        found = read(process.pid)
        if found is not None and found.identity == process:
            self._held[path.name] = pidfd
        else:
            os.close(pidfd)

    def _look(self, name: str, pidfd: int) -> None:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        if not poller.poll(0):
            return
        info = bytearray(_INFO.pack(_EXIT, *(0,) * 13))
        try:
            fcntl.ioctl(pidfd, _GET_INFO, info)
        except OSError:  # a kernel before 6.15: what it does not tell stays unknown
            os.close(self._held.pop(name))
            return
        mask, *_, status = _INFO.unpack_from(info)
        if mask & _EXIT:  # else it was not reaped yet
            self._codes[name] = os.waitstatus_to_exitcode(status)
            os.close(self._held.pop(name))


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:  # checked and put away meanwhile
        return ""
