"""Ignore SIGTERM, but print each one; end by SIGKILL only."""

import signal


def main() -> None:
    """Print "ready", then wait for signals."""
    signal.signal(signal.SIGTERM, lambda *_: print("SIGTERM", flush=True))
    print("ready", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
