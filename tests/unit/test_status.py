"""The status object follows from record and state alone."""

import pytest

from app.linux.proc import Identity
from app.runs.record import State
from app.supervisor.leftovers import Left
from app.supervisor.status import describe, reason_of, signal_name, status_of
from tests.kit.records import make_record


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State(), "running"),
        (State(killed_by="kill"), "running"),
        (State(stopped_at="then"), "exited"),
        (State(stopped_at="then", ended=True), "exited"),
        (State(stopped_at="then", killed_by="restart"), "killed"),
    ],
)
def test_status(state: State, status: str) -> None:
    """A run is running until its process has ended, and killed only if that lived at our first signal."""
    assert status_of(state) == status


@pytest.mark.parametrize(("code", "name"), [(None, None), (0, None), (143, None), (-9, "SIGKILL"), (-64, "SIGRTMAX")])
def test_signal_name(code: int | None, name: str | None) -> None:
    """Only a negative code is a signal's."""
    assert signal_name(code) == name


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (State(), None),
        (State(stopped_at="then", exit_code=0), None),
        (State(stopped_at="then", killed_by="kill"), "Ended by /kill."),
        (State(stopped_at="then", killed_by="shutdown"), "Ended because the service stopped."),
        (
            State(stopped_at="then", killed_by="restart", escalated=True),
            "Ended by /restart. SIGKILL followed.",
        ),
        (State(killed_by="kill"), "It was asked to end and is still alive."),
        (State(stopped_at="then", unknown="Nobody knows."), "Nobody knows."),
        (
            State(incidents={"dropped_lines": 3}),
            "Incidents: lines not written to the log (gaps in seq show where): 3.",
        ),
    ],
)
def test_reason(state: State, reason: str | None) -> None:
    """The reason says in one short text what the other fields can't, and nothing when there is nothing."""
    assert reason_of(state) == reason


def test_status_object_has_the_contract_s_fields_in_order() -> None:
    """The status object holds exactly the fields of the contract."""
    record = make_record(process=Identity(42, 1))
    described = describe(
        record, State(stopped_at="then", exit_code=-15, killed_by="kill", output_open=False), Left([7], [])
    )
    assert described == {
        "name": "default",
        "status": "killed",
        "process_pid": 42,
        "command": "echo привет",
        "run_id": "2026-11-22_06-08-00",
        "log_file": "/logs/2026-11-22_06-08-00.log",
        "created_at": "2026-11-22T06:08:00.000000Z",
        "stopped_at": "then",
        "exit_code": -15,
        "signal": "SIGTERM",
        "reason": "Ended by /kill.",
        "output_open": False,
        "leftover_pids": [7],
        "daemons": [],
        "restarts": 0,
        "next_start_at": None,
        "limit": None,
    }
