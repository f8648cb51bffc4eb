"""What a refusal says."""

from __future__ import annotations

from werkzeug.test import TestResponse


def faults_of(response: TestResponse) -> dict[str, list[str]]:
    """Return `errors` of a 400 that has the one shape of all errors."""
    assert response.status_code == 400, response.text
    assert response.mimetype == "application/problem+json"
    problem = response.get_json()
    assert problem["type"] == "about:blank"
    assert (problem["title"], problem["status"]) == ("Bad Request", 400)
    assert problem["detail"]
    return dict(problem.get("errors", {}))
