"""A run's outcome, output and command are known to every later service on its directory, whatever became of the first.

The same ways to end as in tests/real, a few times each.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from app.runs.record import RecordFile, record_path
from tests.kit.actors import record_of
from tests.kit.last_seconds import (
    KEEP,
    end_after_a_stop_that_keeps,
    end_after_the_masters_death,
    end_while_a_reader_holds_up_the_stop,
    slow_reader,
    spread,
)
from tests.kit.processes import alive
from tests.kit.service import Service
from tests.kit.services import Services, successor_of
from tests.kit.waiting import wait_until

ELSEWHERE_BOOT = "00000000-0000-4000-8000-000000000000"


def test_an_end_right_after_the_masters_death_is_known(serve: Services) -> None:
    """The code of a command that ended while the worker of a killed master was still there is told by the next."""
    service = serve(settings=KEEP)
    for delay in spread(3):
        service = end_after_the_masters_death(service, serve, delay)


def test_an_end_right_after_a_stop_that_keeps_is_known(serve: Services) -> None:
    """The code of a command that ended while a service that keeps it was stopping is told by the next."""
    service = serve(settings=KEEP)
    for delay in spread(3):
        service = end_after_a_stop_that_keeps(service, serve, delay)


def test_an_end_while_a_reader_holds_up_the_stop_is_known(serve: Services, tmp_path: Path) -> None:
    """The code of a command that ended while its service waited for a slow reader of /logs is told by the next."""
    service = serve("--graceful-timeout", "1", settings=KEEP)
    end_while_a_reader_holds_up_the_stop(service, serve, tmp_path)


def test_an_end_by_a_stop_that_a_reader_holds_up_is_known(serve: Services) -> None:
    """A command that a service ended when it was stopped is `killed` to the next, with the code it chose."""
    service = serve("--graceful-timeout", "1")
    status = service.start("trap 'exit 6' TERM; seq 1000000; echo ready; while :; do sleep 0.02; done")
    wait_until(lambda: service.content("?lines=1") == "ready")
    reader = slow_reader(service)
    os.kill(service.pid, signal.SIGTERM)
    wait_until(lambda: record_of(status).state.ended)
    assert service.wait() == 0
    reader.close()
    now = successor_of(service, serve).status()
    assert (now["run_id"], now["status"], now["exit_code"]) == (status["run_id"], "killed", 6)
    assert now["reason"] == "Ended because the service stopped."


def ended_before_a_restart(serve: Services, command: str, **fields: Any) -> tuple[Service, dict[str, Any]]:
    """Run a command to its end, stop the service, and return the next one and the status of before."""
    service = serve()
    service.start(command, **fields)
    before = service.wait_for_exit()
    assert service.stop() == 0
    return successor_of(service, serve), before


def test_the_last_run_is_answered_for_after_a_restart(serve: Services) -> None:
    """A run that ended in an earlier service's life has the same status, output and answer to /kill in the next."""
    service, before = ended_before_a_restart(serve, "echo one; echo two; exit 6")
    assert service.status() == before
    assert service.content() == "one\ntwo"
    assert service.content("?lines=1") == "two"
    refusal = service.post("/kill")
    assert (refusal.status, "exit code 6" in refusal.body["detail"]) == (400, True)


def test_an_earlier_services_run_is_restarted(serve: Services, tmp_path: Path) -> None:
    """/restart of a run of an earlier service has its command, directory and environment, and leaves its outcome."""
    command = 'echo "$PWD $GREETING"; exit 6'
    service, before = ended_before_a_restart(serve, command, cwd=str(tmp_path), env={"GREETING": "hello"})
    code, again = service.post("/restart")
    assert (code, again["command"], again["status"]) == (200, command, "running")
    assert again["run_id"] != before["run_id"]
    assert service.wait_for_exit()["exit_code"] == 6
    assert service.content() == f"{tmp_path} hello"
    assert service.get(f"/status?run_id={before['run_id']}").body == before


def test_an_outcome_outlives_the_machine(serve: Services) -> None:
    """A run that ended before the machine was restarted has its outcome and output, and starts again."""
    service = serve()
    service.start("echo before; exit 6")
    before = service.wait_for_exit()
    assert service.stop() == 0
    record = record_of(before)
    record.boot_id = ELSEWHERE_BOOT
    RecordFile(record_path(record.log_file)).write(record)
    service = successor_of(service, serve)
    assert service.status() == before
    assert service.content() == "before"
    assert service.content("?seconds=600") == "before"
    assert service.post("/restart").status == 200


def test_nothing_is_said_of_what_is_not_kept(serve: Services) -> None:
    """Once the files of all runs are removed the next service has nothing to speak of: 404, and a start works."""
    service = serve()
    run_id = service.start("exit 6")["run_id"]
    service.wait_for_exit()
    assert service.stop() == 0
    for file in service.log_dir.glob(f"{run_id}*"):
        file.unlink()
    service = successor_of(service, serve)
    for method, path in (("GET", "/status"), ("GET", "/logs"), ("POST", "/kill"), ("POST", "/restart")):
        assert service.call(method, path).status == 404
    assert service.get(f"/status?run_id={run_id}").status == 404
    assert alive(service.start("exec sleep 1000")["process_pid"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_comes_later_remembers_the_run(service: Service, number: signal.Signals) -> None:
    """A worker's end, orderly or not, changes nothing about what is said of a run that had ended before."""
    service.start("echo one; exit 6")
    before = service.wait_for_exit()
    (worker,) = service.workers
    os.kill(worker, number)
    wait_until(lambda: not alive(worker) and service.answers())
    assert service.status() == before
    assert service.content() == "one"
