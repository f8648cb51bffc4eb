"""LLM_SHELL_RUN_ID and LLM_SHELL_NAME: a command, and all that it starts, can tell of which run it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.exceptions import BadRequestError
from app.runs.spec import Spec
from app.supervisor.manager import ProcessManager
from tests.kit.output import content
from tests.kit.processes import environment_entries, environment_of
from tests.kit.waiting import ended, wait_until

NAMES = ("LLM_SHELL_RUN_ID", "LLM_SHELL_NAME")
SHOW = 'echo "$LLM_SHELL_RUN_ID $LLM_SHELL_NAME"'
PAD = "LLM_PAD"
# What the limit counts beside the value of `NAME=value`: its NUL, too (execve(2)).
OVERHEAD = len(f"{PAD}00=") + 1


def printed_by(pm: ProcessManager, begin: Callable[[], dict[str, object]]) -> tuple[object, list[str]]:
    """Begin a run and wait for its end; return its id and the lines that it printed."""
    run_id = begin()["run_id"]
    ended(pm.get_status)
    wait_until(lambda: not pm.get_status()["output_open"])
    return run_id, content(pm).splitlines()


def run(pm: ProcessManager, command: str = SHOW, **env: str) -> tuple[object, list[str]]:
    """Run a command to its end; return the run's id and the lines that it printed."""
    return printed_by(pm, lambda: pm.start(Spec(command, cwd="/", env=env)))


def test_each_run_has_its_own(either: ProcessManager) -> None:
    """Every one of several runs in a row, those of one second included, sees its id and the process's name."""
    ids = set()
    for _ in range(4):
        run_id, lines = run(either)
        assert lines == [f"{run_id} default"]
        ids.add(run_id)
    assert len(ids) == 4


def test_the_executed_program_has_them(either: ProcessManager) -> None:
    """They are in the environment that /proc shows of the command's process, each once."""
    status = either.start(Spec("exec sleep 300", cwd="/"))
    shown = environment_of(status["process_pid"])
    assert [shown.get(name) for name in NAMES] == [status["run_id"], "default"]
    names = [entry.split(b"=")[0].decode() for entry in environment_entries(status["process_pid"])]
    assert sorted(name for name in names if name.startswith("LLM_SHELL_")) == sorted(NAMES)


def test_descendants_have_them(either: ProcessManager) -> None:
    """What a command starts, a daemon in a session of its own included, has them too."""
    run_id, lines = run(either, f"setsid -w sh -c '{SHOW}'; (setsid sh -c '{SHOW}' &)")
    assert lines == [f"{run_id} default"] * 2


def test_restart_gives_the_new_id(either: ProcessManager) -> None:
    """/restart gives the command the id of the new run, time and again, also of one that still lives."""
    first, lines = run(either)
    for _ in range(2):
        again, lines = printed_by(either, either.restart)
        assert again != first
        assert lines == [f"{again} default"]
        first = again
    either.start(Spec("exec sleep 300", cwd="/"))
    status = either.restart(0.0)
    assert environment_of(status["process_pid"])["LLM_SHELL_RUN_ID"] == status["run_id"]


def test_those_of_the_service_are_replaced(either: ProcessManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is itself part of a run gives its commands their own, not those that it has."""
    for name in NAMES:
        monkeypatch.setenv(name, "the-service-s")
    run_id, lines = run(either, "env | grep LLM_SHELL_ | sort")
    assert lines == ["LLM_SHELL_NAME=default", f"LLM_SHELL_RUN_ID={run_id}"]


def test_nothing_given_goes_before_them(pm: ProcessManager) -> None:
    """They say whose a process is: what a spec has under their names does not count, nor at a restart."""
    run_id, lines = run(pm, LLM_SHELL_RUN_ID="forged", LLM_SHELL_NAME="forged")
    assert lines == [f"{run_id} default"]
    again, lines = printed_by(pm, pm.restart)
    assert lines == [f"{again} default"]


def test_a_log_of_the_caller_s_gives_the_id(pm: ProcessManager, tmp_path: Path) -> None:
    """A run whose log has a name of its own has that as its id, with any characters and a long one too."""
    for name in ("mine", "\u00e9 =\n", "x" * 200):
        status = pm.start(Spec("exec sleep 300", cwd="/"), str(tmp_path / f"{name}.log"), if_running="replace")
        assert environment_of(status["process_pid"])["LLM_SHELL_RUN_ID"] == status["run_id"] == name


def padding(pm: ProcessManager, room: int) -> dict[str, str]:
    """Return variables with which a command's environment, without these two, is `room` bytes below the limit."""
    # A shell that stays: what it executes has variables of the shell's own.
    pid = pm.start(Spec("sleep 300 & wait", cwd="/"))["process_pid"]
    shown = environment_entries(pid)
    pm.kill("SIGKILL")
    usual = sum(len(entry) + 1 for entry in shown if not entry.startswith(tuple(map(str.encode, NAMES))))
    left = os.sysconf("SC_ARG_MAX") // 2 - usual - room
    full, rest = divmod(left, 100_000)
    if rest < OVERHEAD:
        full, rest = full - 1, rest + 100_000
    sizes = [100_000] * full + [rest]
    return {f"{PAD}{number:02}": "x" * (size - OVERHEAD) for number, size in enumerate(sizes)}


@pytest.mark.parametrize("room", [0, 60])
def test_the_limit_counts_them(pm: ProcessManager, room: int) -> None:
    """An environment that is within the limit only without them is refused as too large, with nothing started."""
    env = padding(pm, room)
    before = pm.get_status()["run_id"]
    with pytest.raises(BadRequestError, match="over the system's limit"):
        run(pm, **env)
    assert pm.get_status()["run_id"] == before


def test_the_largest_environment_has_them(pm: ProcessManager) -> None:
    """An environment with just the room for them and the longest id is started, and has them."""
    run_id, lines = run(pm, **padding(pm, 400))
    assert lines == [f"{run_id} default"]


def test_the_port_is_among_them(either: ProcessManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port is PORT, whatever the service's own is, also at a restart; the caller's own PORT goes before it."""
    monkeypatch.setenv("PORT", "8000")
    show = 'echo "$PORT"'
    assert printed_by(either, lambda: either.start(Spec(show, cwd="/", port=3000)))[1] == ["3000"]
    assert printed_by(either, either.restart)[1] == ["3000"]
    assert printed_by(either, lambda: either.start(Spec(show, cwd="/", port=3000, env={"PORT": "1"})))[1] == ["1"]
    assert printed_by(either, lambda: either.start(Spec(show, cwd="/")))[1] == ["8000"]
