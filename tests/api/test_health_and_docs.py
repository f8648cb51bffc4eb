"""/health, /openapi.json and /docs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

CALLS = {
    ("post", "/start"): {"200", "201", "400", "401", "403", "409", "413", "415", "429", "500"},
    ("get", "/status"): {"200", "400", "401", "403", "404", "500"},
    ("get", "/processes"): {"200", "400", "401", "403", "500"},
    ("get", "/runs"): {"200", "400", "401", "403", "404", "500"},
    ("post", "/kill"): {"200", "400", "401", "403", "404", "413", "415", "429", "500"},
    ("post", "/restart"): {"200", "400", "401", "403", "404", "409", "413", "415", "429", "500"},
    ("get", "/logs"): {"200", "400", "401", "403", "404", "429", "500"},
    ("get", "/health"): {"200", "400", "403", "500"},
    ("get", "/openapi.json"): {"200", "400", "403", "500"},
    ("get", "/docs"): {"200", "400", "403", "500"},
}


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    """Return the OpenAPI document."""
    return dict(client.get("/openapi.json").get_json())


def test_health(client: FlaskClient) -> None:
    """/health tells that the service is up, which version, and for how many whole seconds."""
    body = client.get("/health").get_json()
    assert isinstance(body.pop("uptime"), int)
    assert body == {"status": "healthy", "version": "1.0.0"}


def test_every_call_is_described(document: dict[str, Any]) -> None:
    """The document has every call with every status it can answer, and no other call."""
    described = {
        (method, path): set(operation["responses"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert described == CALLS


def test_every_call_has_its_words(document: dict[str, Any]) -> None:
    """Each call has a summary, and each parameter and field of a request a description for the agent to read."""
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            for parameter in operation.get("parameters", []):
                assert parameter["description"]
    for field in document["components"]["schemas"]["Start"]["properties"].values():
        assert field["description"]


def test_errors_are_described_as_problems(document: dict[str, Any]) -> None:
    """Every error is described as `application/problem+json`, open to further members."""
    for operations in document["paths"].values():
        for operation in operations.values():
            failures = [response for status, response in operation["responses"].items() if status >= "400"]
            media_types = {media_type for failure in failures for media_type in failure["content"]}
            assert media_types == {"application/problem+json"}
    problem = document["components"]["schemas"]["Problem"]
    assert set(problem["required"]) == {"type", "title", "status", "detail"}
    assert problem["additionalProperties"] is not False


def test_no_security_without_a_token(document: dict[str, Any]) -> None:
    """Without a token the document asks for none."""
    assert "security" not in document
    assert "securitySchemes" not in document["components"]


def test_security_with_a_token(make_app: Callable[..., Flask]) -> None:
    """With a token the document asks for a bearer token everywhere but where none is needed."""
    token = "correct-horse-battery"  # noqa: S105 (a token of this test alone)
    client = make_app(token=token).test_client()
    document = client.get("/openapi.json").get_json()
    assert document["security"] == [{"bearer": []}]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for (method, path), statuses in CALLS.items():
        assert document["paths"][path][method].get("security") == (None if "401" in statuses else [])


def test_docs_need_no_network(client: FlaskClient) -> None:
    """The page's files all come from the service, and the page has no script or style of its own in line."""
    page = client.get("/docs")
    assert page.mimetype == "text/html"
    files = re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text)
    assert len(files) == 4
    assert not re.search(r"//|<style|<script>|\son\w+=", page.text.replace("<!doctype", ""))
    for name in files:
        response = client.get(f"/{name}")
        assert response.status_code == 200
        assert response.mimetype == ("text/css" if name.endswith(".css") else "text/javascript")


def test_docs_policy(client: FlaskClient) -> None:
    """The page's policy lets nothing in from elsewhere, and no inline script."""
    policy = client.get("/docs").headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("module", ["app", "app.shim.main"])
def test_shim_loads_no_web_framework(module: str) -> None:
    """Importing the package, or the shim, loads neither Flask nor marshmallow."""
    script = f"import {module}, sys; print([m for m in ('flask', 'marshmallow', 'environs') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
