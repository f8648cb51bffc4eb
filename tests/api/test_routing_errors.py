"""Errors that no call of the API raises itself have the same shape as the others."""

from __future__ import annotations

import logging

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.exceptions import ConflictError


def test_unknown_path(client: FlaskClient) -> None:
    """A path that does not exist is a 404 that says where to look."""
    response = client.get("/stop")
    assert response.status_code == 404
    assert response.mimetype == "application/problem+json"
    assert response.get_json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "There is no /stop here; GET /openapi.json lists what there is.",
    }


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/logs/", "/logs"),
        ("/statuss", "/status"),
        ("/Status", "/status"),
        ("//status", "/status"),
        ("/log", "/logs"),
        ("/api/start", "/start"),
        ("/openapi", "/openapi.json"),
        ("/docs/", "/docs"),
        ("/killl", "/kill"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_near_path(client: FlaskClient, method: str, path: str, near: str) -> None:
    """Of a path that looks like a known one that one is named."""
    environ = {"PATH_INFO": path}
    response = client.open("/", method=method, environ_overrides=environ)
    assert response.status_code == 404
    assert response.get_json()["detail"] == (
        f"There is no {path} here; did you mean {near}? GET /openapi.json lists what there is."
    )


@pytest.mark.parametrize("path", ["/stop", "/favicon.ico", "/x", "/" + "status" * 1000, "/\udcff"])
def test_no_near_path(client: FlaskClient, path: str) -> None:
    """A path that looks like none is told without a guess."""
    response = client.get(path.encode("utf-8", "surrogateescape").decode("latin-1"))
    assert response.status_code == 404
    assert "did you mean" not in response.get_json()["detail"]


@pytest.mark.parametrize(("path", "prefix"), [("/", ""), ("//", ""), ("/", "/shell")])
def test_the_root(client: FlaskClient, path: str, prefix: str) -> None:
    """Who looks at the service itself is sent on: a person to the page, a program to the description."""
    environ = {"PATH_INFO": path, "SCRIPT_NAME": prefix}
    response = client.get("/", environ_overrides=environ)
    assert response.status_code == 404
    assert response.get_json()["detail"] == (
        f"There is nothing at {path} itself: open {prefix}/docs in a browser; programs read {prefix}/openapi.json."
    )


@pytest.mark.parametrize("path", ["/status/", "/docs/", "/docs/index.html", "/docs/../config.py", "/static/docs.js"])
def test_similar_path(client: FlaskClient, path: str) -> None:
    """Nothing redirects, and no other file is served."""
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/start", {"POST", "OPTIONS"}),
        ("PUT", "/start", {"POST", "OPTIONS"}),
        ("DELETE", "/status", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/kill", {"POST", "OPTIONS"}),
        ("HEAD", "/restart", {"POST", "OPTIONS"}),
        ("POST", "/logs", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/health", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_wrong_method(client: FlaskClient, method: str, path: str, allowed: set[str]) -> None:
    """A wrong method is a 405 whose `Allow` has the right ones: a link can never start or kill anything."""
    response = client.open(path, method=method)
    assert response.status_code == 405
    assert response.mimetype == "application/problem+json"
    assert set(response.headers["Allow"].split(", ")) == allowed


def test_options(client: FlaskClient) -> None:
    """OPTIONS tells the methods, and grants no other origin anything."""
    response = client.options("/start")
    assert response.status_code == 200
    assert set(response.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}
    assert not [name for name in response.headers.keys() if name.startswith("Access-Control")]  # noqa: SIM118 (pairs)


@pytest.mark.parametrize("path", ["/health", "/status", "/openapi.json", "/docs", "/nothing"])
def test_head(client: FlaskClient, path: str) -> None:
    """HEAD answers like GET, without the body."""
    head, get = client.head(path), client.get(path)
    assert head.data == b""
    assert (head.status_code, head.headers["Content-Type"]) == (get.status_code, get.headers["Content-Type"])


def test_failure_of_our_own(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """A fault of the service's is a 500 that shows nothing of its inside; the log has the traceback."""

    def fail() -> str:
        raise RuntimeError("inside story")

    app.add_url_rule("/fail", view_func=fail)
    with caplog.at_level(logging.ERROR):
        response = app.test_client().get("/fail")
    assert response.status_code == 500
    assert response.mimetype == "application/problem+json"
    assert "inside story" not in response.text
    assert "Traceback" not in response.text
    assert "inside story" in caplog.text


def test_further_members(app: Flask) -> None:
    """What an error tells beside its sentence stands beside it, and never over the standard's members."""

    def refuse() -> str:
        raise ConflictError("Wait.", pids=[1, 2], status="wrong")

    app.add_url_rule("/refuse", view_func=refuse)
    assert app.test_client().get("/refuse").get_json() == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "Wait.",
        "pids": [1, 2],
    }


@pytest.mark.parametrize("path", ["/health", "/status", "/nothing", "/docs"])
def test_headers_of_every_answer(client: FlaskClient, path: str) -> None:
    """No answer is stored, sniffed, framed or lent to another origin."""
    headers = client.get(path).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
