"""A standard input that never ends: what waits for it waits, and only its keepers and its run hold it open."""

from __future__ import annotations

import os
import re
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.exceptions import BadRequestError
from app.runs.record import read_record, record_path
from app.runs.spec import OPEN, Spec
from app.service import manage
from app.supervisor.manager import ProcessManager
from app.supervisor.policy import Policy
from tests.kit.actors import shim_of, understudy_of, zygote_of
from tests.kit.output import content, printed
from tests.kit.processes import alive, children, descriptors_of, name_of, send, stat_fields
from tests.kit.waiting import ended, wait_until

TAKEN_OVER = "took over"


def begin(pm: ProcessManager, command: str, stdin: str = OPEN) -> int:
    """Start a command that prints `ready`, wait for that, and return its pid."""
    pid = pm.start(Spec(command, cwd="/", stdin=stdin))["process_pid"]
    printed(pm, "ready")
    return int(pid)


def input_of(pid: int) -> str:
    """Return what a process's standard input is, as `pipe:[4711]`."""
    return descriptors_of(pid)[0]


def holders(pid: int, pipe: str) -> list[int]:
    """Return which descriptors of a process lead to this pipe."""
    return [number for number, target in descriptors_of(pid).items() if target == pipe]


def events_of(pid: int, milliseconds: int) -> list[tuple[int, int]]:
    """Return what poll(2) reports of a process's standard input within this time."""
    with Path(f"/proc/{pid}/fd/0").open("rb") as same:
        poller = select.poll()
        poller.register(same)
        return poller.poll(milliseconds)


def wait_until_blocked(pid: int) -> None:
    """Wait until a process is in read(2) of its standard input: the first two words are the call and descriptor 0."""
    wait_until(lambda: Path(f"/proc/{pid}/syscall").read_text().split()[:2] in (["0", "0x0"], ["63", "0x0"]))


@pytest.fixture
def reader(either: ProcessManager) -> tuple[ProcessManager, int]:
    """Return a manager and the pid of its `cat`, which waits for its standard input."""
    pid = begin(either, "echo ready; exec cat")
    wait_until(lambda: name_of(pid) == "cat")
    wait_until_blocked(pid)
    return either, pid


@pytest.mark.parametrize(
    "command",
    [
        "echo ready; cat; echo over",
        "echo ready; read x; echo over",
        "echo ready; cat | cat; echo over",
        "echo ready; cat /dev/stdin; echo over",
        """exec python3 -uc 'print("ready"); input(); print("over")'""",
    ],
    ids=["cat", "read", "pipeline", "by name", "input()"],
)
def test_what_reads_it_waits(either: ProcessManager, command: str) -> None:
    """A reader of any kind blocks, where with an empty input it comes to its end."""
    pid = begin(either, command)
    wait_until(lambda: _reads_it(pid, input_of(pid)))
    assert content(either) == "ready"
    either.kill("SIGKILL")
    either.start(Spec(command, cwd="/"))
    assert ended(either.get_status)["status"] == "exited"
    assert content(either) != "ready"


def _reads_it(pid: int, pipe: str) -> bool:
    """Tell whether a process, or a child of it, is blocked in a read from this pipe."""
    for one in (pid, *children(pid)):
        call = Path(f"/proc/{one}/syscall").read_text().split()
        if call[0] in {"0", "63"} and descriptors_of(one).get(int(call[1], 16)) == pipe:
            return True
    return False


def test_it_never_becomes_readable(pm: ProcessManager) -> None:
    """poll(2) reports neither data nor an end, for as long as the run lives."""
    poll = "import select; p = select.poll(); p.register(0); print(p.poll(300), 'ready', flush=True); p.poll()"
    pid = begin(pm, f'exec python3 -c "{poll}"')
    assert content(pm) == "[] ready"
    assert events_of(pid, 0) == []


def test_nothing_but_its_reading_end_reaches_the_command(either: ProcessManager) -> None:
    """The command has three descriptors, the first of which it can only read from."""
    begin(
        either,
        "ls -l /proc/self/fd | grep -c -- '-> pipe:'; readlink /proc/self/fd/0; cat /proc/self/fdinfo/0; echo ready",
    )
    pipes, first, *_ = content(either).split("\n")
    # `ls` and what follows it are in a pipeline of their own: 0, 2 and the pipe to grep.
    assert (pipes, first.startswith("pipe:[")) == ("3", True)
    flags = re.search(r"flags:\s*(\d+)", content(either))
    assert flags is not None
    assert int(flags[1], 8) & os.O_ACCMODE == os.O_RDONLY


