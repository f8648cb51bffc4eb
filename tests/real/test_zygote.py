"""The zygote is killed at any moment of a start: what tests/faults does a few times, sixty times."""

from __future__ import annotations

from pathlib import Path

from tests.kit.executions import Executions, lose_zygotes, started
from tests.kit.services import services_in

TRIES = 60


def test_a_zygote_killed_at_any_moment(tmp_path: Path) -> None:
    """Sixty times the zygote is killed 0 to 10 ms after a start was asked for, and its command starts once."""
    with services_in(tmp_path) as serve:
        executions = Executions(serve(), tmp_path / "executions")
        started(executions)
        lose_zygotes(executions, TRIES)
        executions.check()
