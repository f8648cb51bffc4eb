"""Runs in the master and the worker: start, end and reap a shim's process."""

import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

import msgspec

from app.linux.descriptors import limit_of_commands
from app.linux.posix_spawn import LIBRARY_SIGNALS, attributes, posix_spawn
from app.protocol.startup import CONNECTION_FD

ROOT = str(Path(__file__).resolve().parents[2])
SITE_PACKAGES = str(Path(msgspec.__file__).resolve().parents[1])
_PLACES = (ROOT, SITE_PACKAGES)
# -S and two directories given by name spare the shim the search for site-packages: half the time of a bare
# start. -I keeps the working directory and the user's own packages off the shim's path.
BOOT = "import sys; sys.path[:0] = sys.argv[1:3]; from app.shim.main import {0}; {0}()"
# Variables that the interpreter may need to start.
SHIM_ENVIRONMENT = frozenset({b"LD_LIBRARY_PATH", b"PATH"})
# A Ctrl-C reaches our whole process group, and must not make an interpreter that starts print a traceback; it stays
# blocked, as a shim ignores it anyway.
_SIGNALS = attributes(LIBRARY_SIGNALS, blocked=[signal.SIGINT])
# Seconds that a caller waits until an exiting shim can be reaped.
REAP_TIMEOUT = 1.0


def request_file(request: bytes) -> FileIO:
    """Return a file to read a request from: of any size, unlike a pipe, and without a name (memfd_create(2))."""
    with contextlib.ExitStack() as on_failure:
        file = on_failure.enter_context(FileIO(os.memfd_create("llm-shell-request"), "r+"))
        file.write(request)
        file.seek(0)
        on_failure.pop_all()
    return file


def boot(entry: str, label: str, fds: Sequence[int]) -> tuple[int, socket.socket]:
    """Start a shim at a function of `shim/main.py`; return its pid and our end of its connection (CONNECTION_FD).

    The first of `fds` becomes its 0, the others follow on the numbers after CONNECTION_FD. `label` ends its command
    line. It begins in our session, which holds no member of a tree, and leaves it when it has a run. Raises `OSError`.
    """
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as on_failure:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        on_failure.callback(ours.close)
        stack.enter_context(theirs)
        places = [0, *range(CONNECTION_FD, CONNECTION_FD + len(fds))]
        sources = [_above(fd, places[-1], stack) for fd in (fds[0], theirs.fileno(), *fds[1:])]
        program = (BOOT.format(entry), *_PLACES, str(limit_of_commands()), label)
        pid = posix_spawn(
            [os.fsencode(part) for part in (sys.executable, "-I", "-S", "-c", *program)],
            # None of the service's environment: it may hold the token, and the command's own goes with the request.
            [b"%b=%b" % entry for entry in os.environb.items() if entry[0] in SHIM_ENVIRONMENT],
            list(zip(sources, places, strict=True)),
            _SIGNALS,
        )
        on_failure.pop_all()
    return pid, ours


def _above(fd: int, last_place: int, stack: contextlib.ExitStack) -> int:
    """Return the descriptor, or a duplicate above `last_place`, which no dup2 to a place can overwrite.

    `stack` closes the duplicate, also where the next one can't be made (EMFILE, fcntl(2)): a duplicate of the run's
    listener that stayed open would keep the control name, which every later shim of the run must bind.
    """
    if fd > last_place:
        return fd
    duplicate = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, last_place + 1)
    stack.callback(os.close, duplicate)
    return duplicate


def reap(shim: int) -> None:
    """Reap a shim that is exiting, if it is a child of this process; in the background when it takes long.

    A killed one can be reaped a moment after its connections ended (do_exit(), kernel/exit.c), but one that closed them
    itself much later, on a busy machine. So a caller waits `REAP_TIMEOUT` at most.
    """
    deadline = time.monotonic() + REAP_TIMEOUT
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(shim, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                with contextlib.suppress(RuntimeError):  # no thread can be created: it stays a zombie
                    threading.Thread(target=_wait_for, args=[shim], name="shim-reaper", daemon=True).start()
                return
            time.sleep(0.001)  # a pidfd would take a descriptor, and none may be free


def _wait_for(shim: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(shim, 0)


def end_unused(shim: int) -> None:
    """End a shim that has no command, and reap it.

    It gets no signal once it was reaped elsewhere: its pid may be an unrelated process's then.
    """
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        os.waitid(os.P_PID, shim, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        os.kill(shim, signal.SIGKILL)
        os.waitpid(shim, 0)
