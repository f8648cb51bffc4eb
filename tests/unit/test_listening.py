"""Who holds a port, as far as this process may see."""

from __future__ import annotations

import os
import socket
import time

import pytest

from app.exceptions import ConflictError
from app.server.listening import require_free
from tests.kit.requiring import require


def refusal_of(port: int) -> str:
    """Return why this port can't be listened on."""
    with pytest.raises(ConflictError) as caught:
        require_free(("127.0.0.1", port), "LLM_SHELL_PORT", reuse_port=False, deadline=time.monotonic())
    return caught.value.detail


def test_the_oldest_holder_is_named() -> None:
    """Of a server and its children, which share its socket, the server is named."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready, told = os.pipe()
        if (child := os.fork()) == 0:
            os.close(told)
            os.read(ready, 1)
            os._exit(0)
        words = refusal_of(listener.getsockname()[1])
        os.close(told)
        os.close(ready)
        os.waitpid(child, 0)
    assert f"is taken by pid {os.getpid()} (" in words


def test_another_user_s_holder() -> None:
    """Of another user's process, whose descriptors do not show, the user is named."""
    require(os.geteuid() == 0, "root, to become another user")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer, told = os.pipe()
        if (child := os.fork()) == 0:
            try:
                port = listener.getsockname()[1]
                listener.close()  # or it would hold the port itself
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                os.write(told, refusal_of(port).encode())
            finally:
                os._exit(0)
        os.close(told)
        words = os.read(answer, 4096).decode()
        os.close(answer)
        os.waitpid(child, 0)
    assert "is taken by a process of user root: " in words


def test_an_established_connection_on_the_port() -> None:
    """A port that a connection of this machine goes out from is named by who made it."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        assert f"pid {os.getpid()}" in refusal_of(client.getsockname()[1])


def test_no_connection_and_no_trace() -> None:
    """A free port stays free, and any free one always is."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for number in (port, port, 0):
        require_free(("127.0.0.1", number), "LLM_SHELL_PORT", reuse_port=False, deadline=time.monotonic())
