"""An end in a service's last seconds is never lost: what tests/faults does a few times, twenty times each."""

from __future__ import annotations

from pathlib import Path

from tests.kit.last_seconds import (
    KEEP,
    end_after_a_stop_that_keeps,
    end_after_the_masters_death,
    end_while_a_reader_holds_up_the_stop,
    spread,
)
from tests.kit.services import services_in

TRIES = 20


def test_an_end_right_after_the_masters_death_is_known(tmp_path: Path) -> None:
    """Twenty times a master is killed 0.02 to 0.7 s before its command ends, and the next service has the code."""
    with services_in(tmp_path) as serve:
        service = serve(settings=KEEP)
        for delay in spread(TRIES):
            service = end_after_the_masters_death(service, serve, delay)


def test_an_end_right_after_a_stop_that_keeps_is_known(tmp_path: Path) -> None:
    """Twenty times a service that keeps its command is stopped just before that ends, and the next has the code."""
    with services_in(tmp_path) as serve:
        service = serve(settings=KEEP)
        for delay in spread(TRIES):
            service = end_after_a_stop_that_keeps(service, serve, delay)


def test_an_end_while_a_reader_holds_up_the_stop_is_known(tmp_path: Path) -> None:
    """Twenty times a command ends while its service waits for a slow reader of /logs, and the next has the code."""
    with services_in(tmp_path) as serve:
        service = serve("--graceful-timeout", "1", settings=KEEP)
        for _ in range(TRIES):
            service = end_while_a_reader_holds_up_the_stop(service, serve, tmp_path)
