"""Who gets which signal from whom, as the kernel tells it: no process is traced or slowed down for it.

Documentation/trace/ftrace.rst and events.rst. An instance is a buffer of its own: other users are not disturbed.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bench.service import KEEPERS, name

TRACEFS = Path("/sys/kernel/tracing")
EVENTS = ("signal/signal_generate", "sched/sched_process_fork")
# Those that end programs; a shell or Node sends itself many others.
NUMBERS = {1: "HUP", 2: "INT", 3: "QUIT", 6: "ABRT", 9: "KILL", 13: "PIPE", 15: "TERM"}
# TRACE_SIGNAL_IGNORED and TRACE_SIGNAL_ALREADY_PENDING of include/trace/events/signal.h.
UNHEARD = {"1", "2"}
LINE = re.compile(
    r"^\s*(?P<comm>.*)-(?P<tid>\d+)\s+\(\s*(?P<pid>\d+|-+)\)\s+\[\d+\]\s+\S+\s+[\d.]+: (?P<event>\w+): (?P<rest>.*)$"
)
SIGNAL = re.compile(r"sig=(\d+) errno=-?\d+ code=-?\d+ comm=(.*) pid=(\d+) grp=\d+ res=(\d+)")
FORK = re.compile(r"pid=(\d+) child_comm=.* child_pid=(\d+)")
LONGEST = 24
INTERPRETERS = re.compile(r"(node|MainThread|python[\d.]*|perl|sh|bash|dash)$")


class Signal(NamedTuple):
    """One signal: its name, and who got it from whom. `ours` tells that the service sent it."""

    signal: str
    target: int
    sender: str
    ours: bool


class Recorder:
    """Record the signals that a tree gets from `begin` on. `names` are those of its members by pid."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pids: dict[int, int] = {}
        self.names: dict[int, str] = {}

    def begin(self, members: list[int]) -> None:
        """Forget what came before, and watch these processes and what they start."""
        self.names = {pid: label(pid) for pid in members}
        self._pids = {tid: pid for pid in members for tid in _threads(pid)}
        (self._folder / "trace").write_text("")
        for event in EVENTS:
            (self._folder / "events" / event / "enable").write_text("1")

    def end(self) -> list[Signal]:
        """Return the signals in the order in which they came, without those that a target ignores or has pending."""
        for event in EVENTS:
            (self._folder / "events" / event / "enable").write_text("0")
        found = [LINE.match(line) for line in (self._folder / "trace").read_text(errors="replace").splitlines()]
        return [signal for line in found if line for signal in self._signals(line.groupdict())]

    def _signals(self, line: Mapping[str, str]) -> Iterator[Signal]:
        if fork := FORK.search(line["rest"]) if line["event"] == "sched_process_fork" else None:
            parent, child = int(fork[1]), int(fork[2])
            if parent in self._pids:
                self._pids[child] = child
                self.names.setdefault(child, self.names[self._pids[parent]])
        seen = SIGNAL.search(line["rest"]) if line["event"] == "signal_generate" else None
        if seen is None or int(seen[1]) not in NUMBERS or seen[4] in UNHEARD or int(seen[3]) not in self._pids:
            return
        target = self._pids[int(seen[3])]
        sender = self._pids.get(int(line["tid"]), int(line["tid"]))
        ours = line["comm"].strip() in KEEPERS
        if sender != target:  # a program that has cleaned up often ends by sending itself the signal
            yield Signal(NUMBERS[int(seen[1])], target, self.names.get(sender, line["comm"].strip()), ours)


@contextlib.contextmanager
def recording() -> Iterator[Recorder]:
    """Offer a recorder; raises `SystemExit` where the kernel offers none to this user."""
    folder = TRACEFS / "instances" / f"llm-shell-bench-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "options" / "record-tgid").write_text("1")
    except OSError as error:
        raise SystemExit(f"the signals can't be seen: {error}; this needs root, and tracefs on {TRACEFS}") from error
    try:
        yield Recorder(folder)
    finally:
        folder.rmdir()


def label(pid: int) -> str:
    """Return the name of a program, for an interpreter that of its script."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        program = Path(words[0].split(" ")[0]).name.removesuffix(":")
        scripts = [word for word in words[1:] if word and not word.startswith("-")]
        if INTERPRETERS.match(program) and scripts and "-c" not in words[: words.index(scripts[0])]:
            script = next((word for word in scripts if "/" in word or "." in word), scripts[0])
            return Path(script).name[:LONGEST]
        return program[:LONGEST] or name(pid)
    return "?"


def _threads(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    return [pid]
