"""TCP ports of this machine: who listens, which connections there are, and ports that nobody else is given."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from pathlib import Path

from tests.kit.processes import descendants, descriptors_of

_LISTEN = "0A"
_ESTABLISHED, _CLOSE_WAIT = "01", "08"
_claims: list[socket.socket] = []


def listens(port: int) -> bool:
    """Tell whether a process below this one listens on the IPv4 port.

    Another's may have been given the number meanwhile: tests run beside each other.
    """
    listening = {f"socket:[{fields[9]}]" for fields in _sockets_at(port) if fields[3] == _LISTEN}
    return bool(listening) and any(listening & _open_files(pid) for pid in descendants())


def connections_to(port: int) -> list[list[str]]:
    """Return the sockets of connections that a server on this port has not closed yet."""
    return [fields for fields in _sockets_at(port) if fields[3] in {_ESTABLISHED, _CLOSE_WAIT}]


def free_port() -> int:
    """Return a TCP port that nobody uses now, and that no test run on this machine is given again before this one ends.

    It lies below those that the system gives away (ip(7)). The UDP port of the same number, held until this process
    ends, is the claim: to bind it is one step that only one process can win.
    """
    lowest_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = lowest_given // 2 + secrets.randbelow(lowest_given // 2)
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with suppress(OSError):
            claim.bind(("127.0.0.1", port))
            with socket.create_server(("127.0.0.1", port)):
                _claims.append(claim)
                return port
        claim.close()


def _sockets_at(port: int) -> list[list[str]]:
    """Return the lines of /proc/net/tcp (proc_pid_net(5)) of this local port, in fields; the fourth is the state."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [fields for fields in sockets if fields[1].endswith(f":{port:04X}")]


def _open_files(pid: int) -> set[str]:
    with suppress(OSError):  # it has ended, or is another user's
        return set(descriptors_of(pid).values())
    return set()
