"""Runs in the worker: start a command through the zygote, in an environment without the service's own variables."""

import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from io import FileIO
from typing import NamedTuple

import msgspec

from app import protocol
from app.linux import sockets
from app.linux.account import Account
from app.linux.descriptors import limit_of_commands
from app.linux.permit import announce, is_taken, new_announcement, new_permit, take
from app.protocol import Crashed, Failed, Start, Started, StartFds
from app.runs.names import NAME_VARIABLE, RUN_ID_VARIABLE
from app.runs.record import UNDECODABLE, RunRecord
from app.runs.shells import options_for
from app.runs.spec import OPEN
from app.supervisor import zygote
from app.supervisor.unreported import end_start, wake_keepers

logger = logging.getLogger(__name__)
# A shim replies within milliseconds; on a machine that swaps it may need longer.
START_TIMEOUT = 30.0
WAKE_INTERVAL = 0.5
# Starts of one command, where its keepers are killed before they have executed it.
ATTEMPTS = 3

# Variables meant for this service and not for its commands: its own settings, gunicorn's and make's, and what systemd
# sets for a unit's sockets, directories, credentials, watchdog and journal (systemd.exec(5)).
SERVICE_PREFIXES = (b"LLM_SHELL_", b"GUNICORN_", b"LISTEN_", b"MAKE", b"WATCHDOG_", b"MEMORY_PRESSURE_")
SERVICE_NAMES = frozenset(
    b"SERVER_SOFTWARE MFLAGS NOTIFY_SOCKET JOURNAL_STREAM INVOCATION_ID SYSTEMD_EXEC_PID MAINPID MANAGERPID "
    b"MANAGERPIDFDID FDSTORE LOG_NAMESPACE DEBUG_INVOCATION CREDENTIALS_DIRECTORY RUNTIME_DIRECTORY STATE_DIRECTORY "
    b"CACHE_DIRECTORY LOGS_DIRECTORY CONFIGURATION_DIRECTORY "
    # The previous directory, and the last command, of the shell that started the service.
    b"OLDPWD _ "
    # With one of these Debian's bash takes itself for a login by ssh, and `bash -c` reads ~/.bashrc (bash(1)).
    b"SSH_CLIENT SSH2_CLIENT".split()
)
# Variables of a login or a change of user, which name directories, agents and mail of the service's user: left out
# where commands run as another.
SESSION_PREFIXES = (b"XDG_", b"SUDO_", b"SSH_", b"DBUS_SESSION_")
SESSION_NAMES = frozenset(
    b"MAIL MAILPATH DOAS_USER PKEXEC_UID XAUTHORITY ICEAUTHORITY SESSION_MANAGER GPG_AGENT_INFO KRB5CCNAME".split()
)
AGENT_DEFAULTS = {b"PYTHONUNBUFFERED": b"1", b"PAGER": b"cat", b"GIT_PAGER": b"cat", b"TERM": b"dumb"}


class Launched(NamedTuple):
    """Hold the shim's first message and the connection to it."""

    started: Started
    connection: socket.socket


class LaunchError(Exception):
    """Report which step of a launch failed and with which system error."""

    def __init__(self, step: str, errno: int) -> None:
        super().__init__(os.strerror(errno))
        self.step = step
        self.errno = errno


def run_variables(run_id: str, name: str) -> dict[bytes, bytes]:
    """Return the variables by which a command, and all that it starts, can be known as of this run and process."""
    return {RUN_ID_VARIABLE.encode(): os.fsencode(run_id), NAME_VARIABLE.encode(): name.encode()}


