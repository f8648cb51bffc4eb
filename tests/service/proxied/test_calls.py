"""The service through nginx: every call, the prefix, the token, headers, errors, and what is logged."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from tests.kit.network import free_port
from tests.kit.processes import status_fields
from tests.kit.requiring import require
from tests.kit.waiting import wait_until
from tests.service.nginx import HOST, Client, running, substitute
from tests.service.proxied.site import BEARER, TOKEN, WRONG, Site, addresses

PREFIXES = ["", "/shell"]


def test_configuration_is_clean(site: Site) -> None:
    """`nginx -t` finds the file good and has no warning for it."""
    lines = site.nginx.test().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("syntax is ok")
    assert lines[1].endswith("test is successful")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_call(site: Site, prefix: str) -> None:
    """Every call of the service works through nginx, at the root and under the prefix."""
    client, source = site.client, next(addresses)
    assert client.get(f"{prefix}/health").json["status"] == "healthy"
    started = client.post(f"{prefix}/start", {"command": "echo hello; exec sleep 300"}, source=source)
    assert (started.status, started.json["status"]) == (201, "running")
    wait_until(lambda: client.get(f"{prefix}/logs?lines=1").json["content"] == "hello")
    again = client.post(f"{prefix}/restart?timeout=2.5", source=source)
    assert again.json["run_id"] != started.json["run_id"]
    assert client.get(f"{prefix}/status").json["run_id"] == again.json["run_id"]
    killed = client.post(f"{prefix}/kill?type=SIGKILL&timeout=1", source=source)
    assert (killed.status, killed.json["exit_code"]) == (200, -9)
    assert client.get(f"{prefix}/logs?run_id={started.json['run_id']}").status == 200
    assert client.get(f"{prefix}/docs").headers["Content-Type"].startswith("text/html")
    assert client.get(f"{prefix}/openapi.json").status == 200


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefix(site: Site, prefix: str) -> None:
    """What /docs links to is there, and `servers` names the prefix, whatever prefix the caller makes up."""
    made_up = {"X-Forwarded-Prefix": "/elsewhere", "X-Forwarded-Proto": "gopher"}
    assert site.client.get(f"{prefix}/openapi.json", headers=made_up).json["servers"] == [{"url": prefix or "/"}]
    links = re.findall(r'(?:src|href)="((?!data:)[^"]+)"', site.client.get(f"{prefix}/docs").body.decode())
    assert len(links) == 5
    # The page is at PREFIX/docs, so its links are relative to PREFIX/.
    assert [site.client.get(f"{prefix}/{link}").status for link in links] == [200] * 5


def test_token(site: Site) -> None:
    """The token reaches the service as it was sent: none or a wrong one is 401, and says so as the service does."""
    for headers, challenge in (
        (WRONG, 'Bearer realm="LLM Shell", error=invalid_token'),
        ({"Authorization": ""}, None),
    ):
        reply = site.client.get("/status", headers=headers, source=next(addresses))
        assert reply.status == 401
        assert reply.headers["WWW-Authenticate"] == (challenge or 'Bearer realm="LLM Shell"')
        assert reply.headers["Content-Type"] == "application/problem+json"
        assert reply.json["status"] == 401
        assert "Authorization: Bearer" in reply.json["detail"]


def test_errors_of_the_service_pass(site: Site) -> None:
    """The service's own errors arrive with its own words."""
    for path, body, status, words in (
        ("/start", {"command": " "}, 400, "Must not be blank"),
        ("/start", {"command": "true", "cwd": "/nonexistent"}, 400, "/nonexistent"),
        ("/nothing", None, 404, "There is no /nothing here"),
        ("/status", None, 405, "does not take POST"),
    ):
        reply = site.client.post(path, body, source=next(addresses))
        assert reply.status == status
        assert words in reply.json["detail"]


def test_socket_is_for_owner_and_group(site: Site) -> None:
    """The socket has mode 0660, and the commands' umask is still that of whoever started the service."""
    assert stat.S_IMODE(site.socket.stat().st_mode) == 0o660
    site.run_to_end("umask")
    assert site.client.get("/logs").json["content"] == status_fields(os.getpid())["Umask"]


