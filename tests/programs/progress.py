"""Draw a progress bar the way tqdm does: redrawn with carriage returns, coloured, one newline at the very end.

Half-way it waits for SIGUSR1.
"""

import signal
import sys

STEPS = 4


def main() -> None:
    """Print "ready", then the bar."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    print("ready", flush=True)
    for step in range(STEPS + 1):
        done = "#" * step + "." * (STEPS - step)
        sys.stderr.write(f"\r\x1b[32m{step * 100 // STEPS:3d}%\x1b[0m |{done}| {step}/{STEPS}")
        sys.stderr.flush()
        if step == STEPS // 2:
            signal.sigwait([signal.SIGUSR1])
    sys.stderr.write("\n")


if __name__ == "__main__":
    main()