def process_environment(extra: Mapping[str, str], login: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the command's environment without `run_variables`: the service's less its own, with `login` and `extra`.

    `login` are the variables of the user that commands run as, empty where that is the service's user.
    """
    names = SERVICE_NAMES | SESSION_NAMES if login else SERVICE_NAMES
    prefixes = (*SERVICE_PREFIXES, *SESSION_PREFIXES) if login else SERVICE_PREFIXES
    inherited = {
        name: value for name, value in os.environb.items() if name not in names and not name.startswith(prefixes)
    }
    given = {name.encode(): value.encode() for name, value in extra.items()}
    return {**inherited, **login, **AGENT_DEFAULTS, **given}


def launch(
    record: RunRecord, environment: Mapping[bytes, bytes], listener: socket.socket, prepare: Callable[[], object]
) -> Launched | None:
    """Have the command executed by a shim that serves `listener`, which is closed.

    `prepare` does what has to be done before that and takes some time, while the shim is made.
    None means that the shim was killed after it had begun to: its understudy serves the listener now, or is dead, too.
    Blocks for some 5 ms. Raises `LaunchError` or `OSError`, and leaves no process then.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(listener)
        read_end, write_end = _pipe(stack)
        record.pipe = os.fstat(read_end).st_ino
        permit = new_permit()
        stack.callback(os.close, permit)
        stack.callback(take, permit)  # whatever happens: from here on no shim can execute it that has not yet
        request = stack.enter_context(_request_file(record, environment))
        ready = new_announcement()
        stack.callback(os.close, ready)
        stdin = _stdin(record.spec.stdin, stack)
        fds = StartFds(-1, request.fileno(), listener.fileno(), read_end, write_end, ready, permit, *stdin)
        for number in range(ATTEMPTS):
            # What was prepared and announced once stays so: a later shim may execute the command at once.
            launched = _attempt(record, fds, prepare if number == 0 else _nothing)
            # No process holds the other end of its connection any more, so none can take a permit that is left.
            if launched is not None or is_taken(permit):
                return launched
    raise LaunchError("spawn", 0)


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    """Return the two ends of a new pipe, which the stack closes."""
    ends = os.pipe2(os.O_CLOEXEC)
    for end in ends:
        stack.callback(os.close, end)
    return ends


def _stdin(kind: str, stack: contextlib.ExitStack) -> tuple[int, int]:
    """Return both ends of the pipe that is the standard input, negative numbers where it needs none."""
    return _pipe(stack) if kind == OPEN else (-1, -1)


def _attempt(record: RunRecord, fds: StartFds, prepare: Callable[[], object]) -> Launched | None:
    """Have an understudy forked, and wait for its shim's first message; None when that ended before it sent one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as on_failure:
        on_failure.enter_context(ours)
        with theirs:
            _fork(record, fds._replace(connection=theirs.fileno()))
        try:
            prepare()
            announce(fds.ready)
            first = _first_message(ours, record)
        except LaunchError:  # the shim has reported it, and ends
            raise
        except BaseException as error:
            take(fds.permit)
            end_start(record)
            if isinstance(error, TimeoutError):
                raise LaunchError("spawn", errno.ETIMEDOUT) from error
            raise
        if first is None:
            return None
        on_failure.pop_all()
        return Launched(first, ours)


def _fork(record: RunRecord, fds: StartFds) -> None:
    """Have an understudy forked; one that has begun the start although its zygote died is as good."""
    try:
        zygote.own.fork(fds)
    except OSError:
        if not take(fds.permit):
            return
        end_start(record)
        raise


def _request_file(record: RunRecord, environment: Mapping[bytes, bytes]) -> FileIO:
    """Return a file with the request: of any size, unlike a packet, and without a name (memfd_create(2))."""
    spec = record.spec
    # Without what goes on in another form.
    fields = msgspec.to_builtins(msgspec.structs.replace(spec, command="", env={}))
    options = options_for(spec.shell, Account.unpack(os.fsencode(spec.account)), spec.command)
    start = Start(
        record=record,
        # Encoded here, since the shim's interpreter may use another file system encoding.
        spec={name: os.fsencode(value) if isinstance(value, str) else value for name, value in fields.items()},
        arguments=[part.encode() for part in (spec.shell, *options, spec.command)],
        environment=[b"%b=%b" % entry for entry in environment.items()],
        descriptors=limit_of_commands(),
    )
    with contextlib.ExitStack() as on_failure:
        file = on_failure.enter_context(FileIO(os.memfd_create("llm-shell-request"), "r+"))
        if file.write(data := protocol.encode_start(start)) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        on_failure.pop_all()
    return file


def _nothing() -> None:
    """Prepare nothing: that was done."""


def _first_message(connection: socket.socket, record: RunRecord) -> Started | None:
    """Wait for the shim's first message, None when it ended before that; raises `LaunchError` and `TimeoutError`."""
    deadline = time.monotonic() + START_TIMEOUT
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(min(left, WAKE_INTERVAL))
        try:
            packet, _fds = sockets.receive(connection)
            first = protocol.decode_from_shim(packet) if packet else None
        except TimeoutError:
            wake_keepers(record)
            continue
        except (OSError, *UNDECODABLE):
            return None
        if isinstance(first, Failed):
            raise LaunchError(first.step, first.errno)
        if isinstance(first, Crashed):
            logger.error("A shim crashed:\n%s", first.traceback)
        connection.settimeout(None)
        return first if isinstance(first, Started) else None
    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
