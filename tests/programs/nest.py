"""Print "ready" after starting children in every way in which one escapes a kill of the process group.

Each ignores SIGTERM and SIGHUP if the first argument is "stubborn"; each prints its pid.
"""

import os
import signal
import sys
import time

FAMILY: tuple[tuple[str, ...], ...] = (
    (),
    ("setpgid",),
    ("setsid",),
    ("fork",),
    ("setsid", "fork"),
    ("fork", "setsid", "fork"),
)


def tell(what: object) -> None:
    """Print a line in one piece, which print() does not promise: the others print too."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def wait_for_ever() -> None:
    """Stay."""
    while True:
        time.sleep(100)


def spawn(steps: tuple[str, ...], settled: int) -> None:
    """Fork a child that takes these steps, tells its pid and that it has settled, and stays."""
    if os.fork():
        return
    for step in steps:
        if step == "setsid":
            os.setsid()
        elif step == "setpgid":
            os.setpgid(0, 0)
        elif step == "fork":
            lose_parent()
    tell(os.getpid())
    os.write(settled, b".")
    wait_for_ever()


def lose_parent() -> None:
    """Go on in a child whose parent has ended."""
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == parent:
        time.sleep(0.001)


def main() -> None:
    """Make the family and stay as its head."""
    if sys.argv[1:] == ["stubborn"]:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    heard, settled = os.pipe()
    for steps in FAMILY:
        spawn(steps, settled)
    for _ in FAMILY:
        os.read(heard, 1)
    tell(os.getpid())
    tell("ready")
    wait_for_ever()


if __name__ == "__main__":
    main()
