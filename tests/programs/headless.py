"""Print "ready" from a second thread, once the first one has ended: the process reads as a zombie from then on."""

import ctypes
import sys
import threading
import time


def main() -> None:
    """End the first thread and go on without it."""
    threading.Thread(target=go_on, args=(threading.main_thread(),)).start()
    ctypes.CDLL(None).pthread_exit(None)


def go_on(first: threading.Thread) -> None:
    """Wait for the end of the first thread, as the kernel sees it, and stay."""
    while _state_of(first) != "Z":
        time.sleep(0.01)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        time.sleep(100)


def _state_of(thread: threading.Thread) -> str:
    with open(f"/proc/self/task/{thread.native_id}/stat") as file:  # noqa: PTH123  no import for one line
        return file.read().rpartition(")")[2].split()[0]


if __name__ == "__main__":
    main()
