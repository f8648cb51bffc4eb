"""Fixtures for the tests against a real gunicorn: one of a test's own, and one that a file's tests share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TypedDict, Unpack

import pytest

from tests.service.harness import (
    GUNICORN,
    Refusal,
    Service,
    listens,
    notable_lines,
    nothing_left_behind,
    service_environment,
)
from tests.support import assert_none_left, descendants

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
WSGI_APP = (*GUNICORN, "wsgi:app")


class How(TypedDict, total=False):
    """How a service is started, where not in the usual way: by gunicorn, in a folder of its own, with no settings."""

    command: Sequence[str]
    cwd: Path
    umask: int
    settings: Mapping[str, str]


class Services:
    """Start services in folders below `folder`, each with a log directory and a working directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Service] = []

    def __call__(self, *arguments: str, **how: Unpack[How]) -> Service:
        """Start a service as `launch` does, and return it when it answers."""
        service = self.launch(*arguments, **how)
        service.wait_until_healthy()
        return service

    def launch(self, *arguments: str, **how: Unpack[How]) -> Service:
        """Start a service with further arguments, and don't wait for it."""
        folder = self.folder / f"service-{len(self.started)}"
        work = folder / "work"
        work.mkdir(parents=True)
        service = Service(
            folder / "gunicorn.log",
            [*how.get("command", WSGI_APP), *arguments],
            how.get("cwd", work),
            service_environment(folder / "logs", how.get("settings", NO_SETTINGS)),
            umask=how.get("umask", -1),
        )
        self.started.append(service)
        return service

    def refused(self, *arguments: str, **how: Unpack[How]) -> Refusal:
        """Start a service that must not start, and return how it said so."""
        began = time.monotonic()
        service = self.launch(*arguments, **how)
        code = service.wait()
        return Refusal(code, notable_lines(service.text), time.monotonic() - began)

    def stop(self) -> None:
        """Stop what still runs, and check that nobody listens in its place."""
        for service in self.started:
            if service.running:
                service.stop()
        assert not [service.port for service in self.started if service.port and listens(service.port)]


@contextmanager
def services_in(folder: Path) -> Iterator[Services]:
    """Offer services that are stopped at the end, with nothing of theirs left alive or listening."""
    with nothing_left_behind(), ExitStack() as cleanup:
        services = Services(folder)
        cleanup.callback(services.stop)
        yield services


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


@contextmanager
def lent(service: Service) -> Iterator[Service]:
    """Lend a running service on which nothing is alive; end afterwards what was started there, and see that it is gone.

    Whatever escapes ends up below this process, a subreaper while services run; so does what nobody has reaped.
    """
    service.end_run()
    service.wait_until_alone()
    others = descendants().keys() - descendants(service.pid).keys()
    yield service
    service.end_run()
    service.wait_until_alone()
    assert_none_left(others | {service.pid, *service.workers})


@pytest.fixture
def service(shared_service: Service) -> Iterator[Service]:
    """Return a running service on which nothing is alive, and end afterwards what the test has started there."""
    with lent(shared_service) as service:
        yield service
