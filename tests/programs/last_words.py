"""Print "ready"; print each SIGTERM that comes and, some seconds after the first, a thousand lines; end with 6."""

import signal
import sys
import time


def main() -> None:
    """Wait for the signal, then say the last words."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})
    print("SIGTERM", flush=True)
    deadline = time.monotonic() + float(sys.argv[1] if len(sys.argv) > 1 else 0)
    while (left := deadline - time.monotonic()) > 0:
        if signal.sigtimedwait({signal.SIGTERM}, left):
            print("SIGTERM", flush=True)
    for number in range(1000):
        print("last words", number, flush=True)
    sys.exit(6)


if __name__ == "__main__":
    main()
