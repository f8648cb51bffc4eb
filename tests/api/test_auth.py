"""Who may call: the token's holder, or without a token this machine's programs and no page in a browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder, run_wsgi_app

TOKEN = "correct-horse-battery"  # noqa: S105 (a token of these tests alone)
BEARER = {"Authorization": f"Bearer {TOKEN}"}
FILES = ["docs.js", "docs.css", "swagger-ui.css", "swagger-ui-bundle.js"]
OPEN_CALLS = [("GET", "/openapi.json"), ("GET", "/docs"), *(("GET", f"/docs/{name}") for name in FILES)]
EVERY_OTHER_CALL = [
    ("POST", "/start"),
    ("GET", "/status"),
    ("POST", "/kill"),
    ("POST", "/restart"),
    ("GET", "/logs"),
    ("GET", "/runs"),
    ("GET", "/nothing"),
    ("GET", "/docs/"),
    ("GET", "/docs/nothing"),
    ("DELETE", "/status"),
    ("OPTIONS", "/start"),
]


@pytest.fixture
def guarded(make_app: Callable[..., Flask]) -> FlaskClient:
    """Return a client of a service with a token."""
    return make_app(token=TOKEN).test_client()


@pytest.mark.parametrize(("method", "path"), EVERY_OTHER_CALL)
def test_no_token(guarded: FlaskClient, method: str, path: str) -> None:
    """With a token set, every call but the open ones is 401 without it, and so is a path that does not exist."""
    response = guarded.open(path, method=method)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="LLM Shell"'
    if method != "HEAD":
        assert response.mimetype == "application/problem+json"
        assert "Authorization: Bearer" in response.get_json()["detail"]


@pytest.mark.parametrize(
    "value",
    [
        "Bearer",
        "Bearer ",
        "Bearer wrong-horse-battery",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN} {TOKEN}",
        "Bearer \xff\xfe",
        f"Basic {TOKEN}",
        TOKEN,
    ],
)
def test_wrong_token(guarded: FlaskClient, value: str) -> None:
    """Anything but the token itself is 401, and the answer does not show it."""
    response = guarded.get("/status", headers={"Authorization": value})
    assert response.status_code == 401
    assert TOKEN not in response.text


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "bearer   "])
def test_empty_token(guarded: FlaskClient, value: str) -> None:
    """Who sends an empty variable's value learns that no token came, and where to look."""
    response = guarded.get("/status", headers={"Authorization": value})
    assert response.status_code == 401
    assert response.get_json()["detail"] == (
        "The header Authorization holds no token after Bearer: is LLM_SHELL_TOKEN set in your shell?"
    )


@pytest.mark.parametrize("value", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
def test_right_token(guarded: FlaskClient, value: str) -> None:
    """The token opens the service; the scheme's name is read in any case, as RFC 9110 wants."""
    assert guarded.get("/status", headers={"Authorization": value}).status_code == 404


@pytest.mark.parametrize("path", ["/status?token=", "/status?access_token="])
def test_token_in_the_query(guarded: FlaskClient, path: str) -> None:
    """A token in the query, where logs would keep it, opens nothing."""
    assert guarded.get(path + TOKEN).status_code == 401


def test_health_needs_no_token(guarded: FlaskClient) -> None:
    """/health answers without a token, whatever the name it is called by."""
    assert guarded.get("/health").status_code == 200
    assert guarded.get("/health", headers={"Host": "10.0.0.5:8000"}).status_code == 200
    assert guarded.head("/health").status_code == 200


@pytest.mark.parametrize(("method", "path"), OPEN_CALLS)
def test_docs_need_no_token(guarded: FlaskClient, method: str, path: str) -> None:
    """A browser gets the page, its files and the description without the token, which it could not send before."""
    response = guarded.open(path, method=method)
    assert response.status_code == 200
    assert TOKEN not in response.text


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/docs/docs.js"])
def test_open_paths_check_the_host(make_app: Callable[..., Flask], path: str) -> None:
    """What needs no token is no exception to TRUSTED_HOSTS."""
    client = make_app(token=TOKEN, trusted_hosts=("shell.example.com",)).test_client()
    assert client.get(path, headers={"Host": "shell.example.com"}).status_code == 200
    assert client.get(path, headers={"Host": "evil.example.com"}).status_code == 400


def test_any_host_with_a_token(guarded: FlaskClient) -> None:
    """With a token and no TRUSTED_HOSTS, any Host and Origin will do: a browser cannot forge the token's header."""
    headers = {**BEARER, "Host": "shell.example.com", "Origin": "https://elsewhere.example.com"}
    assert guarded.get("/status", headers=headers).status_code == 404


def test_trusted_hosts_with_a_token(make_app: Callable[..., Flask]) -> None:
    """With a token and TRUSTED_HOSTS, the Host is checked as well."""
    client = make_app(token=TOKEN, trusted_hosts=("shell.example.com",)).test_client()
    assert client.get("/status", headers={**BEARER, "Host": "shell.example.com"}).status_code == 404
    assert client.get("/status", headers={**BEARER, "Host": "evil.example.com"}).status_code == 400


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LocalHost",
        "127.0.0.1",
        "127.1.2.3:8000",
        "[::1]",
        "[::1]:8000",
    ],
)
def test_loopback_host(client: FlaskClient, host: str) -> None:
    """Without a token, loopback names and addresses are served with any port."""
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "app.localhost:1",
        "localhost.localhost",
        "localhost.example.com",
        "127.0.0.1.example.com:8000",
        "10.0.0.5",
        "0.0.0.0",
        "[::]",
        "[fd00::5]:8000",
        "localhost,example.com",
        "example.com:localhost",
        "localhost@example.com",
        "localhost:8000:8000",
        " ",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/health", "/status", "/docs", "/nothing"])
