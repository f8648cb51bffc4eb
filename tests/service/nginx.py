"""A real nginx for the tests: it runs the files of deploy/ with other paths and ports, and is called over TLS."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.kit.calling import NO_HEADERS, Reply, exchange, over
from tests.kit.processes import children, memory_kib
from tests.kit.requiring import require
from tests.kit.waiting import wait_until

# Debian keeps it where not every user's path leads.
PROGRAM = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
HOST = "shell.example.com"
START_TIMEOUT = 10.0
# What surrounds a file of conf.d, as in Debian's nginx.conf, with everything that nginx writes below one folder.
MAIN = """
{user}
worker_processes 2;
pid nginx.pid;
error_log error.log notice;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include site.conf;
}}
"""


class Nginx:
    """One running nginx, the child of this process; `port` is its TLS port."""

    def __init__(self, folder: Path, site: str) -> None:
        require(PROGRAM, "nginx (Debian: apt install nginx)")
        self.folder = folder
        user = "user root;" if os.geteuid() == 0 else ""  # its default may not enter a test's folder
        (folder / "nginx.conf").write_text(MAIN.format(user=user))
        (folder / "site.conf").write_text(site)
        self._command = [str(PROGRAM), "-e", str(folder / "error.log"), "-p", str(folder), "-c", "nginx.conf"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def errors(self) -> list[str]:
        """Return what its error log holds beside notices."""
        lines = (self.folder / "error.log").read_text().splitlines()
        return [line for line in lines if "[notice]" not in line]

    @property
    def workers(self) -> set[int]:
        """Return the pids of its workers."""
        return set(children(self._running.pid))

    @property
    def resident_kib(self) -> int:
        """Return what its workers hold in memory, the largest of them."""
        return max(map(memory_kib, self.workers))

    def test(self) -> str:
        """Return what `nginx -t` prints, and fail unless it finds the configuration good."""
        done = subprocess.run([*self._command, "-t"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def start(self) -> None:
        """Start it in the foreground, as a child; it has its pid file when it listens."""
        self._process = subprocess.Popen([*self._command, "-g", "daemon off;"], stdin=subprocess.DEVNULL)
        wait_until(self._is_up, START_TIMEOUT)

    def reload(self) -> None:
        """Have it read its configuration again, and wait until only new workers are left."""
        old = self.workers
        os.kill(self._running.pid, signal.SIGHUP)
        wait_until(lambda: (now := self.workers) and not now & old, START_TIMEOUT)

    def stop(self) -> None:
        """End it, and fail unless it ends well."""
        self._running.terminate()
        assert self._running.wait(START_TIMEOUT) == 0

    def _is_up(self) -> bool:
        if self._running.poll() is not None:
            pytest.fail(f"nginx ended:\n{(self.folder / 'error.log').read_text()}")
        return (self.folder / "nginx.pid").exists() and bool(self.workers)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process


@contextmanager
def running(folder: Path, site: str) -> Iterator[Nginx]:
    """Run an nginx with a file as those of conf.d, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    nginx = Nginx(folder, site)
    nginx.start()
    try:
        yield nginx
    finally:
        nginx.stop()


class Client:
    """Call a TLS port of this machine by the name `HOST`, from any loopback address, with these headers."""

    def __init__(self, port: int, certificate: Path, headers: Mapping[str, str]) -> None:
        self.port = port
        self._headers = dict(headers)
        self._context = ssl.create_default_context(cafile=str(certificate))

    def connect(self, source: str = "127.0.0.1") -> ssl.SSLSocket:
        """Return a connection from the address, its handshake done."""
        plain = socket.create_connection(("127.0.0.1", self.port), 30, (source, 0))
        return self._context.wrap_socket(plain, server_hostname=HOST)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] = NO_HEADERS,
        source: str = "127.0.0.1",
    ) -> Reply:
        """Send one request on a connection of its own, and read the answer to its end."""
        return exchange(over(self.connect(source)), method, path, body, {"Host": HOST, **self._headers, **headers})

    @contextmanager
    def exchange(self, head: str, body: bytes = b"", source: str = "127.0.0.1") -> Iterator[http.client.HTTPResponse]:
        """Send a request's first lines and this much of its body as they stand; offer the answer, its head read."""
        with self.connect(source) as connection:
            headers = "".join(f"{name}: {value}\r\n" for name, value in {"Host": HOST, **self._headers}.items())
            connection.sendall(f"{head}\r\n{headers}\r\n".encode() + body)
            with http.client.HTTPResponse(connection) as response:
                response.begin()
                yield response

    def get(self, path: str, **options: Any) -> Reply:
        """Send a GET."""
        return self.call("GET", path, **options)

    def post(self, path: str, body: object = None, **options: Any) -> Reply:
        """Send a POST, with a JSON body if one is given."""
        return self.call("POST", path, body, **options)

    def answers(self, path: str = "/health") -> bool:
        """Tell whether a GET is answered with 200."""
        with suppress(OSError, http.client.HTTPException):
            return self.get(path).status == 200
        return False


def substitute(text: str, changes: Mapping[str, str]) -> str:
    """Replace each old text by its new one, and fail where one does not occur: the file has changed then."""
    for old, new in changes.items():
        assert old in text, f"{old!r} is not in the file"
        text = text.replace(old, new)
    return text


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for `HOST` that signs itself; return the paths of it and of its key."""
    program = shutil.which("openssl")
    require(program, "openssl (Debian: apt install openssl)")
    certificate, key = folder / "tls.crt", folder / "tls.key"
    what = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    name = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([str(program), *what, *name, *files], check=True, capture_output=True)
    return certificate, key
