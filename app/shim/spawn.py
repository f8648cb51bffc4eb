"""Runs in the shim: start the command, as the service's own user or as another."""

import ctypes
import os
import signal
from typing import Any, Literal, NamedTuple, NoReturn

from app.linux.account import Account
from app.linux.libc import PR_SET_PDEATHSIG, prctl
from app.linux.posix_spawn import RESERVED, SETSID, attributes, posix_spawn

# CPython ignores SIGPIPE and SIGXFSZ, and ignored signals stay ignored across exec (signal(7)). KILL and STOP can't be
# set.
ALL_SIGNALS = [number for number in range(1, 65) if number not in (9, 19)]
_libc = ctypes.CDLL(None)


class StepError(Exception):
    """Report which step failed, and with which errno."""

    def __init__(self, step: Literal["cwd", "spawn"], errno: int) -> None:
        super().__init__(step, errno)
        self.step = step
        self.errno = errno


class Program(NamedTuple):
    """Hold the program to execute: arguments, environment, spec, and the descriptors that become its own.

    `output` becomes stdout and stderr, `stdin` what its name says; where that is negative the null device does. `spec`
    is `runs.spec.Spec` as a dictionary, its texts encoded, without the fields that have their defaults.
    """

    arguments: list[bytes]
    environment: list[bytes]
    spec: dict[str, Any]
    output: int
    stdin: int


def spawn(program: Program) -> int:
    """Start the program in a session of its own, as the spec's user; return its pid. Raises `StepError`.

    Closes `stdin`: only readers of its own keep the pipe from breaking for those that write to it.
    """
    account = Account.unpack(program.spec.get("account", b""))
    try:
        if program.stdin < 0:
            program = program._replace(stdin=os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        elif account is not None:
            os.fchown(program.stdin, account.uid, account.gid)  # as for the output, below
        try:
            return _spawn(program) if account is None else _spawn_as(account, program)
        finally:
            os.close(program.stdin)
    except OSError as error:
        raise StepError("spawn", error.errno or 0) from error


def _spawn(program: Program) -> int:
    """Start the program as this process's own user. Raises `StepError` and `OSError`."""
    try:
        os.chdir(program.spec["cwd"])
    except OSError as error:
        raise StepError("cwd", error.errno or 0) from error
    places = ((program.stdin, 0), (program.output, 1), (program.output, 2))
    try:
        return posix_spawn(program.arguments, program.environment, places, _COMMAND)
    finally:
        os.chdir("/")


_COMMAND = attributes(ALL_SIGNALS, flags=SETSID)


def _spawn_as(account: Account, program: Program) -> int:
    """Start the program as another user, which posix_spawn(3) can't: fork, become that user, exec.

    The user becomes the owner of the pipe first: /dev/stdout is a link to it under /proc, and to open it that way takes
    the right to the pipe itself. Raises `StepError` and `OSError`.
    """
    os.fchown(program.output, account.uid, account.gid)
    failures, report = os.pipe2(os.O_CLOEXEC)
    shim = os.getpid()
    pid = os.fork()
    if pid == 0:
        _execute(account, program, report, shim)
    os.close(report)
    failure = os.read(failures, 64)
    os.close(failures)
    if failure:
        os.waitpid(pid, 0)
        step, number = failure.split()
        raise StepError("cwd" if step == b"cwd" else "spawn", int(number))
    return pid


def _execute(account: Account, program: Program, report: int, shim: int) -> NoReturn:
    """Become the program, in the child; or report the failed step, and exit. A successful exec closes `report`."""
    step = b"spawn"
    try:
        os.setsid()
        for source, target in ((program.stdin, 0), (program.output, 1), (program.output, 2)):
            os.dup2(source, target)
        for number in ALL_SIGNALS:
            if number not in RESERVED:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        account.become(_libc)
        step = b"cwd"
        _die_with(shim, signal.SIGKILL)
        os.chdir(program.spec["cwd"])
        _die_with(shim, 0)
        step = b"spawn"
        environment = dict(entry.split(b"=", 1) for entry in program.environment)
        os.execve(program.arguments[0], program.arguments, environment)  # noqa: S606  the shell is the product
    except OSError as error:
        os.write(report, b"%b %d" % (step, error.errno or 0))
    finally:
        os._exit(127)


def _die_with(shim: int, number: int) -> None:
    """Set the signal that the shim's death sends, 0 for none; exit if the shim is dead already.

    A file system that does not answer may block the child until the worker has given up its shim; then nothing must be
    executed any more. A change of user clears the setting, an exec does not (prctl(2)): 0 lets the command outlive it.
    """
    prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != shim:
        os._exit(127)
