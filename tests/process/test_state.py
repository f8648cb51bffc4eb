"""What is told of a run is true: how it ended, by whom, with which code, and what it left behind."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from app.exceptions import BadRequestError, ConflictError, InternalError, NotFoundError
from app.runs.spec import Spec
from app.service import manage
from app.supervisor.manager import ProcessManager
from app.supervisor.policy import Policy
from tests.kit.output import content, printed, read_logs
from tests.kit.processes import alive
from tests.kit.waiting import ended, wait_until


@pytest.mark.parametrize(
    ("command", "code", "name"),
    [
        ("true", 0, None),
        ("exit 255", 255, None),
        ("no-such-program", 127, None),
        ("kill -TERM $$", -15, "SIGTERM"),
        ("kill -SEGV $$", -11, "SIGSEGV"),
        ("kill -40 $$", -40, "SIG40"),
        ("exit 143", 143, None),
    ],
)
def test_exit_code_and_signal(pm: ProcessManager, command: str, code: int, name: str | None) -> None:
    """A process that ended without us is `exited`, with its own code, and the signal's name only for a signal."""
    pm.start(command)
    status = ended(pm.get_status)
    assert (status["status"], status["exit_code"], status["signal"]) == ("exited", code, name)
    assert status["reason"] is None
    assert status["stopped_at"] >= status["created_at"]


def test_killed_tells_who_and_how(pm: ProcessManager) -> None:
    """A process that was alive at our first signal is `killed`, with the reason and its own exit code."""
    pm.start("exec sleep 100")
    answer = pm.kill()
    status = pm.get_status()
    assert (status["status"], status["exit_code"], status["signal"]) == ("killed", -15, "SIGTERM")
    assert status["reason"] == "Ended by /kill."
    assert answer == {
        "status": "killed",
        "type": "SIGTERM",
        "exit_code": -15,
        "signal": "SIGTERM",
        "reason": "Ended by /kill.",
        "stopped_at": status["stopped_at"],
        "escalated": False,
        "survivors": [],
        "ports": {"freed": [], "held": []},
    }


def test_exit_code_is_the_process_own_even_when_killed(pm: ProcessManager) -> None:
    """A process that handles SIGTERM and exits by itself is `killed` with the code it chose."""
    pm.start("trap 'echo cleaned up; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    printed(pm, "ready")
    assert pm.kill()["exit_code"] == 5
    assert pm.get_status()["signal"] is None
    assert content(pm).endswith("cleaned up")


def test_leftovers_are_named(pm: ProcessManager) -> None:
    """What the process left behind is named, keeps a start away with pids and command lines, and can be killed."""
    pm.start("setsid sleep 98 & sleep 99 & echo $!; exit 4")
    status = ended(pm.get_status)
    assert status["status"] == "exited"
    assert status["exit_code"] == 4
    leftovers = wait_until(lambda: len(found := pm.get_status()["leftover_pids"]) == 2 and found)
    assert int(content(pm)) in leftovers
    with pytest.raises(ConflictError, match=r"\d+ \(sleep\), \d+ \(sleep\)\..*/kill.*\"replace\": true") as caught:
        pm.start("true")
    named = caught.value.extra["leftovers"]
    assert isinstance(named, list)
    assert [left["pid"] for left in named] == sorted(leftovers)
    assert {left["command_line"] for left in named} == {"sleep 98", "sleep 99"}
    answer = pm.kill()
    assert (answer["status"], answer["exit_code"], answer["survivors"]) == ("exited", 4, [])
    assert not any(alive(pid) for pid in leftovers)
    assert pm.get_status()["leftover_pids"] == []


def test_replace_ends_what_lives_and_starts(pm: ProcessManager) -> None:
    """A start with `replace` ends the old tree first; the old run says so."""
    first = pm.start("exec sleep 100")
    second = pm.start("echo new", if_running="replace")
    assert not alive(first["process_pid"])
    assert second["run_id"] != first["run_id"]
    ended(pm.get_status)
    assert content(pm) == "new"
    record = (Path(first["log_file"])).with_suffix(".json").read_text()
    assert '"killed_by":"replace"' in record


def test_restart_of_an_ended_run(pm: ProcessManager, tmp_path: Path) -> None:
    """An ended run starts again with the same command, directory and environment."""
    pm.start(Spec('echo "$PWD $GREETING"', cwd=str(tmp_path), env={"GREETING": "hello"}))
    ended(pm.get_status)
    pm.restart()
    ended(pm.get_status)
    assert content(pm) == f"{tmp_path} hello"


def test_failed_restart_keeps_the_old_outcome(pm: ProcessManager, tmp_path: Path) -> None:
    """When the new start can't work the answer says so, and the old run's outcome and output stay readable."""
    place = tmp_path / "place"
    place.mkdir()
    pm.start(Spec("echo here; exit 3", cwd=str(place)))
    before = ended(pm.get_status)
    place.rmdir()
    with pytest.raises(BadRequestError, match="can't be used: No such file or directory"):
        pm.restart()
    assert pm.get_status() == before
    assert content(pm) == "here"


def test_a_shell_that_cannot_start(tmp_path: Path) -> None:
    """A start that fails tells the system's own words and leaves no file, no record and no run."""
    shell = tmp_path / "shell"
    shell.write_text("no program\n")
    shell.chmod(0o755)
    pm = manage(tmp_path / "logs", Policy(shell=str(shell)))
    with pytest.raises(InternalError, match="Exec format error"):
        pm.start("true")
    assert {path.name for path in (tmp_path / "logs").iterdir()} <= {".lock"}


def test_environment_over_the_limit(pm: ProcessManager) -> None:
    """An environment that the system can't take is refused before anything happens."""
    with pytest.raises(BadRequestError, match="over the system's limit"):
        pm.start(Spec("true", env={"BIG": "x" * 131_072}))
    pm.start(Spec("echo ${#BIG}", env={"BIG": "x" * 131_000}))
    ended(pm.get_status)
    assert content(pm) == "131000"


def test_longest_command(pm: ProcessManager) -> None:
    """A command of the greatest allowed length runs."""
    command = "echo ok #" + "x" * (131_071 - 9)
    pm.start(command)
    ended(pm.get_status)
    assert content(pm) == "ok"


def test_process_leads_its_own_session_and_sees_nothing_of_ours(pm: ProcessManager) -> None:
    """The process leads its own session and group, and has no descriptor but 0, 1 and 2."""
    code = 'import os; print(os.getpid() == os.getsid(0) == os.getpgid(0), sorted(os.listdir("/proc/self/fd"))[:-1])'
    pm.start(f"exec {sys.executable} -c '{code}'")
    ended(pm.get_status)
    assert content(pm) == "True ['0', '1', '2']"


def test_signals_are_as_a_shell_expects(pm: ProcessManager) -> None:
    """No signal arrives ignored or blocked, so that `yes | head` ends as in a terminal."""
    old = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        pm.start("grep -E '^Sig(Ign|Blk)' /proc/self/status; yes | head -n 2")
        ended(pm.get_status)
    finally:
        signal.signal(signal.SIGUSR2, old)
    ignored, blocked, *rest = content(pm).split("\n")
    standard = 0x7FFFFFFF
    assert int((ignored if "Ign" in ignored else blocked).split()[1], 16) & standard == 0
    assert int((blocked if "Blk" in blocked else ignored).split()[1], 16) & standard == 0
    assert rest == ["y", "y"]


def test_command_stands_once_in_the_process_list(pm: ProcessManager) -> None:
    """The command may hold secrets: nobody's command line shows it but its own shell's."""
    pm.start("echo ready; : s3cr3t-in-the-command; sleep 100; :")
    printed(pm, "ready")
    shell = str(pm.get_status()["process_pid"])
    wait_until(lambda: _showing(b"s3cr3t") == [shell])  # a fork of the shell shows it until it has executed sleep
    pm.kill()


def _showing(word: bytes) -> list[str]:
    others = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and int(entry.name) != os.getpid()]
    return [entry.name for entry in others if word in _cmdline(entry)]


