"""Print "ready" after forking children in every way in which one escapes a kill of the process group.

Each ignores SIGTERM and SIGHUP if the first argument is "stubborn"; each prints its pid.
"""

import os
import signal
import sys
import time


def wait_for_ever() -> None:
    """Tell the pid and stay."""
    os.write(1, b"%d\n" % os.getpid())  # in one call: an unbuffered print writes its newline separately
    while True:
        time.sleep(100)


def spawn(*steps: str) -> None:
    """Fork a child that takes these steps and stays."""
    if os.fork():
        return
    for step in steps:
        if step == "setsid":
            os.setsid()
        elif step == "setpgid":
            os.setpgid(0, 0)
        elif step == "fork" and os.fork():
            os._exit(0)
    wait_for_ever()


def main() -> None:
    """Make the family and stay as its head."""
    if sys.argv[1:] == ["stubborn"]:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    spawn()
    spawn("setpgid")
    spawn("setsid")
    spawn("fork")
    spawn("setsid", "fork")
    spawn("fork", "setsid", "fork")
    print("ready", flush=True)
    wait_for_ever()


if __name__ == "__main__":
    main()
