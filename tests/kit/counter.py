"""A counter that a service's process runs, and what it must have printed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.kit.places import PROGRAMS
from tests.kit.service import Service


def counter(**options: float | bool) -> list[str | Path]:
    """Return the command of a counter with these options, such as `pause_at=100`."""
    words: list[str | Path] = ["exec", sys.executable, PROGRAMS / "counter.py"]
    for name, value in options.items():
        words.append(f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}"))
    return words


def start_counter(service: Service, **options: float | bool) -> int:
    """Start a counter, wait until it counts or has come to its pause, and return its pid."""
    pid = int(service.start(counter(**options))["process_pid"])
    service.wait_for_output(f"\n{options.get('pause_at', 1)}")
    return pid


def assert_whole(content: str, last: int | None = None) -> None:
    """Fail unless a counter's output is "ready" and every number from 1 to `last` (default: to any), once and in order.

    Unless a last one is given, the counter was killed, maybe in the middle of a number.
    """
    lines = content.split("\n")
    expected = ["ready", *map(str, range(1, len(lines)))]
    if last is None:
        assert expected[-1].startswith(lines.pop())
        expected.pop()
    assert lines == expected
    assert last in {None, len(lines) - 1}


def go_on(pid: int) -> None:
    """End the pause of a counter."""
    os.kill(pid, signal.SIGUSR1)


def numbers(content: str) -> list[int]:
    """Return the numbers that a counter has printed."""
    return [int(line) for line in content.split() if line != "ready"]
