"""One request to a service over whatever connection leads there, and its answer."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
ANSWER_TIMEOUT = 30.0


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """Return the body, read as JSON."""
        return json.loads(self.body)


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] = NO_HEADERS,
) -> Reply:
    """Send one request, with a JSON body if one is given, read its answer to the end and hang up."""
    sent = dict(headers)
    if body is not None:
        sent["Content-Type"] = "application/json"
    with closing(connection):
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        response = connection.getresponse()
        return Reply(response.status, response.msg, response.read())


def over(connected: socket.socket) -> http.client.HTTPConnection:
    """Return an HTTP connection over a socket that is connected already."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = connected
    return connection


def over_unix_socket(path: Path, timeout: float = ANSWER_TIMEOUT) -> http.client.HTTPConnection:
    """Return an HTTP connection to a Unix socket."""
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.settimeout(timeout)
        connected.connect(str(path))
    except BaseException:
        connected.close()
        raise
    return over(connected)
