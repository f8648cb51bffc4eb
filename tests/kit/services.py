"""Services in folders of their own, started and stopped, and one that is lent to a test."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TypedDict, Unpack

from tests.kit.leftovers import assert_none_left, nothing_left_behind
from tests.kit.network import listens
from tests.kit.processes import descendants
from tests.kit.service import GUNICORN, Refusal, Service, notable_lines, service_environment

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


def successor_of(service: Service, serve: Services, *arguments: str, **settings: str) -> Service:
    """Start a service on the same log directory, and wait until it answers."""
    return serve(*arguments, settings={"LLM_SHELL_LOG_DIR": str(service.log_dir), **settings})
