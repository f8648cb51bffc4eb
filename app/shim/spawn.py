"""Runs in the shim: start the command, as the service's own user or as another."""

import ctypes
import os

from app.linux.account import Account
from app.linux.posix_spawn import RESERVED, SETSID, attributes, posix_spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import CDLL
    from typing import Any, NoReturn

# CPython ignores SIGPIPE and SIGXFSZ, and ignored signals stay ignored across exec (signal(7)). KILL and STOP can't be
# set.
ALL_SIGNALS = [number for number in range(1, 65) if number not in (9, 19)]
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_libc = ctypes.CDLL(None)


class StepError(Exception):
    """Report which step failed, and with which errno."""

    def __init__(self, step: str, errno: int) -> None:
        super().__init__(step, errno)
        self.step = step
        self.errno = errno


class Program:
    """Hold the program to execute: arguments, environment, spec, and the descriptor that becomes stdout and stderr.

    `spec` is `runs.spec.Spec` as a dictionary, its texts encoded, without the fields that have their defaults.
    """

    def __init__(
        self, arguments: list[bytes], environment: dict[bytes, bytes], spec: "dict[str, Any]", output: int
    ) -> None:
        self.path = arguments[0]
        self.arguments = arguments
        self.spec = spec
        self.environment = environment
        self.output = output


def spawn(program: Program) -> int:
    """Start the program in a session of its own; return its pid."""
    try:
        os.chdir(program.spec["cwd"])
    except OSError as error:
        raise StepError("cwd", error.errno or 0) from error
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    entries = [b"%b=%b" % entry for entry in program.environment.items()]
    places = ((null, 0), (program.output, 1), (program.output, 2))
    try:
        return posix_spawn(program.arguments, entries, places, _COMMAND)
    except OSError as error:
        raise StepError("spawn", error.errno or 0) from error
    finally:
        os.close(null)
        os.chdir("/")


_COMMAND = attributes(ALL_SIGNALS, flags=SETSID)


def spawn_as(account: Account, program: Program, libc: "CDLL") -> int:
    """Start the program as another user, which posix_spawn(3) can't: fork, become that user, exec.

    The user becomes the owner of the pipe first: /dev/stdout is a link to it under /proc, and to open it that way takes
    the right to the pipe itself.
    """
    import signal  # noqa: F401, PLC0415  imported before the fork, and only for a start as another user

    try:
        os.fchown(program.output, account.uid, account.gid)
        failures, report = os.pipe2(os.O_CLOEXEC)
        shim = os.getpid()
        pid = os.fork()
    except OSError as error:
        raise StepError("spawn", error.errno or 0) from error
    if pid == 0:
        _execute(account, program, report, libc, shim)
    os.close(report)
    failure = os.read(failures, 64)
    os.close(failures)
    if failure:
        os.waitpid(pid, 0)
        step, number = failure.decode().split()
        raise StepError(step, int(number))
    return pid


def _execute(account: Account, program: Program, report: int, libc: "CDLL", shim: int) -> "NoReturn":
    """Become the program, in the child; or report the failed step, and exit. A successful exec closes `report`."""
    import signal  # noqa: PLC0415  as above

    step = b"spawn"
    try:
        os.setsid()
        for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (program.output, 1), (program.output, 2)):
            os.dup2(source, target)
        for number in ALL_SIGNALS:
            if number not in RESERVED:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        account.become(libc)
        step = b"cwd"
        _die_with(shim, _SIGKILL, libc)
        os.chdir(program.spec["cwd"])
        _die_with(shim, 0, libc)
        step = b"spawn"
        os.execve(program.path, program.arguments, program.environment)  # noqa: S606  the shell is the product
    except OSError as error:
        os.write(report, b"%b %d" % (step, error.errno or 0))
    finally:
        os._exit(127)


def _die_with(shim: int, number: int, libc: "CDLL") -> None:
    """Set the signal that the shim's death sends, 0 for none; exit if the shim is dead already.

    A file system that does not answer may block the child until the worker has given up its shim; then nothing must be
    executed any more. A change of user clears the setting, an exec does not (prctl(2)): 0 lets the command outlive it.
    """
    libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != shim:
        os._exit(127)
