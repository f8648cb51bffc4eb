"""Write down each signal that this process hears, with its sender's pid, and clean up after the first one.

    hears.py REPORT [EXIT_CODE]

REPORT gets "ready PID", then "SIGTERM SENDER" and the like, then "cleaned" once no other signal has come for a moment.
Signals wait in sigwaitinfo(2), which tells the sender; of one kind the kernel keeps one until that is heard.
"""

import os
import signal
import sys

HEARD = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
# A second signal from another sender comes within this time, or belongs to another step of the ending.
SETTLING = 0.5


def main() -> None:
    """Wait for a signal, see whether more come, clean up and exit."""
    report = sys.argv[1]
    code = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    # Unbuffered, in one write each, so that a reader never sees half a line.
    with open(report, "ab", buffering=0) as lines:  # noqa: PTH123  a program started a hundred times imports little
        lines.write(f"ready {os.getpid()}\n".encode())
        print("ready", flush=True)
        info: signal.struct_siginfo | None = signal.sigwaitinfo(HEARD)
        while info is not None:
            lines.write(f"{signal.Signals(info.si_signo).name} {info.si_pid}\n".encode())
            info = signal.sigtimedwait(HEARD, SETTLING)
        print("last words", flush=True)
        lines.write(b"cleaned\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
