"""Draw a progress bar the way tqdm does: redrawn with carriage returns, coloured, one newline at the very end."""

import sys
import time

STEPS = 4
INTERVAL = 0.4  # longer than the 200 ms after which an unfinished line is shown


def main() -> None:
    """Print "ready", then the bar."""
    print("ready", flush=True)
    for step in range(STEPS + 1):
        done = "#" * step + "." * (STEPS - step)
        sys.stderr.write(f"\r\x1b[32m{step * 100 // STEPS:3d}%\x1b[0m |{done}| {step}/{STEPS}")
        sys.stderr.flush()
        time.sleep(INTERVAL)
    sys.stderr.write("\n")


if __name__ == "__main__":
    main()
