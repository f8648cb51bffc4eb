"""What GET /status tells with `details`, of real trees."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import NotFoundError
from app.runs.spec import Spec
from app.supervisor import meter
from app.supervisor.manager import ProcessManager
from tests.kit.network import free_port
from tests.kit.output import printed
from tests.kit.processes import children, parent
from tests.kit.requiring import require
from tests.kit.servers import PYTHON, forking, listening_at
from tests.kit.waiting import ended, wait_until

FIELDS = ["last_output_at", "total_lines", "last_failure", "input", "ports", "cpu_percent", "memory_bytes", "members"]
BUSY = f"echo busy; exec {PYTHON} -c 'while True: pass'"


def details(pm: ProcessManager, run_id: str | None = None) -> dict[str, Any]:
    """Return `details` of a run, by default of the current one."""
    return pm.details_of(run_id or pm.get_status()["run_id"])


def run(pm: ProcessManager, command: str) -> str:
    """Run a command to its end and that of its output, and return its run's id."""
    run_id = pm.start(command)["run_id"]
    await_end(pm)
    return str(run_id)


def await_end(pm: ProcessManager, name: str = "default") -> None:
    """Wait until a process has ended and its output is closed, which may be first."""
    ended(lambda: pm.get_status(name=name))
    wait_until(lambda: not pm.get_status(name=name)["output_open"])


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have measuring end soon after it is not asked for any more."""
    monkeypatch.setattr(meter, "LINGER", 0.5)


def test_a_server(either: ProcessManager) -> None:
    """Ports with their addresses, members with parents and command lines, memory and lines: whoever's process it is."""
    port = free_port()
    places = [f"127.0.0.1:{port}", f"::1:{port}"]
    status = either.start(Spec(f"echo first; {listening_at(*places)}; true", cwd="/"))
    printed(either, "listening")
    told = details(either)
    (server,) = children(status["process_pid"])
    assert list(told) == FIELDS
    assert told["ports"] == [{"address": address, "port": port, "pid": server} for address in ("127.0.0.1", "::1")]
    assert [(one["pid"], one["ppid"]) for one in told["members"]] == [
        (status["process_pid"], parent(status["process_pid"])),
        (server, status["process_pid"]),
    ]
    assert [one["command_line"].startswith(words) for one, words in zip(told["members"], ("/", PYTHON), strict=True)]
    assert told["memory_bytes"] == sum(one["memory_bytes"] for one in told["members"]) > 1_000_000
    assert (told["total_lines"], told["last_failure"], told["input"]) == (2, None, None)
    assert status["created_at"] < told["last_output_at"]


def test_a_tree_that_is_quiet(pm: ProcessManager) -> None:
    """Without output or ports there are neither."""
    pm.start("exec sleep 1000")
    told = details(pm)
    assert (told["last_output_at"], told["total_lines"], told["ports"]) == (None, 0, [])


def test_forks_with_one_socket(pm: ProcessManager) -> None:
    """A socket that a server's forks have, too, is told once, with the server."""
    port = free_port()
    pm.start(f"{forking(port, 4)} & wait")
    first = int(printed(pm, "listening").split()[1])
    told = details(pm)
    assert told["ports"] == [{"address": "127.0.0.1", "port": port, "pid": first}]
    assert len(told["members"]) == 6


def test_another_network_namespace(pm: ProcessManager) -> None:
    """A port in a network namespace of the tree's own is told as well."""
    require(os.geteuid() == 0 and shutil.which("unshare"), "root and unshare, for a network of its own")
    port = free_port()
    status = pm.start(f"exec unshare -n {listening_at(f'0.0.0.0:{port}')}")
    printed(pm, "listening")
    assert details(pm)["ports"] == [{"address": "0.0.0.0", "port": port, "pid": status["process_pid"]}]


def test_load(pm: ProcessManager) -> None:
    """It is null at first; then a loop takes much of a processor, and its shell nothing."""
    pm.start(f"({BUSY}) & wait")
    printed(pm, "busy")
    first = details(pm)
    assert (first["cpu_percent"], [one["cpu_percent"] for one in first["members"]]) == (None, [None, None])
    told = wait_until(lambda: (now := details(pm))["cpu_percent"] is not None and now)
    shell, loop = [one["cpu_percent"] for one in told["members"]]
    assert shell < 10 < loop  # beside whatever else this machine does
    assert abs(told["cpu_percent"] - loop) < 20


def test_load_of_short_lived_children(pm: ProcessManager) -> None:
    """A shell that runs one short program after the other is busy, though none of them lives for a second."""
    pm.start(f"echo busy; while :; do {PYTHON} -S -c pass; done")
    printed(pm, "busy")
    told = wait_until(lambda: ((now := details(pm))["cpu_percent"] or 0) > 10 and now)
    assert told["members"][0]["cpu_percent"] < told["cpu_percent"]


def test_load_of_the_last_second(pm: ProcessManager) -> None:
    """What a tree did before does not count: one that has become idle has no load soon after."""
    pm.start(
        f"{PYTHON} -c 'import time; print(1, flush=True)\nwhile time.process_time() < 0.5: pass'; echo idle; sleep 1000"
    )
    wait_until(lambda: details(pm)["cpu_percent"])
    printed(pm, "idle")
    wait_until(lambda: details(pm)["cpu_percent"] == 0.0)


