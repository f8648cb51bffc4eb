"""What a reverse proxy says of a request: believed from the proxy, ignored from anybody else."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.middleware.proxy_fix import ProxyFix

from app.config import Network

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class TrustedProxies:
    """Take the caller's address, scheme and path prefix from the X-Forwarded headers of trusted peers.

    Those are whoever connects over a Unix socket, since its permissions say who may, and the TCP peers of `networks`.
    The Host is not among them: a proxy passes on the one that it was called by.
    """

    def __init__(self, app: WSGIApplication, networks: Iterable[Network]) -> None:
        self._direct = app
        self._behind_proxy = ProxyFix(app, x_for=1, x_proto=1, x_prefix=1)
        self._networks = tuple(networks)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request as the proxy describes it, or as it is."""
        app = self._behind_proxy if self._is_trusted(environ) else self._direct
        return app(environ, start_response)

    def _is_trusted(self, environ: WSGIEnvironment) -> bool:
        connection = environ.get("gunicorn.socket")
        if connection is not None and connection.family == socket.AF_UNIX:
            return True
        try:
            address = ipaddress.ip_address(environ.get("REMOTE_ADDR", ""))
        except ValueError:
            return False
        # A socket for both families shows IPv4 peers as ::ffff:a.b.c.d.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)
