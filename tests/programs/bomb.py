"""Fork without end, as an unprivileged user who may have so many processes (first argument); print "ready" first.

Every process of the bomb ignores SIGTERM and forks again whenever it can.
"""

import os
import resource
import signal
import sys
import time

# Who has no other process on this machine, all of which RLIMIT_NPROC would count (setrlimit(2)).
LONELY_USER = 100_000 + os.getpid()
FORKS_AT_MOST = 200_000


def main() -> None:
    """Become a user of its own, then a bomb."""
    limit = int(sys.argv[1])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if os.geteuid() == 0:
        os.setgid(LONELY_USER)
        os.setuid(LONELY_USER)
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
