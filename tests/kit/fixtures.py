"""Fixtures for the tests against a real gunicorn: one of a test's own, and one that a file's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.service import Service
from tests.kit.services import Services, lent, services_in


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Services]:
    """Return a function that starts a service of this test's own."""
    with services_in(tmp_path) as services:
        yield services


@pytest.fixture(scope="module")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return the service with default settings that a file's tests share."""
    with services_in(tmp_path_factory.mktemp("shared")) as services:
        yield services()


@pytest.fixture
def service(shared_service: Service) -> Iterator[Service]:
    """Return a running service on which nothing is alive, and end afterwards what the test has started there."""
    with lent(shared_service) as service:
        yield service