@pytest.mark.usefixtures("brief")
def test_nothing_is_measured_for_nobody(pm: ProcessManager) -> None:
    """The thread that measures ends when it is not asked any more, and the next call begins anew."""
    pm.start("exec sleep 1000")
    for _ in range(2):
        assert details(pm)["cpu_percent"] is None
        assert measuring()
        wait_until(lambda: not measuring())
    pm.kill()


def test_measuring_ends_with_the_run(pm: ProcessManager) -> None:
    """A tree that is gone is not measured, however recently it was asked for."""
    pm.start("exec sleep 1000")
    details(pm)
    pm.kill()
    wait_until(lambda: not measuring())


def measuring() -> bool:
    """Tell whether the thread is there."""
    return any(thread.name == "cpu-meter" for thread in threading.enumerate())


def test_many_members(pm: ProcessManager) -> None:
    """A hundred are listed, the oldest first, and the memory is that of all."""
    pm.start("for i in $(seq 120); do sleep 1000 & done; echo ready; wait")
    printed(pm, "ready")
    told = details(pm)
    assert len(told["members"]) == 100
    assert told["members"][0]["pid"] == pm.get_status()["process_pid"]
    assert told["memory_bytes"] > sum(one["memory_bytes"] for one in told["members"])


def test_hostile_command_lines(pm: ProcessManager) -> None:
    """They are cut at 80 characters, and what would break a line or a terminal is escaped."""
    pm.start(f"exec {PYTHON} -c 'import time; time.sleep(1000)' $'a\\e[31m\\nb' {'x' * 200}")
    (member,) = wait_until(lambda: (found := details(pm)["members"])[0]["command_line"].startswith(PYTHON) and found)
    assert member["command_line"].isprintable()
    assert len(member["command_line"]) <= 80
    assert r"a\x1b[31m\nb" in member["command_line"]


def test_an_ended_run(pm: ProcessManager) -> None:
    """It has no members, ports or load; its output is still told, also once it is a past one."""
    run_id = run(pm, "echo one; echo two")
    told = details(pm)
    none: dict[str, Any] = {
        "ports": [],
        "members": [],
        "cpu_percent": None,
        "memory_bytes": 0,
        "last_failure": None,
        "total_lines": 2,
    }
    assert {name: told[name] for name in none} == none
    run(pm, "true")
    assert details(pm, run_id) == told
    with pytest.raises(NotFoundError):
        details(pm, "2001-01-01_00-00-00")


def test_leftovers_are_members(pm: ProcessManager) -> None:
    """What a process has left behind is listed, with the ports that it listens on."""
    port = free_port()
    pm.start(f"{listening_at(f'127.0.0.1:{port}')} & exit 0")
    ended(pm.get_status)
    printed(pm, "listening")
    told = details(pm)
    (left,) = pm.get_status()["leftover_pids"]
    assert [one["pid"] for one in told["members"]] == [left]
    assert [one["port"] for one in told["ports"]] == [port]


def test_a_log_that_is_gone(pm: ProcessManager) -> None:
    """Then it is not known how many lines there were."""
    run_id = run(pm, "echo one; exit 3")
    Path(pm.get_status()["log_file"]).unlink()
    told = details(pm, run_id)
    assert (told["last_output_at"], told["total_lines"]) == (None, None)
    assert told["last_failure"]["lines"] == []


@pytest.mark.parametrize(("command", "code", "name"), [("exit 3", 3, None), ("kill -SEGV $$", -11, "SIGSEGV")])
def test_the_last_failure(pm: ProcessManager, command: str, code: int, name: str | None) -> None:
    """It is told with its last five lines, cleaned, as long as no newer run failed; of the failed run itself, too."""
    lines = r"seq 7; printf '\033[31mError\033[0m\n10%%\r100%%\n'"
    run_id = run(pm, f"{lines}; {command}")
    failure = {
        "run_id": run_id,
        "exit_code": code,
        "signal": name,
        "stopped_at": pm.get_status()["stopped_at"],
        "lines": ["5", "6", "7", "Error", "100%"],
    }
    assert details(pm)["last_failure"] == failure
    run(pm, "echo well")
    assert details(pm)["last_failure"] == failure
    pm.start("exec sleep 1000")
    assert details(pm)["last_failure"] == failure
    pm.kill()
    assert details(pm)["last_failure"] == failure
    newer = run(pm, "exit 1")
    assert details(pm, run_id)["last_failure"]["run_id"] == newer


def test_what_is_no_failure(pm: ProcessManager) -> None:
    """Neither 0 nor an end that we made is one, nor is a failure of another name."""
    run(pm, "true")
    pm.start("exec sleep 1000")
    pm.kill("SIGKILL")
    pm.start("exit 3", name="other")
    await_end(pm, "other")
    assert details(pm)["last_failure"] is None
    assert details(pm, pm.get_status(name="other")["run_id"])["last_failure"]["exit_code"] == 3


def test_a_failure_with_leftovers(pm: ProcessManager) -> None:
    """It is one as soon as its process has ended."""
    pm.start("sleep 1000 & exit 7")
    run_id = ended(pm.get_status)["run_id"]
    assert details(pm)["last_failure"]["run_id"] == run_id
    pm.kill()


def test_long_lines_are_cut(pm: ProcessManager) -> None:
    """Five lines of any length make a short answer."""
    run(pm, "for i in 1 2 3 4 5; do head -c 300000 /dev/zero | tr '\\0' x; echo $i; done; exit 1")
    told = details(pm)
    assert {len(line) for line in told["last_failure"]["lines"]} == {500}
    assert told["last_failure"]["lines"][-1].endswith("xxx5")
    assert len(json.dumps(told)) < 10_000
