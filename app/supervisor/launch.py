"""Runs in the worker: start a command through a shim, in an environment without the service's own variables."""

import contextlib
import marshal
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from app.linux import sockets
from app.linux.account import Account
from app.linux.proc import Identity
from app.protocol import messages
from app.protocol.messages import Failed, Kill, Operation, Result, Started, Takeover
from app.runs.names import DEFAULT_NAME, NAME_VARIABLE, RUN_ID_VARIABLE
from app.runs.record import UNDECODABLE, RunRecord, State, encode_record, read_record, record_path
from app.runs.shells import options_for
from app.supervisor.boot import boot, end_unused, request_file
from app.supervisor.handshake import wake
from app.supervisor.orphans import reap_orphans
from app.supervisor.standby import Standby

# Keeps a run without a shim, in the calling thread, until an operation is done; returns the state then and the result.
# It serves the listener meanwhile and closes it. It is the shim's code, which this package must not import:
# `app/service.py` passes it in. Raises `OSError` where there are too few descriptors even for that.
EndTree = Callable[[Takeover, socket.socket, Operation], tuple[State, Result]]

# A shim replies within a fraction of a second; on a machine that swaps it may need longer.
START_TIMEOUT = 30.0
WAKE_INTERVAL = 0.5

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
    """Hold the process, its shim, the connection to that, and a read end of the output pipe."""

    process: Identity
    shim: int
    connection: socket.socket
    pipe: int


class LaunchError(Exception):
    """Report which step of a launch failed and with which system error."""

    def __init__(self, step: str, errno: int) -> None:
        super().__init__(os.strerror(errno))
        self.step = step
        self.errno = errno


def run_variables(run_id: str) -> dict[bytes, bytes]:
    """Return the variables by which a command, and all that it starts, can be known as of this run."""
    return {RUN_ID_VARIABLE.encode(): os.fsencode(run_id), NAME_VARIABLE.encode(): DEFAULT_NAME.encode()}


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
    record: RunRecord,
    environment: Mapping[bytes, bytes],
    listener: socket.socket,
    standby: Standby | None,
    end_tree: EndTree,
) -> Launched:
    """Have a shim start the command and serve `listener`: the one that stands by, or a new one.

    Blocks for some 5 ms with a standby, else for 20. Raises `LaunchError` or `OSError`, and leaves no process then.
    """
    spec = record.spec
    # Without what goes on in another form.
    fields = msgspec.to_builtins(msgspec.structs.replace(spec, command="", env={}))
    options = options_for(spec.shell, Account.unpack(os.fsencode(spec.account)), spec.command)
    request = {
        "record": encode_record(record),
        "path": os.fsencode(record_path(record.log_file)),
        # Encoded here, since the shim's interpreter may use another file system encoding.
        "spec": {name: os.fsencode(value) if isinstance(value, str) else value for name, value in fields.items()},
        "arguments": [part.encode() for part in (spec.shell, *options, spec.command)],
        "environment": dict(environment),
    }
    with contextlib.ExitStack() as on_failure:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        on_failure.callback(os.close, read_end)
        try:
            with request_file(marshal.dumps(request)) as file:
                fds = [file.fileno(), listener.fileno(), read_end, write_end]
                shim, connection = (standby and standby.hand_over(fds)) or boot("main", record.run_id, fds)
        finally:
            os.close(write_end)
        on_failure.callback(connection.close)
        first = _first_message(connection, shim)
        if not isinstance(first, Started):
            end_unused(shim)
            _end_started_process(record, listener, end_tree)
            raise LaunchError(first.step, first.errno)
        on_failure.pop_all()
    return Launched(Identity(first.pid, first.start_ticks), shim, connection, read_end)


def _end_started_process(record: RunRecord, listener: socket.socket, end_tree: EndTree) -> None:
    """End the command of a shim that was killed between spawn and first message: the record names the process."""
    written = read_record(record_path(record.log_file))
    if written is None or written.process is None:
        return
    takeover = Takeover(record=written, process=written.process, parents=[], not_ours=[])
    end_tree(takeover, listener.dup(), Kill("SIGKILL", 0.0, "kill"))
    reap_orphans()


def _first_message(connection: socket.socket, shim: int) -> Started | Failed:
    """Wait for a shim's first message; send it SIGCONT meanwhile, as its command may have stopped it."""
    deadline = time.monotonic() + START_TIMEOUT
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(min(left, WAKE_INTERVAL))
        try:
            first = messages.decode_from_shim(sockets.receive(connection)[0])
        except TimeoutError:
            wake(shim)
            continue
        except (OSError, *UNDECODABLE):
            break
        connection.settimeout(None)
        return first if isinstance(first, Started | Failed) else Failed("spawn", 0)
    return Failed("spawn", 0)
