"""The kernel's table of listening sockets, and which processes hold them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from app.linux import ports
from app.linux.ports import Address
from app.linux.proc import Member, read_member
from tests.kit.network import free_port
from tests.kit.requiring import require

MPTCP = 262
HOARDS = """
import os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = [os.dup(0) for _ in range(min(200_000, hard - 100))]
print("ready", flush=True)
sys.stdin.read()
"""
HOLDS = "import socket, sys; print('ready', flush=True); sys.stdin.read()"


@pytest.fixture
def this() -> Member:
    """Return this process."""
    member = read_member(os.getpid())
    assert member is not None
    return member


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Return a stack that closes what a test has opened."""
    with ExitStack() as opened:
        yield opened


def inode_of(one: socket.socket) -> int:
    """Return what the kernel calls a socket."""
    return os.fstat(one.fileno()).st_ino


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::", "127.1.2.3"])
@pytest.mark.parametrize("way", ["netlink", "proc"])
def test_a_socket_that_listens(stack: ExitStack, address: str, way: str) -> None:
    """It is in the table by its inode, with its address as inet_ntop(3) writes it, whichever way the table is read."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = stack.enter_context(socket.create_server((address, free_port()), family=family))
    table = ports.listening() if way == "netlink" else ports.listening_beside(os.getpid())
    assert table[inode_of(server)] == Address(address, server.getsockname()[1])


def test_others_are_not_in_the_table(stack: ExitStack) -> None:
    """A socket that is bound only, one that is connected and one of UDP do not listen."""
    bound = stack.enter_context(socket.socket())
    bound.bind(("127.0.0.1", 0))
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    client = stack.enter_context(socket.create_connection(server.getsockname()))
    accepted = stack.enter_context(server.accept()[0])
    datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    datagrams.bind(("127.0.0.1", 0))
    for table in (ports.listening(), ports.listening_beside(os.getpid())):
        assert inode_of(server) in table
        assert not {inode_of(one) for one in (bound, client, accepted, datagrams)} & table.keys()


def test_a_socket_of_mptcp(stack: ExitStack) -> None:
    """What listens by MPTCP, as programs in Go do by default, is found under the inode of the program's descriptor."""
    try:
        server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP))
    except OSError:
        server = None
    require(server, "a kernel with MPTCP")
    assert server is not None
    server.bind(("127.0.0.1", 0))
    server.listen()
    assert ports.listening()[inode_of(server)] == Address(*server.getsockname())


def test_without_netlink_it_is_read_from_proc(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no such netlink protocol the table comes from /proc."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    monkeypatch.setattr(ports, "_NETLINK_SOCK_DIAG", 31)  # a number that no protocol has (linux/netlink.h)
    assert inode_of(server) in ports.listening()


def test_a_fault_that_netlink_reports(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error instead of an answer leads to /proc as well."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    monkeypatch.setattr(ports, "_SOCK_DIAG_BY_FAMILY", 99)
    assert inode_of(server) in ports.listening()


def test_who_holds_a_socket(stack: ExitStack, this: Member) -> None:
    """Of two processes the one that has the socket is found, and with an inherited one both."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    for passed in ([], [server.fileno()]):
        child = subprocess.Popen(
            [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=passed
        )
        with child:
            assert child.stdout is not None
            child.stdout.readline()
            other = read_member(child.pid)
            assert other is not None
            inode = inode_of(server)
            found = {this.pid: {inode}} | ({child.pid: {inode}} if passed else {})
            assert ports.held([this, other], {inode, 1}) == found
            child.communicate()


def test_a_hoard_of_descriptors_hides_no_other_process(stack: ExitStack, this: Member) -> None:
    """A process with more of them than a look reads does not use up the look at the next."""
    child = stack.enter_context(
        subprocess.Popen([sys.executable, "-c", HOARDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    )
    assert child.stdout is not None
    child.stdout.readline()
    hoarder = read_member(child.pid)
    assert hoarder is not None
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    assert ports.held([hoarder, this], {inode_of(server)}) == {this.pid: {inode_of(server)}}
    child.communicate()


@pytest.mark.parametrize(("limit", "value"), [("MAX_DESCRIPTORS", 1), ("MAX_SECONDS", -1.0)])
def test_a_look_has_limits(
    stack: ExitStack, this: Member, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    """A process with any number of descriptors costs no more than a look may."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    monkeypatch.setattr(ports, limit, value)
    assert ports.held([this], {inode_of(server)}) == {}


def test_a_process_that_has_ended(this: Member) -> None:
    """It holds nothing, and its namespace is not known."""
    gone = this._replace(pid=2**22 + 1)
    assert ports.held([gone], {1}) == {}
    assert ports.namespace_of(gone) == ""
    assert ports.listening_beside(gone.pid) == {}
    assert ports.namespace_of(this) == ports.own_namespace() != ""
