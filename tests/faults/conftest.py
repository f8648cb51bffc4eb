"""The fixtures of the tests against a real gunicorn, for the tests that break something under it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from tests.faults.beside import untouched
from tests.kit.fixtures import serve, shared_service
from tests.kit.service import Service
from tests.kit.services import lent

__all__ = ["serve", "service", "shared_service"]


@pytest.fixture
def service(shared_service: Service, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Return a running service with a second process on it, which no fault of the first may touch.

    Without that where the fault is the whole service's (`alone`), as the removal of the log directory is.
    """
    alone = request.node.get_closest_marker("alone") is not None
    with lent(shared_service) as service, nullcontext() if alone else untouched(service):
        yield service
