"""LLM_SHELL_BIND: a Unix socket, or an address with its port, in the place of host and port."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.kit.calling import NO_HEADERS, exchange, over_unix_socket
from tests.kit.service import GUNICORN, Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until


def status_of(path: Path, headers: Mapping[str, str] = NO_HEADERS) -> int:
    """Return how /health is answered over a Unix socket."""
    return exchange(over_unix_socket(path), "GET", "/health", headers=headers).status


def serve_at(serve: Services, path: Path, **settings: str) -> Service:
    """Start a service on a Unix socket and wait until it listens there."""
    service = serve.launch(umask=0o077, settings={"LLM_SHELL_BIND": f"unix:{path}", **settings})
    wait_until(lambda: f"Listening at: unix:{path}" in service.text, 20)
    return service


def test_unix_socket(serve: Services, tmp_path: Path) -> None:
    """A Unix socket is served without a token, to its owner and group alone, and is gone when the service is."""
    path = tmp_path / "shell.sock"
    service = serve_at(serve, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert status_of(path) == 200
    assert service.stop() == 0
    assert not path.exists()


def test_host_is_checked_on_a_unix_socket(serve: Services, tmp_path: Path) -> None:
    """Without a token, a proxy's callers must use a name of TRUSTED_HOSTS, and their pages its scheme."""
    path = tmp_path / "shell.sock"
    serve_at(serve, path, LLM_SHELL_TRUSTED_HOSTS="shell.example.com")
    named = {"Host": "shell.example.com", "X-Forwarded-Proto": "https"}
    assert status_of(path, named) == 200
    assert status_of(path, {"Host": "elsewhere.example.com"}) == 400
    assert status_of(path, {**named, "Origin": "https://shell.example.com"}) == 200
    assert status_of(path, {**named, "Origin": "http://shell.example.com"}) == 403


def test_socket_that_a_killed_service_left(serve: Services, tmp_path: Path) -> None:
    """The socket of a service that was killed is in nobody's way."""
    path = tmp_path / "shell.sock"
    first = serve_at(serve, path)
    first.stop(signal.SIGKILL)
    assert path.is_socket()
    serve_at(serve, path)
    assert status_of(path) == 200


def test_bind_goes_before_host_and_port(serve: Services) -> None:
    """Where BIND is set, it is where the service listens, whatever HOST and PORT say."""
    service = serve(settings={"LLM_SHELL_BIND": "127.0.0.1:0", "LLM_SHELL_HOST": "0.0.0.0", "LLM_SHELL_PORT": "1"})
    assert service.get("/health").status == 200


def test_open_address_needs_a_token(serve: Services) -> None:
    """An address that BIND opens to others is refused without a token, as HOST's is."""
    refusal = serve.refused(settings={"LLM_SHELL_BIND": "0.0.0.0:0"})
    assert refusal.code != 0
    assert "export LLM_SHELL_TOKEN=" in "\n".join(refusal.lines)


def with_socket_of_systemd(address: str) -> tuple[str, ...]:
    """Return a command that opens a socket, tells of it as systemd would (sd_listen_fds(3)), and becomes gunicorn."""
    script = (
        "import os, socket, sys; listener = socket.create_server((sys.argv[1], 0)); os.dup2(listener.fileno(), 3);"
        "os.set_inheritable(3, True);"
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execv(sys.argv[2], sys.argv[2:])"
    )
    return (sys.executable, "-c", script, address, *GUNICORN, "wsgi:app")


def test_socket_of_systemd(serve: Services) -> None:
    """A socket that systemd passes is served instead of any address of the settings."""
    service = serve(command=with_socket_of_systemd("127.0.0.1"), settings={"LLM_SHELL_BIND": "0.0.0.0:1"})
    assert service.get("/health").status == 200


def test_open_socket_of_systemd_needs_a_token(serve: Services) -> None:
    """A socket of systemd's that is open to others is refused without a token, too."""
    service = serve.launch(command=with_socket_of_systemd("0.0.0.0"))
    assert service.wait() != 0
    assert "export LLM_SHELL_TOKEN=" in service.text


def test_bind_stays_at_a_reload(serve: Services) -> None:
    """A reload cannot change where the service listens, and says so."""
    service = serve()
    (service.cwd / ".env").write_text("LLM_SHELL_BIND=127.0.0.2:0\n")
    os.kill(service.pid, signal.SIGHUP)
    wait_until(lambda: "LLM_SHELL_BIND: can't change while the service runs" in service.text)
    assert service.get("/health").status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Forwarded-Proto": "https", "Origin": "https://localhost"}, 403),
        ({"SCRIPT_NAME": "/elsewhere"}, 200),
    ],
    ids=["scheme", "prefix"],
)
def test_a_local_program_is_no_proxy(service: Service, headers: dict[str, str], status: int) -> None:
    """What gunicorn would believe of any program on this machine is not believed."""
    assert service.get("/health", headers={"Host": "localhost", **headers}).status == status