def test_only_the_keepers_hold_it_open(reader: tuple[ProcessManager, int]) -> None:
    """Shim and understudy have its writing end and nothing else of it, and no other process has any."""
    pm, pid = reader
    pipe, status = input_of(pid), pm.get_status()
    for keeper in (shim_of(status), understudy_of(status)):
        (number,) = holders(keeper, pipe)
        flags = Path(f"/proc/{keeper}/fdinfo/{number}").read_text()
        assert int(re.findall(r"flags:\s*(\d+)", flags)[0], 8) & os.O_ACCMODE == os.O_WRONLY
    expected = {pid, shim_of(status), understudy_of(status)}
    found = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    assert {one for one in found if _holds(one, pipe)} == expected


def _holds(pid: int, pipe: str) -> bool:
    try:
        return bool(holders(pid, pipe))
    except OSError:  # it has ended, or is another user's
        return False


def test_an_empty_one_costs_nothing(pm: ProcessManager) -> None:
    """A run with the default has as many descriptors as ever in its keepers: an open one takes one each."""
    counts = {}
    for stdin in ("empty", OPEN):
        begin(pm, "echo ready; exec sleep 1000", stdin)
        status = pm.get_status()
        counts[stdin] = [len(descriptors_of(keeper)) for keeper in (shim_of(status), understudy_of(status))]
        assert (input_of(status["process_pid"]) == os.devnull) == (stdin == "empty")
        pm.kill("SIGKILL")
    assert [opened - empty for opened, empty in zip(counts[OPEN], counts["empty"], strict=True)] == [1, 1]


@pytest.mark.usefixtures("orphans_reaped")
@pytest.mark.parametrize("keeper", [shim_of, understudy_of], ids=["shim", "understudy"])
def test_it_outlives_either_keeper(reader: tuple[ProcessManager, int], keeper: Callable[[dict[str, Any]], int]) -> None:
    """The death of the shim, or of the understudy, does not end it."""
    pm, pid = reader
    keepers = (shim_of(pm.get_status()), understudy_of(pm.get_status()))
    send(signal.SIGKILL, keeper(pm.get_status()))
    if keeper is shim_of:
        wait_until(lambda: TAKEN_OVER in (pm.get_status()["reason"] or ""))
    assert alive(pid)
    assert events_of(pid, 200) == []
    assert pm.kill()["exit_code"] == -signal.SIGTERM
    wait_until(lambda: not any(map(alive, keepers)))


@pytest.mark.usefixtures("orphans_reaped")
def test_without_both_keepers_it_is_at_its_end(reader: tuple[ProcessManager, int]) -> None:
    """Once both are dead the command reads the end of file, as it would from a closed terminal."""
    pm, pid = reader
    status = pm.get_status()
    send(signal.SIGKILL, understudy_of(status), shim_of(status))
    wait_until(lambda: not alive(pid))
    ended(pm.get_status)


@pytest.mark.parametrize("command", ["exec cat", "cat; echo next", "cat | cat", "(cat; echo next) | cat"])
@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/dash"])
def test_a_stop_waits_for_no_writer(tmp_path: Path, shell: str, command: str) -> None:
    """SIGTERM ends a reader at once: that its keepers could write to it is no reason to wait for them."""
    pm = manage(tmp_path / "logs", Policy(shell=shell))
    try:
        pid = begin(pm, f"echo ready; {command}")
        wait_until(lambda: any(stat_fields(one)[0] == "S" and name_of(one) == "cat" for one in (pid, *_below(pid))))
        answer = pm.kill("SIGTERM", 60.0)
        assert (answer["status"], answer["escalated"], answer["survivors"]) == ("killed", False, [])
        assert "next" not in content(pm)
    finally:
        pm.shut_down(0.0)
        pm.close()


def _below(pid: int) -> list[int]:
    first = children(pid)
    return [*first, *(one for child in first for one in children(child))]


def test_it_is_recorded_and_started_again(pm: ProcessManager) -> None:
    """A restart, and the next service, give the command such an input again."""
    begin(pm, "echo ready; cat; echo over")
    again = pm.restart(0.0)
    record = read_record(record_path(again["log_file"]))
    assert record is not None
    assert record.spec.stdin == OPEN
    pid = again["process_pid"]
    printed(pm, "ready")
    wait_until(lambda: _reads_it(pid, input_of(pid)))
    assert content(pm) == "ready"


def test_the_service_keeps_no_end_of_it(pm: ProcessManager, tmp_path: Path) -> None:
    """Neither the service nor its zygote has an end of the pipe, of a start that went well or of one that failed."""
    shell = tmp_path / "shell"
    shell.write_text("no program")
    shell.chmod(0o755)
    begin(pm, "echo ready; exec sleep 1000", "empty")
    processes = (os.getpid(), zygote_of(os.getpid()))
    before = [len(descriptors_of(one)) for one in processes]
    pm.start(Spec("exec sleep 1000", stdin=OPEN), if_running="replace")
    assert [len(descriptors_of(one)) for one in processes] == before
    with pytest.raises(BadRequestError, match="Exec format error"):
        pm.start(Spec("true", stdin=OPEN, shell=str(shell)), if_running="replace")
    wait_until(lambda: [len(descriptors_of(one)) for one in processes] <= before)
