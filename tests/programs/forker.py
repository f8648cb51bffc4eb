"""Keep a tree moving: print "ready", then fork a child and end, for ever; the child does the same in a new session."""

import os
import time


def main() -> None:
    """Move through pids until killed."""
    print("ready", flush=True)
    while True:
        if os.fork():
            os._exit(0)
        os.setsid()
        time.sleep(0.002)


if __name__ == "__main__":
    main()
