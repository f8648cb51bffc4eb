"""Run three workers that each finish a task after SIGTERM; print "ready", and who hears the signal from whom.

The pool passes SIGTERM on and waits for its workers, unless the first argument is "idle": then it only prints it.
"""

import os
import signal
import sys
import time

WORKERS = 3
TERM = {signal.SIGTERM}


def tell(*words: object) -> None:
    """Print a line in one piece, which print() does not promise: the others print too."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def work(number: int, ready: int) -> None:
    """Wait for the signal and finish a task, during which another signal would be heard."""
    os.write(ready, b".")
    deadline = None
    while deadline is None or time.monotonic() < deadline:
        heard = signal.sigtimedwait(TERM, 0.3)
        if heard is not None:
            tell("worker", number, "SIGTERM from", "the pool" if heard.si_pid == os.getppid() else "somebody else")
            deadline = time.monotonic() + 0.3
    tell("worker", number, "finished")
    os._exit(0)


def main() -> None:
    """Start the workers, pass the signal on, and wait for them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, TERM)
    heard, ready = os.pipe()
    workers = []
    for number in range(WORKERS):
        pid = os.fork()
        if pid == 0:
            work(number, ready)
        workers.append(pid)
    for _ in workers:
        os.read(heard, 1)
    tell("ready")
    while True:
        signal.sigwait(TERM)
        tell("pool SIGTERM")
        if sys.argv[1:] != ["idle"]:
            break
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    for pid in workers:
        os.waitpid(pid, 0)
    sys.exit(7)


if __name__ == "__main__":
    main()