def test_foreign_host(client: FlaskClient, path: str, host: str) -> None:
    """Without a token, any other Host is 400 on every call: a foreign name may have been pointed at this machine."""
    response = client.get(path, headers={"Host": host})
    assert response.status_code == 400
    assert response.mimetype == "application/problem+json"
    assert "Host" in response.get_json()["detail"]


def test_no_host(app: Flask) -> None:
    """A request without a Host, as HTTP/1.0 allows, is 400."""
    environ = EnvironBuilder("/health").get_environ()
    del environ["HTTP_HOST"]
    _, status, _ = run_wsgi_app(app, environ)
    assert status.startswith("400 ")


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("shell.example.com", True),
        ("SHELL.example.com:8443", True),
        ("10.0.0.5:8000", True),
        ("10.0.0.5", False),
        ("10.0.0.5:80", False),
        ("[fd00::5]:1", True),
        ("sub.shell.example.com", False),
        ("localhost", True),
        ("app.localhost:3000", True),
        ("other.localhost", False),
    ],
)
def test_trusted_hosts(make_app: Callable[..., Flask], host: str, served: bool) -> None:
    """TRUSTED_HOSTS adds exact names, with any port where it gives none."""
    client = make_app(trusted_hosts=("shell.example.com", "10.0.0.5:8000", "[fd00::5]", "app.localhost")).test_client()
    assert client.get("/health", headers={"Host": host}).status_code == (200 if served else 400)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("LOCALHOST:8000", "http://localhost:8000"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_own_origin(client: FlaskClient, host: str, origin: str) -> None:
    """The service's own page, /docs, may call it."""
    assert client.get("/health", headers={"Host": host, "Origin": origin}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://localhost:3000",
        "http://localhost",
        "https://localhost:8000",
        "http://127.0.0.1:8000",
        "http://localhost:8000.example.com",
        "http://localhost:8000, http://localhost:8000",
        "https://example.com",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_foreign_origin(client: FlaskClient, method: str, origin: str) -> None:
    """Any other origin is 403, that of a dev server which the process started among them."""
    response = client.open("/start", method=method, headers={"Host": "localhost:8000", "Origin": origin})
    assert response.status_code == 403
    assert response.mimetype == "application/problem+json"


def test_origin_behind_a_proxy_with_tls(client: FlaskClient) -> None:
    """Scheme and port are compared as the server reports them, so a proxy that ends TLS is no other origin."""
    environ = {"wsgi.url_scheme": "https"}
    headers = {"Host": "localhost:443", "Origin": "https://localhost"}
    assert client.get("/health", headers=headers, environ_overrides=environ).status_code == 200


@pytest.mark.parametrize("headers", [{}, BEARER])
@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "Cross-Site", "cross-site, none"])
@pytest.mark.parametrize(("method", "path"), [*EVERY_OTHER_CALL, *OPEN_CALLS])
def test_foreign_site(
    make_app: Callable[..., Flask], method: str, path: str, site: str, headers: dict[str, str]
) -> None:
    """What a page of another site asks a browser for is 403 on every call but /health, token or not."""
    client = make_app(token=TOKEN if headers else None).test_client()
    response = client.open(path, method=method, headers={**headers, "Sec-Fetch-Site": site})
    assert response.status_code == 403
    assert response.mimetype == "application/problem+json"
    assert "type its address" in response.get_json()["detail"]
    assert client.get("/health", headers={"Sec-Fetch-Site": site}).status_code == 200


@pytest.mark.parametrize("site", ["none", "same-origin"])
@pytest.mark.parametrize(
    ("path", "status"), [("/docs", 200), ("/docs/docs.js", 200), ("/openapi.json", 200), ("/status", 404)]
)
def test_own_site(client: FlaskClient, path: str, status: int, site: str) -> None:
    """What the user types into a browser, and what the page at /docs asks for, is served."""
    assert client.get(path, headers={"Sec-Fetch-Site": site}).status_code == status
