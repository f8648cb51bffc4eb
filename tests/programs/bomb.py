"""Fork without end, as an unprivileged user who may have so many processes (first argument); print "ready" first.

Every process of the bomb ignores SIGTERM and forks again whenever it can.
"""

import os
import resource
import signal
import sys
import time

NOBODY = 65534
FORKS_AT_MOST = 200_000


def main() -> None:
    """Become nobody, then a bomb."""
    limit = int(sys.argv[1])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if os.geteuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
    print("ready", flush=True)
    deadline = time.monotonic() + 60
    for _ in range(FORKS_AT_MOST):
        if time.monotonic() > deadline:
            return
        try:
            os.fork()
        except OSError:
            time.sleep(0.001)


if __name__ == "__main__":
    main()
