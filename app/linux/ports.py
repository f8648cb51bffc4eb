"""Runs in the worker: the TCP sockets that listen, and which processes hold them."""

import contextlib
import itertools
import os
import socket
import struct
import time
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from app.linux.inspecting import as_user_of, folder_of
from app.linux.proc import Member

# Limits of one look at descriptors: of one process, which can hold millions and must not use up the look at the others
# (it gets the lowest free number for a socket, and the directory is in order), and seconds of CPU time in all.
MAX_DESCRIPTORS = 2000
MAX_SECONDS = 0.25
# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, net/tcp_states.h
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NETLINK_SOCK_DIAG = 4
_TCP_LISTEN = 10
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, pid
_REQUEST = struct.Struct("=BBxxI48x")  # inet_diag_req_v2: family, protocol, states, any socket
_MESSAGE = struct.Struct("=B3x2s2x16s44xI")  # inet_diag_msg: family, port and address in network order, inode
_RECEIVED = 64 * 1024
_LENGTHS = {socket.AF_INET: 4, socket.AF_INET6: 16}


class Address(NamedTuple):
    """Hold where a socket listens."""

    address: str
    port: int


Table = dict[int, Address]


def listening() -> Table:
    """Return the listening TCP sockets of this process's network namespace by inode. Raises `OSError`.

    A socket of MPTCP is one of them: its first subflow has its inode (mptcp_subflow_create_socket(), net/mptcp).
    """
    try:
        return dict(_dump(socket.AF_INET)) | dict(_dump(socket.AF_INET6))
    except OSError:  # no such netlink protocol here: a kernel without it, or a sandbox that forbids it
        return listening_beside(os.getpid())


def listening_beside(pid: int) -> Table:
    """Return the same of another process's namespace, as its `/proc/PID/net` has it. Raises `OSError`.

    Milliseconds, since the kernel looks for connections in a table that all namespaces share; those that listen come
    first (tcp_seq_start(), net/ipv4/tcp_ipv4.c), so that no connection is read.
    """
    return dict(_lines(f"/proc/{pid}/net/tcp")) | dict(_lines(f"/proc/{pid}/net/tcp6"))


def held(members: Iterable[Member], inodes: Collection[int]) -> dict[int, set[int]]:
    """Return which of these sockets each process holds, by pid, within the limits of a look and as far as rights allow.

    Those that hold none are left out.
    """
    found: dict[int, set[int]] = {}
    until = time.thread_time() + MAX_SECONDS
    for member in members if inodes else ():
        with as_user_of(member):
            for target in itertools.islice(_targets(folder_of(member)), MAX_DESCRIPTORS):
                if (inode := _inode(target)) in inodes:
                    found.setdefault(member.pid, set()).add(inode)
                if time.thread_time() > until:
                    return found
    return found


def namespace_of(member: Member) -> str:
    """Return what names a process's network namespace (namespaces(7)); empty where that can't be read."""
    with as_user_of(member), contextlib.suppress(OSError):
        return os.readlink(f"{folder_of(member)}/ns/net")
    return ""


def own_namespace() -> str:
    """Return what names this process's network namespace; empty where that can't be read."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/net")
    return ""


def _targets(folder: str) -> Iterator[str]:
    """Yield what a process's descriptors lead to; the directory is read lazily, as it may hold millions."""
    with contextlib.suppress(OSError), os.scandir(f"{folder}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # closed meanwhile
                yield os.readlink(entry.path)


def _inode(target: str) -> int:
    return int(target[8:-1]) if target.startswith("socket:[") else -1  # 0 is a socket of the kernel's own


def _dump(family: socket.AddressFamily) -> Iterator[tuple[int, Address]]:
    """Ask the kernel for the listening sockets of a family (sock_diag(7)); raises `OSError` where it can't say.

    It looks only at those. `/proc/net/tcp` costs milliseconds even on an idle machine.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as connection:
        request = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << _TCP_LISTEN)
        header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0)
        connection.send(header + request)
        while True:
            packet = connection.recv(_RECEIVED)
            for kind, content in _messages(packet):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", content)[0]
                    raise OSError(number, os.strerror(number))
                found, port, address, inode = _MESSAGE.unpack_from(content)
                text = socket.inet_ntop(found, address[: _LENGTHS[found]])
                yield inode, Address(text, int.from_bytes(port, "big"))


def _messages(packet: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(packet):
        length, kind, *_ = _HEADER.unpack_from(packet, offset)
        yield kind, packet[offset + _HEADER.size : offset + length]
        offset += length + 3 & ~3  # NLMSG_ALIGN


def _lines(path: str) -> Iterator[tuple[int, Address]]:
    """Read the sockets at the beginning of such a file that listen (proc_pid_net(5))."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:  # no IPv6 here, or the process has ended
        next(file, None)
        for line in file:
            fields = line.split()
            if int(fields[3], 16) != _TCP_LISTEN:
                return
            address, _, port = fields[1].decode().partition(":")
            yield int(fields[9]), Address(_address(address), int(port, 16))


def _address(words: str) -> str:
    """Read an address that is written as words of 32 bits in the machine's own byte order."""
    parts = [int(words[at : at + 8], 16) for at in range(0, len(words), 8)]
    family = socket.AF_INET if len(parts) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, struct.pack(f"={len(parts)}I", *parts))
