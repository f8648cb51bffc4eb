"""The site that the tests of nginx call: a service on a Unix socket, and nginx in front of it as deployed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tests.kit.network import free_port
from tests.kit.places import ROOT
from tests.kit.service import Service
from tests.kit.services import services_in
from tests.kit.waiting import wait_until
from tests.service.nginx import Client, Nginx, make_certificate, running, substitute

FILE = ROOT / "deploy" / "nginx" / "llm-shell.conf"
TOKEN = "a-token-of-sufficient-length"  # noqa: S105  made up
BEARER = {"Authorization": f"Bearer {TOKEN}"}
WRONG = {"Authorization": "Bearer not-the-token-at-all"}
NO_CHANGES: Mapping[str, str] = MappingProxyType({})
# Each limit of nginx counts by the caller's address: a test that comes near one calls from addresses of its own.
addresses = (f"127.0.{number // 250 + 1}.{number % 250 + 1}" for number in itertools.count())


class Site(NamedTuple):
    """A service, the nginx in front of it, and a client that holds the token."""

    service: Service
    socket: Path
    nginx: Nginx
    client: Client
    certificate: Path
    access_log: Path
    plain_port: int

    def run_to_end(self, command: str) -> None:
        """Run a command and wait for its end."""
        assert self.client.post("/start", {"command": command}, source=next(addresses)).status == 201
        wait_until(lambda: self.client.get("/status").json["output_open"] is False, 30)

    def end_run(self) -> None:
        """End what the current run has left alive."""
        assert self.client.post("/kill?type=SIGKILL", source=next(addresses)).status in {200, 400, 404}


@contextmanager
def site_in(folder: Path, changes: Mapping[str, str] = NO_CHANGES) -> Iterator[Site]:
    """Run the deployed file in this folder, with nothing changed in it but paths and ports, and what a test names."""
    path, log = folder / "shell.sock", folder / "access.json"
    certificate, key = make_certificate(folder)
    tls, plain = free_port(), free_port()
    text = substitute(
        FILE.read_text(),
        {
            "/run/llm-shell/llm-shell.sock fail_timeout": f"{path} fail_timeout",
            "[::]:443": f"127.0.0.1:{free_port()}",
            "[::]:80": f"127.0.0.1:{free_port()}",
            "listen 443": f"listen 127.0.0.1:{tls}",
            "listen 80": f"listen 127.0.0.1:{plain}",
            "/etc/llm-shell/tls.crt": str(certificate),
            "/etc/llm-shell/tls.key": str(key),
            "/var/log/nginx/llm-shell.json": str(log),
            **changes,
        },
    )
    with services_in(folder) as services, ExitStack() as stack:
        service = services.launch(settings={"LLM_SHELL_BIND": f"unix:{path}", "LLM_SHELL_TOKEN": TOKEN})
        wait_until(lambda: f"Listening at: unix:{path}" in service.text, 20)
        nginx = stack.enter_context(running(folder / "nginx", text))
        client = Client(tls, certificate, BEARER)
        wait_until(client.answers, 20)
        yield Site(service, path, nginx, client, certificate, log, plain)