def _cmdline(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_one_operation_at_a_time(pm: ProcessManager) -> None:
    """Of two operations one is refused at once while the other is under way."""
    pm.start("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    printed(pm, "ready")
    outcome: list[object] = []
    thread = threading.Thread(target=lambda: outcome.append(pm.restart(timeout=1.0)))
    thread.start()
    wait_until(lambda: pm.get_status()["reason"])
    with pytest.raises(ConflictError, match=r"Another operation \(restart\)"):
        pm.start("true", if_running="replace")
    thread.join()
    assert outcome
    pm.kill("SIGKILL")


def test_kill_cancels_a_restart(pm: ProcessManager) -> None:
    """A /kill during a restart's grace ends the process, and nothing is started after it."""
    pm.start("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    printed(pm, "ready")
    refusals: list[ConflictError] = []

    def restart() -> None:
        try:
            pm.restart(timeout=30.0)
        except ConflictError as error:
            refusals.append(error)

    thread = threading.Thread(target=restart)
    thread.start()
    wait_until(lambda: pm.get_status()["reason"])
    answer = pm.kill("SIGKILL")
    thread.join()
    assert (answer["status"], answer["reason"]) == ("killed", pm.get_status()["reason"])
    assert answer["reason"].startswith("Ended by /kill.")
    assert "cancelled" in str(refusals[0])
    assert pm.get_status()["status"] == "killed"


def test_a_spare_that_became_a_directory_costs_only_the_record(pm: ProcessManager) -> None:
    """A record that can't be written holds up neither the run nor its end, and the status tells of it."""
    log_file = pm.start("echo ready; exec sleep 100")["log_file"]
    printed(pm, "ready")
    spare = Path(log_file).with_suffix(".json.spare")
    wait_until(spare.exists)
    spare.unlink()
    spare.mkdir()
    answer = pm.kill()
    assert (answer["status"], answer["exit_code"]) == ("killed", -15)
    assert "writes of the run record that failed" in pm.get_status()["reason"]
    assert "took over" not in pm.get_status()["reason"]


def test_a_fifo_in_the_place_of_the_log_holds_nobody_up(pm: ProcessManager) -> None:
    """Readers see no log there, and the process goes on and can be ended."""
    log_file = Path(pm.start("echo ready; while sleep 0.02; do echo more; done")["log_file"])
    printed(pm, "ready")
    log_file.unlink()
    os.mkfifo(log_file)
    with pytest.raises(NotFoundError):
        read_logs(pm.logs, str(log_file))
    assert pm.kill("SIGKILL")["status"] == "killed"