def test_caller_is_known(site: Site) -> None:
    """The service's audit line names the caller's own address, whatever the caller says of itself."""
    source = next(addresses)
    site.client.post("/kill", headers={"X-Forwarded-For": "192.0.2.66"}, source=source)
    lines = [json.loads(line[line.index("{") :]) for line in site.service.text.splitlines() if '{"audit"' in line]
    assert (lines[-1]["audit"], lines[-1]["from"]) == ("kill", source)
    assert "192.0.2.66" not in site.service.text


def test_headers(site: Site) -> None:
    """Each header that protects is sent once, on the service's answers and on nginx's own, and none tells versions."""
    for path, headers, status in (("/status", {}, 404), ("/docs", {}, 200), ("/status", WRONG, 401)):
        reply = site.client.get(path, headers=headers, source=next(addresses))
        assert reply.status in {status, 200}
        for name in (
            "Strict-Transport-Security",
            "Content-Security-Policy",
            "Cross-Origin-Resource-Policy",
            "Referrer-Policy",
            "X-Content-Type-Options",
            "Cache-Control",
        ):
            assert len(reply.headers.get_all(name, [])) == 1, (path, name)
        assert reply.headers["Server"] == "nginx"


def test_http2(site: Site) -> None:
    """A client that speaks HTTP/2 is answered in it, with TLS 1.3 and the certificate checked."""
    program = shutil.which("curl")
    require(program, "curl (Debian: apt install curl)")
    done = subprocess.run(
        [
            *(
                str(program),
                "--silent",
                "--show-error",
                "--http2",
                "--tlsv1.3",
                "--cacert",
                str(site.socket.parent / "tls.crt"),
            ),
            *("--resolve", f"{HOST}:{site.client.port}:127.0.0.1", "--header", f"Authorization: Bearer {TOKEN}"),
            *("--output", os.devnull, "--write-out", "%{http_version} %{http_code}"),
            f"https://{HOST}:{site.client.port}/openapi.json",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "2 200"


def test_old_tls(site: Site) -> None:
    """TLS older than 1.2 is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", site.client.port)) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain)


def test_plain_http(site: Site) -> None:
    """Without TLS there is /health for probes, and everything else is refused and not redirected."""
    for path, status in (("/health", 200), ("/status", 403), ("/shell/status", 403)):
        connection = http.client.HTTPConnection("127.0.0.1", site.plain_port)
        connection.request("GET", path, headers={"Host": HOST, **BEARER})
        response = connection.getresponse()
        body = json.loads(response.read())
        connection.close()
        assert response.status == status
        assert "https" in body["detail"] if status == 403 else body["status"] == "healthy"


def test_access_log(site: Site) -> None:
    """Each request is one line of JSON in nginx's log, without the token wherever it was put, and without probes."""
    source = next(addresses)
    agent = {"User-Agent": 'quoted " and \\ and \x7f'}
    site.client.get(f"/status?token={TOKEN}", headers=agent, source=source)
    site.client.get("/health", source=source)
    path = site.socket.parent / "access.json"
    (line,) = wait_until(lambda: [line for line in path.read_text().splitlines() if f'"{source}"' in line])
    entry = json.loads(line)
    assert (
        entry.items()
        >= {
            "from": source,
            "method": "GET",
            "host": HOST,
            "path": "/status",
            "status": 400,
            "service_status": "400",
            "protocol": "HTTP/1.1",
            "agent": agent["User-Agent"],
        }.items()
    )
    assert isinstance(entry["seconds"], float | int)
    assert TOKEN not in path.read_text()


def test_service_that_does_not_run(tmp_path: Path, site: Site) -> None:
    """Without the service, the answer is a 502 in the API's form that says to try again."""
    text = (site.nginx.folder / "site.conf").read_text()
    ports = {match: free_port() for match in set(re.findall(r"127\.0\.0\.1:(\d+)", text))}
    changes = {f"127.0.0.1:{old}": f"127.0.0.1:{new}" for old, new in ports.items()}
    with running(tmp_path / "nginx", substitute(text, changes | {str(site.socket): str(tmp_path / "none.sock")})):
        client = Client(ports[str(site.client.port)], site.socket.parent / "tls.crt", BEARER)
        reply = client.get("/status")
    assert (reply.status, reply.json["title"], reply.headers["Retry-After"]) == (502, "Bad Gateway", "5")
