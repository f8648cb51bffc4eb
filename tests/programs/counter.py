"""Print "ready", then the numbers from 1 on, one a line: a line that is missing, doubled or out of order shows."""

import argparse
import itertools
import signal
import sys
import threading
import time


def main() -> int:
    """Count as asked and return the exit code."""
    asked = _parse_arguments()
    resumed = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: resumed.set())
    if asked.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    numbers = itertools.count(1) if asked.count is None else range(1, asked.count + 1)
    for number in numbers:
        sys.stdout.write(f"{number}\n")  # in one piece, which print() does not promise
        sys.stdout.flush()
        if number == asked.pause_at:
            resumed.wait()
        if asked.interval:
            time.sleep(asked.interval)
    return int(asked.exit_code)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, help="end after so many numbers (default: never)")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between two numbers (default: none)")
    parser.add_argument("--pause-at", type=int, help="after this number, wait for SIGUSR1")
    parser.add_argument("--exit-code", type=int, default=0, help="end with this (default: 0)")
    parser.add_argument("--stubborn", action="store_true", help="ignore SIGTERM")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
