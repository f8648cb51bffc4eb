"""Runs in the shim: its program, which starts one command and stays its parent until the run has ended.

`boot.py` starts it as `python -I -S -c BOOT ROOT SITE_PACKAGES DESCRIPTORS RUN_ID` with the request on descriptor 0
(a dictionary by marshal, which needs no import: the run record as JSON, its path, the spec, the program's arguments and
its environment), one end of a socket pair on 3, the listening control socket on 4 and the two ends of the output pipe
on 5 and 6. DESCRIPTORS is how many the command may open. Until its first message it imports next to nothing, since a
caller of `/start` waits for that. The command itself never appears on the shim's command line.

A standby (`stands-by` in the place of RUN_ID) makes the other imports first, and gets all the other descriptors in one
packet on 3, after one that it must reply to, to show that it runs. A replacement shim gets a `Takeover` as its
request, the read end on 5 and the process's pidfd on 6.
"""

import ctypes
import marshal
import os
import resource
import sys

from app.linux.account import Account
from app.linux.libc import PR_SET_CHILD_SUBREAPER, PR_SET_NAME, prctl
from app.protocol.startup import BACKLOG, CONNECTION_FD, LISTENER_FD, NAME, PIPE_FD, WRITE_END_FD
from app.shim.spawn import Program, StepError, spawn, spawn_as

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def main() -> None:
    """Start the command, report that, and keep the run until nothing of it is left."""
    request = marshal.loads(_read_request())  # noqa: S302  from the supervisor that started this shim
    _detach()
    pid = _spawn(request)
    start_ticks = _start_ticks(pid)
    _write_down(request["path"], b',"process":[%d,%d]}' % (pid, start_ticks), len(request["record"]) - 1)
    _send(b'{"type":"started","pid":%d,"start_ticks":%d}' % (pid, start_ticks))

    from app.shim import after_spawn  # noqa: PLC0415  its imports cost more than the spawn: no caller waits now

    after_spawn.keep(request["record"], (pid, start_ticks))


def stand_by() -> None:
    """Make the imports, wait for a run, and keep it; end when the service closes the connection instead."""
    import errno  # noqa: PLC0415  not for `main`, whose caller waits
    import fcntl  # noqa: PLC0415  the same
    import socket  # noqa: PLC0415  the same

    from app.shim import after_spawn  # noqa: F401, PLC0415  imported ahead of time, for `main`

    _send(b"\0")
    prctl(PR_SET_NAME, NAME)
    with socket.socket(fileno=os.dup(CONNECTION_FD)) as connection:
        try:
            if connection.recv(1):
                _send(b"\0")  # from here on the worker gives the run to no other shim
            packet, fds, flags, _address = socket.recv_fds(connection, 1, 4)
        except ConnectionResetError:  # it was closed before our last packet was read
            packet = b""
    if not packet:
        os._exit(0)
    if flags & socket.MSG_CTRUNC:  # descriptors without room in our table were dropped (recvmsg(2), unix(7))
        _fail("spawn", errno.EMFILE)
    try:
        # Duplicated above their target numbers first, since some of them may have one of these already.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, WRITE_END_FD + 1) for fd in fds]
        for fd, place in zip(high, (0, LISTENER_FD, PIPE_FD, WRITE_END_FD), strict=True):
            os.dup2(fd, place)
    except OSError as error:
        _fail("spawn", error.errno or 0)
    main()


def take_over() -> None:
    """Keep a run whose shim died, until nothing of it is left."""
    request = _read_request()
    _detach()

    from app.shim import after_spawn  # noqa: PLC0415  as above

    after_spawn.take_over(request)


def _detach() -> None:
    """Leave the service's session, close descriptors inherited by accident, and become a subreaper."""
    os.setsid()
    os.closerange(WRITE_END_FD + 1, os.sysconf("SC_OPEN_MAX"))
    _limit_descriptors(int(sys.argv[3]))
    for fd in range(CONNECTION_FD, WRITE_END_FD + 1):
        os.set_inheritable(fd, False)
    prctl(PR_SET_NAME, NAME)
    # A process that double-forks or calls setsid becomes the shim's child and can be found. Children don't inherit the
    # attribute (prctl(2)). It is set before the spawn, so that no orphan comes before it.
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    # A peer that connects gets the pid of the last caller of listen(2) (unix_listen(), net/unix/af_unix.c): ours now.
    ctypes.CDLL(None).listen(LISTENER_FD, BACKLOG)


def _limit_descriptors(soft: int) -> None:
    """Give the command the limit that the service was started with, which the worker has raised for itself."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY:
        soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _read_request() -> bytes:
    with open(0, "rb", closefd=False) as file:
        return file.read()


def _spawn(request: "dict[str, Any]") -> int:
    """Start the command and return its pid; report a failure and exit."""
    program = Program(request["arguments"], request["environment"], request["spec"], WRITE_END_FD)
    account = Account.unpack(program.spec.get("account", b""))
    try:
        pid = spawn(program) if account is None else spawn_as(account, program, ctypes.CDLL(None))
    except StepError as error:
        _fail(error.step, error.errno)
    os.close(WRITE_END_FD)
    return pid


def _fail(step: str, errno: int) -> "NoReturn":
    """Report which step failed, and exit."""
    _send(b'{"type":"failed","step":"%s","errno":%d}' % (step.encode(), errno))
    os._exit(1)


def _write_down(path: bytes, last_field: bytes, offset: int) -> None:
    """Write the process's identity into the record's padding, over its last brace.

    Otherwise no process would know it if worker and shim were killed before the shim's loop, which needs imports, has
    written its first record. Where the write fails the run goes on; a torn record has its spare.
    """
    try:
        # Follows no link and waits for no reader of a FIFO: another program may have put one there.
        record = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        os.pwrite(record, last_field, offset)
    except OSError:
        pass
    finally:
        os.close(record)


def _send(packet: bytes) -> None:
    """Send to the supervisor; the run goes on where that has died meanwhile."""
    try:
        os.write(CONNECTION_FD, packet)
    except OSError:
        return


def _start_ticks(pid: int) -> int:
    """Return field 22 of `/proc/PID/stat`: it is there even if the process has ended, as it is not reaped yet."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])
