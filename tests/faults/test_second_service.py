"""A service that took a run over from another is no ancestor of its tree, and must know it all the same."""

from __future__ import annotations

import signal

import pytest

from tests.faults.test_shim_killed import start_with_orphans
from tests.kit.actors import kill_shim, worker_of
from tests.kit.processes import alive, parent, send, stopped
from tests.kit.services import Services, successor_of


def test_escapees_of_a_shim_that_dies_under_a_second_service_stay_in_the_tree(serve: Services) -> None:
    """Who had escaped from the process when the second service came is ended with it after the shim's death, too."""
    service = serve(settings={"LLM_SHELL_ON_SHUTDOWN": "keep"})
    pid, orphans = start_with_orphans(service)
    assert service.stop() == 0
    service = successor_of(service, serve)
    assert service.status()["process_pid"] == pid
    kill_shim(service)
    answer = service.post("/kill").body
    assert (answer["status"], answer["survivors"]) == ("killed", [])
    assert not any(alive(member) for member in (pid, *orphans))


@pytest.mark.parametrize("dead", ["shim", "shim and understudy"])
def test_a_run_whose_worker_dies_with_them_right_after_the_start(serve: Services, dead: str) -> None:
    """A process is known to the next worker from the moment that /start answers, whoever of its keepers is left."""
    service = serve()
    worker = worker_of(service)
    pid = service.start("exec sleep 1000")["process_pid"]
    shim = parent(pid)
    keepers = [shim] if dead == "shim" else [parent(shim), shim]
    with stopped(service.pid):
        send(signal.SIGKILL, worker, *keepers)
    status = service.status()
    assert (status["status"], status["process_pid"]) == ("running", pid)
    answer = service.post("/kill").body
    code = -15 if dead == "shim" else None
    assert (answer["status"], answer["exit_code"], answer["survivors"]) == ("killed", code, [])
    assert not alive(pid)
