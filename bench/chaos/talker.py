"""Runs as the command of a run: print numbers, and note elsewhere what truly happened, for the checks to compare.

Started as `talker.py DIRECTORY TOKEN FIELDS`. The file `TOKEN.PID` in the directory gets a line after each event:
`pid PID START KIND` of each process, `line N` when write(2) has taken it, `refused N` when the pipe had no reader,
and `exit CODE`. FIELDS is a JSON object: `lines` numbers at an `interval`, then exit with `code`.
`on_term`: "die", "ignore", or "tidy", which prints one more number and exits. `on_pipe`: where nothing reads, "die" by
SIGPIPE, or "note" it and go on. `child`: a "leftover" or "escapee" (in a session of its own) that prints `child_lines`
more once this process has ended, or a "daemon" that prints nothing. `sleeper`: a silent process in a session of its
own from the beginning. `closes_at`: the number after which the output is closed.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

SILENT_FOR = 15.0  # how long a process that prints nothing lives, when no other ends it


class Talker:
    """Print numbers on standard output."""

    def __init__(self, notes: int) -> None:
        self._notes = notes
        self._number = 0
        self._closed = False
        self.asked_to_end = False

    def note(self, event: str) -> None:
        """Add an event; one write(2) with O_APPEND, so that several processes can share the file."""
        os.write(self._notes, f"{event}\n".encode())

    def introduce(self, kind: str) -> None:
        """Note which process this is; pid and start time together are never used again."""
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123  the import of pathlib takes longer than all the rest
            start = file.read().rpartition(b")")[2].split()[19].decode()
        self.note(f"pid {os.getpid()} {start} {kind}")

    def say(self) -> None:
        """Print the next number in one piece."""
        if self._closed:
            return
        self._number += 1
        try:
            os.write(1, b"%d\n" % self._number)
        except BrokenPipeError:
            self.note(f"refused {self._number}")
        else:
            self.note(f"line {self._number}")

    def talk(self, lines: int, interval: float) -> None:
        """Print so many numbers, or until SIGTERM asks for an end."""
        for _ in range(lines):
            if self.asked_to_end:
                break
            self.say()
            time.sleep(interval)

    def close_output(self) -> None:
        """Give the output up, so that this process holds it no longer."""
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        os.close(null)
        self._closed = True

    def ask_to_end(self, *_: object) -> None:
        """Handle SIGTERM: the loop looks after each number, so that none is printed twice."""
        self.asked_to_end = True


def main() -> None:
    """Talk as asked, leave behind what is asked for, and end with the code that is asked for."""
    directory, token, fields = sys.argv[1:]
    asked = json.loads(fields)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    talker = Talker(os.open(f"{directory}/{token}.{os.getpid()}", flags, 0o600))
    if asked["on_term"] != "die":
        signal.signal(signal.SIGTERM, signal.SIG_IGN if asked["on_term"] == "ignore" else talker.ask_to_end)
    if asked["on_pipe"] == "die":
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it
    talker.introduce("process")
    if asked["sleeper"]:
        _fork(lambda: _sleep(talker, "sleeper"))
    spoken = asked["closes_at"] or asked["lines"]
    talker.talk(spoken, asked["interval"])
    if asked["closes_at"]:
        talker.close_output()
        talker.talk(asked["lines"] - spoken, asked["interval"])
    if talker.asked_to_end:
        talker.say()
    elif asked["child"] != "none":
        _fork(lambda: _go_on(talker, asked))
    talker.note(f"exit {asked['code']}")
    os._exit(asked["code"])


def _go_on(talker: Talker, asked: dict[str, Any]) -> None:
    """Live on after the process."""
    if asked["child"] == "daemon":
        talker.close_output()
        _sleep(talker, "daemon")
        return
    kind = asked["child"]
    if kind == "escapee":
        os.setsid()
        kind = "daemon" if asked["closes_at"] else kind  # without the output it is one, which a replacement spares
    talker.introduce(kind)
    talker.talk(asked["child_lines"], asked["interval"])


def _sleep(talker: Talker, kind: str) -> None:
    os.setsid()
    talker.introduce(kind)
    time.sleep(SILENT_FOR)


def _fork(work: Callable[[], None]) -> None:
    """Do this in a new process, which ends with it."""
    if os.fork() == 0:
        work()
        os._exit(0)


if __name__ == "__main__":
    main()
