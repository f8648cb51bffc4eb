"""Behind a proxy: its X-Forwarded headers are believed, anybody else's are not."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

FORWARDED = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/shell"}
NETWORKS = tuple(map(ip_network, ("10.1.0.0/16", "fd00::/8")))


@pytest.fixture
def client(make_app: Callable[..., Flask]) -> FlaskClient:
    """Return a client of a service whose proxies are in `NETWORKS`."""
    return make_app(trusted_proxies=NETWORKS).test_client()


@pytest.fixture
def unix_socket() -> Iterator[socket.socket]:
    """Return a connection of the kind that comes from a proxy on the same machine."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        yield ours


def servers(client: FlaskClient, environ: dict[str, Any], headers: dict[str, str] = FORWARDED) -> Any:
    """Return the document's `servers`, as seen by a request with the headers from a peer that `environ` describes."""
    return client.get("/openapi.json", headers=headers, environ_overrides=environ).get_json()["servers"]


@pytest.mark.parametrize("peer", ["10.1.2.3", "fd00::5", "::ffff:10.1.2.3"])
def test_trusted_peer(client: FlaskClient, peer: str) -> None:
    """A peer in TRUSTED_PROXIES says under which prefix the service is reached."""
    assert servers(client, {"REMOTE_ADDR": peer}) == [{"url": "/shell"}]


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.2.0.1", "::1", "::ffff:10.2.0.1", ""])
def test_any_other_peer(client: FlaskClient, peer: str) -> None:
    """What any other peer says is ignored, be it a program of this machine."""
    assert servers(client, {"REMOTE_ADDR": peer}) == [{"url": "/"}]


def test_unix_socket(app: Flask, unix_socket: socket.socket) -> None:
    """Whoever connects over a Unix socket is trusted with no setting: the socket's permissions say who may."""
    environ = {"REMOTE_ADDR": "", "gunicorn.socket": unix_socket}
    assert servers(app.test_client(), environ) == [{"url": "/shell"}]


def test_no_prefix(client: FlaskClient) -> None:
    """Without a prefix the document's server is the root, and a prefix's last slash does not count."""
    assert servers(client, {"REMOTE_ADDR": "10.1.2.3"}, {}) == [{"url": "/"}]
    assert servers(client, {"REMOTE_ADDR": "10.1.2.3"}, {"X-Forwarded-Prefix": "/a/b/"}) == [{"url": "/a/b"}]


@pytest.mark.parametrize(("peer", "status"), [("10.1.2.3", 200), ("127.0.0.1", 403)])
def test_origin(client: FlaskClient, peer: str, status: int) -> None:
    """The scheme that a page is compared with is the caller's when the proxy tells it, and can't be made up."""
    headers = {**FORWARDED, "Host": "localhost:8443", "Origin": "https://localhost:8443"}
    assert client.get("/health", headers=headers, environ_overrides={"REMOTE_ADDR": peer}).status_code == status


@pytest.mark.parametrize(
    ("peer", "forwarded", "told"),
    [
        ("10.1.2.3", "198.51.100.7", "198.51.100.7"),
        ("10.1.2.3", "192.0.2.66, 198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", "198.51.100.7", "127.0.0.1"),
    ],
)
def test_audit_names_the_caller(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, peer: str, forwarded: str, told: str
) -> None:
    """The audit line names who called the proxy, as the proxy saw it; what callers add before it does not count."""
    caplog.set_level(logging.INFO, "app.web.audit")
    client.post("/kill", headers={"X-Forwarded-For": forwarded}, environ_overrides={"REMOTE_ADDR": peer})
    (line,) = [json.loads(record.getMessage()) for record in caplog.records if record.name == "app.web.audit"]
    assert line["from"] == told
