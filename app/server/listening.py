"""Runs in the master: find out whether the service can listen on its address, and which process holds it if not."""

import errno
import logging
import os
import pwd
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from app.addresses import show
from app.config import Settings
from app.exceptions import ConflictError
from app.linux.proc import command_line, read_member
from app.supervisor.naming import shown

logger = logging.getLogger(__name__)
_LISTEN = "0A"  # TCP_LISTEN, include/net/tcp_states.h
_POLL_INTERVAL = 0.05


class _Row(NamedTuple):
    """One socket of /proc/net/tcp (proc_pid_net(5))."""

    listens: bool
    uid: int
    inode: str


def bind_address(settings: Settings) -> str:
    """Return the address to listen on in gunicorn's notation."""
    if settings.bind is not None:
        return settings.bind
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.port}"


def require_free(address: object, setting: str, *, reuse_port: bool, deadline: float) -> None:
    """Refuse an address that can't be listened on, by raising `ConflictError` with one line.

    Waits until `deadline` for one in use by a process that can't be identified, as when that is exiting.
    gunicorn itself would try five times, a second apart, and then log the errno.
    """
    waited = False
    while True:
        match address:
            case (str(host), int(port), *_):
                refusal = _refusal_of_port(host, port, setting, reuse_port=reuse_port)
            case str(path) if path.startswith("/"):
                refusal = _refusal_of_socket(path, setting)
            case _:  # an inherited descriptor, or an abstract name
                return
        if refusal is None:
            return
        words, holder_known = refusal
        if holder_known or time.monotonic() > deadline:
            raise ConflictError(words)
        if not waited:
            logger.info("%s Waiting up to %.0f s for it.", words, deadline - time.monotonic())
            waited = True
        time.sleep(_POLL_INTERVAL)  # the kernel reports no event when an address becomes free


def _refusal_of_port(host: str, port: int, setting: str, *, reuse_port: bool) -> tuple[str, bool] | None:
    """Return why this can't be listened on, and whether waiting is useless; None when it can."""
    failure = _try(host, port, reuse_port=reuse_port)
    if failure is None:
        return None
    place, number = show((host, port)), getattr(failure, "errno", None)
    if number != errno.EADDRINUSE:
        words = getattr(failure, "strerror", None) or str(failure)
        advice = " Ports below 1024 are root's." if number in {errno.EACCES, errno.EPERM} else ""
        return f"{setting}: can't listen on {place}: {words}.{advice}", True
    holder = _holder_of_port(port)
    words = f"{setting}: {place} is taken by {holder or 'an unknown process'}: stop it, or choose another."
    return words, holder is not None


def _try(host: str, port: int, *, reuse_port: bool) -> OSError | UnicodeError | None:
    """Listen there for a moment, with gunicorn's socket options; return the error where that fails."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
            probe.bind((host, port))
            probe.listen(1)
    except (OSError, UnicodeError) as error:  # the latter from IDNA, for a name that DNS does not allow
        return error
    return None


def _holder_of_port(port: int) -> str | None:
    """Name the process that has this port; None when it can't be seen: it is exiting, or in a container."""
    rows = sorted(_rows_of(port), reverse=True)
    for row in rows:
        if (pid := _process_with(f"socket:[{row.inode}]")) is not None:
            return _describe(pid)
    others = [row.uid for row in rows if os.geteuid() not in {0, row.uid}]
    return f"a process of {_user_name(others[0])}" if others else None


def _rows_of(port: int) -> Iterator[_Row]:
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/net", name).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port:
                    yield _Row(fields[3] == _LISTEN, int(fields[7]), fields[9])


def _process_with(target: str) -> int | None:
    """Return the pid of the oldest process visible to us that has this open: a server, rather than its workers."""
    found: list[tuple[int, int]] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # it has exited, or is another user's
            links = (str(descriptor.readlink()) for descriptor in (entry / "fd").iterdir())
            if target in links and (member := read_member(int(entry.name))) is not None:
                found.append((member.start_ticks, member.pid))
    return min(found)[1] if found else None


def _refusal_of_socket(path: str, setting: str) -> tuple[str, bool] | None:
    """Return why a Unix socket can't be bound there; gunicorn would remove one that another service listens on."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):  # no socket, or one without a listener
            return None
        except BlockingIOError:  # its queue is full (unix(7))
            return f"{setting}: {path} is taken: stop the process that listens there, or choose another.", True
        except OSError as error:
            return f"{setting}: {path} exists, and can't be connected to: {error.strerror}.", True
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, _uid, _gid = struct.unpack("3i", credentials)
    # The process that called listen(2): a master that is gone, while its worker still holds the socket for a moment.
    holder = _describe(pid) if pid and read_member(pid) is not None else None
    words = f"{setting}: {path} is taken by {holder or 'an unknown process'}: stop it, or choose another."
    return words, holder is not None


def _describe(pid: int) -> str:
    return f"pid {pid} ({shown(command_line(pid))})"


def _user_name(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
