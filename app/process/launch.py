"""How the supervisor starts a shim, and through it a command."""

import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from app.process import control
from app.process.contact import wake
from app.process.control import Failed, Kill, Started
from app.process.run import RunRecord, Takeover, encode_record, record_path
from app.process.shim import LINK_FD
from app.process.tree import Identity

ROOT = str(Path(__file__).resolve().parents[2])
SITE_PACKAGES = str(Path(msgspec.__file__).resolve().parents[1])
# -S and two directories given by name spare the shim the search for site-packages: half of a bare start. -I keeps the
# service's PYTHON* variables, which the command must get, from meaning anything to the shim.
BOOT = "import sys; sys.path[:0] = sys.argv[1:3]; from app.process.shim import {0}; {0}()"
# A shim answers within a fraction of a second; a machine that swaps may need longer, and then the caller is told.
START_TIMEOUT = 30.0
WAKE_INTERVAL = 0.5
# What the interpreter itself may need to come up.
SHIM_ENVIRONMENT = frozenset({"LD_LIBRARY_PATH", "PATH"})

SERVICE_PREFIXES = (b"LLM_SHELL_", b"GUNICORN_", b"LISTEN_", b"MAKE")
SERVICE_NAMES = frozenset({b"SERVER_SOFTWARE", b"NOTIFY_SOCKET", b"MFLAGS"})
AGENT_DEFAULTS = {b"PYTHONUNBUFFERED": b"1", b"PAGER": b"cat", b"GIT_PAGER": b"cat", b"TERM": b"dumb"}


class Launched(NamedTuple):
    """Hold what a launch gives: the process, its shim, the connection to that, and a read end of the output pipe."""

    process: Identity
    shim: int
    link: socket.socket
    pipe: int


class LaunchError(Exception):
    """Say which step of a launch failed and with which system error."""

    def __init__(self, step: str, errno: int) -> None:
        super().__init__(os.strerror(errno))
        self.step = step
        self.errno = errno


def process_environment(extra: Mapping[str, str], login: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the command's environment: the service's, less what is its own, with a user's variables and `extra`."""
    inherited = {
        name: value
        for name, value in os.environb.items()
        if name not in SERVICE_NAMES and not name.startswith(SERVICE_PREFIXES)
    }
    given = {name.encode(): value.encode() for name, value in extra.items()}
    return {**inherited, **login, **AGENT_DEFAULTS, **given}


def launch(record: RunRecord, environment: Mapping[bytes, bytes], listener: socket.socket) -> Launched:
    """Start a shim that starts the command, and serves whoever connects to `listener`.

    Blocks for some 20 ms. Raises `LaunchError` or `OSError`; then neither shim nor process is left.
    """
    fields = [encode_record(record), os.fsencode(record_path(record.log_file))]
    fields += [record.shell.encode(), record.command.encode(), os.fsencode(record.cwd), record.account.encode()]
    fields += [b"%b=%b" % entry for entry in environment.items()]
    with contextlib.ExitStack() as on_failure:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        on_failure.callback(os.close, read_end)
        try:
            fds = [listener.fileno(), read_end, write_end]
            shim, link = _spawn_shim("main", record.run_id, b"\0".join(fields), fds)
        finally:
            os.close(write_end)
        on_failure.callback(link.close)
        answer = _first_answer(link, shim)
        if not isinstance(answer, Started):
            _put_down(shim)
            raise LaunchError(answer.step, answer.errno)
        on_failure.pop_all()
    return Launched(Identity(answer.pid, answer.start_ticks), shim, link, read_end)


def abandon(launched: Launched) -> None:
    """End a tree that nobody can watch, and its shim, and wait until both are gone."""
    with launched.link:
        launched.link.settimeout(START_TIMEOUT)
        with contextlib.suppress(OSError):
            launched.link.send(control.encode(Kill(0, "SIGKILL", 0.0, "kill")))
            while control.receive(launched.link)[0]:
                pass
    _put_down(launched.shim)


def launch_takeover(
    takeover: Takeover, listener: socket.socket, pipe: int | None, pidfd: int | None
) -> tuple[int, socket.socket]:
    """Start a shim that keeps a run whose shim died; return its pid and the connection to it. Raises `OSError`."""
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  a descriptor to stand in for one that is not there
        fds = [fd if fd is not None else nothing.fileno() for fd in (pipe, pidfd)]
        return _spawn_shim(
            "take_over", takeover.record.run_id, msgspec.json.encode(takeover), [listener.fileno(), *fds]
        )


def _spawn_shim(entry: str, run_id: str, request: bytes, fds: list[int]) -> tuple[int, socket.socket]:
    """Start a shim: the request is its 0, a new connection its LINK_FD, `fds` follow; return its pid and our end."""
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as on_failure:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        on_failure.callback(ours.close)
        stack.enter_context(theirs)
        # Any size without a reader, unlike a pipe, and without a name (memfd_create(2)).
        file = stack.enter_context(os.fdopen(os.memfd_create("llm-shell-request"), "w+b", buffering=0))
        file.write(request)
        file.seek(0)
        # Out of the way of the numbers they are to have, or one dup2 could overwrite the source of the next.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in (theirs.fileno(), *fds)]
        for fd in high:
            stack.callback(os.close, fd)
        actions = [(os.POSIX_SPAWN_DUP2, fd, LINK_FD + place) for place, fd in enumerate(high)]
        shim = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", BOOT.format(entry), ROOT, SITE_PACKAGES, run_id],
            # None of the service's environment: it may hold the token, and the command's own goes with the request.
            {name: value for name, value in os.environ.items() if name in SHIM_ENVIRONMENT},
            file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), 0), *actions],
            setsid=True,
            setsigmask=(),
        )
        on_failure.pop_all()
    return shim, ours


def _first_answer(link: socket.socket, shim: int) -> Started | Failed:
    """Wait for what a shim says first; its command may have stopped it before it could."""
    deadline = time.monotonic() + START_TIMEOUT
    while (left := deadline - time.monotonic()) > 0:
        link.settimeout(min(left, WAKE_INTERVAL))
        try:
            answer = control.decode_from_shim(control.receive(link)[0])
        except TimeoutError:
            wake(shim)
            continue
        except (OSError, msgspec.MsgspecError):
            break
        link.settimeout(None)
        return answer if isinstance(answer, Started | Failed) else Failed("spawn", 0)
    return Failed("spawn", 0)


def _put_down(shim: int) -> None:
    """End a shim that could not start its command, and reap it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(shim, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(shim, 0)
