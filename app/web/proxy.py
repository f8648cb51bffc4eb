"""Runs in the worker: apply X-Forwarded headers of trusted proxies, and ignore those of any other peer."""

import socket
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.middleware.proxy_fix import ProxyFix

from app.addresses import parse_ip
from app.config import Network


class TrustedProxies:
    """Take the caller's address, scheme and path prefix from the X-Forwarded headers of trusted peers.

    Trusted are all peers of a Unix socket, whose permissions decide about them, and the TCP peers in `networks`.
    X-Forwarded-Host is not used: a proxy passes on the Host that it received.
    """

    def __init__(self, app: WSGIApplication, networks: Iterable[Network]) -> None:
        self._direct = app
        self._behind_proxy = ProxyFix(app, x_for=1, x_proto=1, x_prefix=1)
        self._networks = tuple(networks)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request with the proxy's headers applied, or as it is."""
        app = self._behind_proxy if self._is_trusted(environ) else self._direct
        return app(environ, start_response)

    def _is_trusted(self, environ: WSGIEnvironment) -> bool:
        connection = environ.get("gunicorn.socket")
        if connection is not None and connection.family == socket.AF_UNIX:
            return True
        address = parse_ip(environ.get("REMOTE_ADDR", ""))
        # A socket for both families has IPv4 peers as ::ffff:a.b.c.d.
        address = getattr(address, "ipv4_mapped", None) or address
        return address is not None and any(address in network for network in self._networks)
