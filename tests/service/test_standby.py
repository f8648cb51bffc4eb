"""The shim that stands by: it makes starts quick, changes nothing else, and is the service's own."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from tests.kit.actors import kill_shim, shim_of
from tests.kit.processes import alive, descendants, send
from tests.kit.service import Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until

# What a command may notice of how it was started.
PROBE = (
    "ls -l /proc/self/fd | sed -nE 's/.* ([0-9]+ -> [^:]*).*/\\1/; s/[0-9]{2,}/N/gp'; "
    "grep -E '^(Sig[PBIC]|Shd|Umask|NoNewPrivs|Groups)' /proc/self/status; "
    "ulimit -a; env | sort; pwd; cut -d' ' -f19,41 /proc/self/stat; cat /proc/$PPID/comm"
)


def standby_of(service: Service) -> int:
    """Wait for the shim that stands by to be ready for a run, and return its pid."""
    (pid,) = wait_until(lambda: service.standing_by)
    wait_until(lambda: descendants(service.pid)[pid].startswith("llm-shell-shim "))  # its name until then is python's
    return pid


def probe(service: Service) -> str:
    """Return what a command finds out about how it was started."""
    service.start(PROBE)
    service.wait_for_exit()
    return service.content()


def test_a_start_takes_the_shim_that_stands_by(service: Service) -> None:
    """The shim that was ready becomes the run's, in a session of its own, and another stands by soon after."""
    ready = standby_of(service)
    service.start("exec sleep 100")
    assert shim_of(service.status()) == ready
    assert os.getsid(ready) == ready
    assert standby_of(service) != ready


def test_a_command_cannot_tell(service: Service) -> None:
    """A command that a shim started which stood by finds itself just where a new shim's command does."""
    standby_of(service)
    seen = probe(service)
    send(signal.SIGKILL, standby_of(service))
    assert probe(service) == seen
    assert re.search(r"^PATH=", seen, re.MULTILINE)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_what_becomes_of_it_hinders_no_start(service: Service, number: signal.Signals) -> None:
    """A command starts although somebody killed or stopped the shim that stood by; no zombie is kept."""
    ready = standby_of(service)
    send(number, ready)
    wait_until(lambda: number == signal.SIGSTOP or not alive(ready))
    pid = service.start("echo started; exec sleep 100")["process_pid"]
    service.wait_for_output("started")
    assert alive(pid)
    assert not [name for name in descendants(service.pid).values() if name.endswith("(Z)")]


def test_starts_in_a_row_do_not_wait_for_it(service: Service) -> None:
    """A start that comes before the next shim is ready is served by one of its own."""
    standby_of(service)
    pids = [service.start(f"echo {number}; exec sleep 100", replace=True)["process_pid"] for number in range(5)]
    assert len({*pids}) == 5
    assert service.wait_for_output("4") == "4"


def test_it_is_no_member_of_a_tree(service: Service) -> None:
    """When a shim is killed and its orphans are looked for, the one that stands by is not taken for one of them."""
    service.start("exec sleep 100")
    standby = standby_of(service)
    kill_shim(service)
    assert service.status()["leftover_pids"] == []
    assert service.post("/kill").body["survivors"] == []
    assert service.standing_by == {standby}


def test_a_dead_worker_takes_it_along(service: Service) -> None:
    """After the worker was killed, its shim that stood by ends, and the next worker has one of its own."""
    old = standby_of(service)
    send(signal.SIGKILL, *service.workers)
    wait_until(lambda: not alive(old))
    wait_until(service.answers, 20)
    assert standby_of(service) != old


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_it_has_gone_when_the_service_has(serve: Services, number: signal.Signals) -> None:
    """When the master exits, nobody stands by any more, however the stop was asked for, and no word was lost on it."""
    service = serve()
    ready = standby_of(service)
    began = time.monotonic()
    assert service.stop(number) == 0
    assert not alive(ready)
    assert time.monotonic() - began < 3
    assert "Traceback" not in service.text


def test_a_stopped_one_does_not_outlive_the_service(serve: Services) -> None:
    """A shim that stood by, and that somebody stopped, is gone when the master is."""
    service = serve()
    ready = standby_of(service)
    send(signal.SIGSTOP, ready)
    assert service.stop() == 0
    assert not alive(ready)


def test_ctrl_c_at_the_terminal_is_quiet(serve: Services) -> None:
    """An interrupt that reaches the whole process group, as a terminal's does, ends the service without a traceback."""
    service = serve()
    ready = standby_of(service)
    os.killpg(service.pid, signal.SIGINT)
    assert service.wait() == 0
    assert not alive(ready)
    assert "Traceback" not in service.text
