"""The customer's own examples: same names, same calls, same results."""

from pathlib import Path

import pytest

from app.exceptions import BadRequestError, ConflictError, NotFoundError
from app.supervisor.manager import ProcessManager
from tests.kit.output import read_logs
from tests.kit.waiting import ended


def test_start_simple_command(pm: ProcessManager, tmp_path: Path) -> None:
    """A command is running when start answers, and has exited with its code soon after."""
    result = pm.start("echo 'Hello World'", str(tmp_path / "logs" / "test.log"))
    assert result["command"] == "echo 'Hello World'"
    assert result["status"] == "running"
    assert result["process_pid"] is not None
    status = ended(pm.get_status)
    assert status["status"] == "exited"
    assert status["exit_code"] == 0


def test_cannot_start_twice(pm: ProcessManager) -> None:
    """A second start is a conflict while the first process lives."""
    pm.start("sleep 10")
    with pytest.raises(ConflictError):
        pm.start("echo test")
    pm.kill("SIGKILL")


def test_restart_process(pm: ProcessManager, tmp_path: Path) -> None:
    """A restart runs the same command again with a log file of its own."""
    first = pm.start("exec sleep 10", str(tmp_path / "logs" / "test.log"))
    again = pm.restart(timeout=5)
    assert again["status"] == "running"
    assert again["command"] == first["command"]
    assert again["process_pid"] != first["process_pid"]
    assert again["log_file"] != first["log_file"]
    pm.kill("SIGKILL")


def test_a_log_file_that_exists_is_not_appended_to(pm: ProcessManager, tmp_path: Path) -> None:
    """A start with the name of an existing log writes to a new one beside it."""
    name = str(tmp_path / "logs" / "test.log")
    pm.start("echo one", name)
    ended(pm.get_status)
    second = pm.start("echo two", name)
    ended(pm.get_status)
    assert second["log_file"] == str(tmp_path / "logs" / "test_2.log")
    assert read_logs(pm.logs, name)["content"] == "one"
    assert read_logs(pm.logs, second["log_file"])["content"] == "two"


def test_nothing_was_started(pm: ProcessManager) -> None:
    """Without a run there is nothing to tell, to kill or to restart."""
    with pytest.raises(NotFoundError):
        pm.get_status()
    with pytest.raises(NotFoundError):
        pm.kill()
    with pytest.raises(NotFoundError):
        pm.restart()


def test_kill_after_exit(pm: ProcessManager) -> None:
    """To kill what has already ended and left nothing behind is refused with the exit code and what to do."""
    pm.start("exit 7")
    ended(pm.get_status)
    with pytest.raises(BadRequestError, match=r"exit code 7.*POST /restart"):
        pm.kill()
