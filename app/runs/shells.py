"""Runs in the master and the worker: the shell that runs commands: path, options, and the variables it passes on."""

import contextlib
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from app.linux.account import Account

# Tried before PATH, which the service may have inherited.
_USUAL_PLACES = ("/bin/bash", "/usr/bin/bash")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A shell that takes longer to start, over a start-up file of its own, is not probed any further.
_PROBE_TIMEOUT = 5.0
# Valid in every shell, POSIX or not; cat's own environment is what the shell passed on.
_SHOW_ENVIRONMENT = "cat /proc/self/environ"
_SENTINEL = b"LANG"
# What a shell's path has to be, as part of a sentence.
WANTED = "must be the absolute path of an executable file"
_ROOT = str(Path(__file__).resolve().parents[2])
_REFUSED = 77
_MAY_EXECUTE = (
    "import os, sys; from ctypes import CDLL; sys.path.insert(0, sys.argv[1]); from app.linux.account import Account; "
    "Account.unpack(sys.argv[2].encode()).become(CDLL(None)); "
    f"sys.exit(0 if os.access(sys.argv[3], os.X_OK) else {_REFUSED})"
)
_AS_ANOTHER = (
    "import sys; sys.path.insert(0, sys.argv[1]); from app.linux.account import execute; execute(sys.argv[2:])"
)


def default_shell() -> str:
    """Return the path of bash where this machine has one, else `/bin/sh`.

    Models write bash (`&>`, `[[`, `pipefail`, arrays), and it replaces itself by a single command, so that pid and exit
    code are the tool's own. Entries of PATH that are not absolute are skipped: they would refer to the
    service's working directory, where a command may have left a file.
    """
    for path in _USUAL_PLACES:
        if os.access(path, os.X_OK):
            return path
    entries = [entry for entry in os.environ.get("PATH", "").split(os.pathsep) if entry.startswith("/")]
    return shutil.which("bash", path=os.pathsep.join(entries)) or "/bin/sh"


def is_executable(path: str) -> bool:
    """Tell whether this is the absolute path of a file that this process may execute."""
    try:
        return path.startswith("/") and stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.X_OK)
    except (OSError, ValueError):  # the latter for a NUL, and where the locale has no bytes for a character
        return False


def may_execute(account: Account, path: str) -> bool:
    """Tell whether a user may execute a file, by access(2) in a process that has become that user.

    Its directories, groups and access lists count as well. True where that can't be found out.
    """
    command = [sys.executable, "-I", "-S", "-c", _MAY_EXECUTE, _ROOT, account.pack(), path]
    try:
        done = subprocess.run(command, cwd="/", env={}, capture_output=True, timeout=_PROBE_TIMEOUT, check=False)  # noqa: S603  this interpreter, and code of ours
    except (OSError, subprocess.TimeoutExpired):
        return True
    return done.returncode != _REFUSED


def options_for(shell: str, account: Account | None, command: str) -> list[str]:
    """Return the shell's options before the command.

    `--` ends the options where the command would be taken for one (`-build`, `+x`). Not every shell knows it: fish
    takes the word after `-c` for the command, whatever it begins with.
    """
    if command.startswith(("-", "+")):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if _takes_dashes(shell, account and account.pack()):
                return ["-c", "--"]
    return ["-c"]


def names_dropped(shell: str, account: Account | None, names: Iterable[str]) -> list[str]:
    """Return those of these variables that a program started by the shell would not get.

    POSIX leaves it to the shell what becomes of names that are no identifiers; bash passes them on, dash does not. So
    the shell itself is probed, where there is such a name. One that can't be probed counts as dropping none.
    """
    odd = frozenset(name for name in names if not _IDENTIFIER.fullmatch(name))
    if odd:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            return sorted(_odd_names_dropped(shell, account and account.pack(), odd))
    return []


@lru_cache(maxsize=16)
def _odd_names_dropped(shell: str, account: str | None, names: frozenset[str]) -> frozenset[str]:
    encoded = {name.encode(): name for name in names}
    seen = _environment_through([shell, "-c"], account, encoded)
    return frozenset(name for entry, name in encoded.items() if entry not in seen) if seen else frozenset()


@lru_cache(maxsize=16)
def _takes_dashes(shell: str, account: str | None) -> bool:
    return bool(_environment_through([shell, "-c", "--"], account, ()))


def _environment_through(begin: Sequence[str], account: str | None, names: Iterable[bytes]) -> set[bytes]:
    """Return the names of the variables that reach a program through a shell with these arguments; none if it fails.

    Runs it as the commands' user, who may be able to change the shell, with that user's rights alone. Raises `OSError`
    and `TimeoutExpired` for faults that may be temporary.
    """
    command = [*begin, _SHOW_ENVIRONMENT]
    if account is not None:
        command = [sys.executable, "-I", "-S", "-c", _AS_ANOTHER, _ROOT, account, *command]
    path = os.environb.get(b"PATH", os.defpath.encode())
    done = subprocess.run(  # noqa: S603  the operator's shell, and a command of ours
        command,
        env={b"PATH": path, _SENTINEL: b"C", **dict.fromkeys(names, b"1")},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=_PROBE_TIMEOUT,
        check=False,
    )
    seen = {entry.partition(b"=")[0] for entry in done.stdout.split(b"\0")}
    return seen if _SENTINEL in seen else set()
