"""The service answers as its OpenAPI document says, whatever it is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.config import ChecksConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.config._checks import NegativeDataRejectionConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance

WITH_PARAMETERS = [
    *(("POST", path) for path in ("/start", "/kill", "/restart")),
    *(("GET", path) for path in ("/logs", "/runs", "/processes", "/status")),
]
CALLS = [*WITH_PARAMETERS, ("GET", "/health"), ("GET", "/openapi.json"), ("GET", "/docs")]
# What refuses: schemathesis' own, and 413, since a command that is too long can make a body that is too large.
REJECTIONS = NegativeDataRejectionConfig(
    expected_statuses=["400", "401", "403", "404", "405", "409", "413", "415", "429"]
)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [(*call, GenerationMode.POSITIVE) for call in CALLS]
    + [(*call, GenerationMode.NEGATIVE) for call in WITH_PARAMETERS],
)
def test_answers_are_as_documented(
    make_app: Callable[..., Flask], method: str, path: str, mode: GenerationMode
) -> None:
    """No call, valid or not, ends in a status, a type or a shape that the document does not have."""
    app = make_app(shell="/bin/true")  # noqa: S604 (a setting: the commands here are made up, so nothing must run them)
    project = ProjectConfig(checks=ChecksConfig(negative_data_rejection=REJECTIONS))
    config = SchemathesisConfig(projects=ProjectsConfig(default=project))
    operation = schemathesis.openapi.from_wsgi("/openapi.json", app, config=config)[path][method]

    # The same examples each time, so that a failure is everybody's.
    @settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case[Any]) -> None:
        # The document cannot say which directories exist, nor that lines and seconds exclude each other, nor that a
        # query and a body of /kill or /restart do.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    check()
