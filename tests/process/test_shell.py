"""What the shell makes of a command and passes on to it: the command itself, its directory, its variables."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.exceptions import BadRequestError, InternalError
from app.runs.record import read_record, record_path
from app.runs.spec import Spec
from app.service import manage
from app.supervisor.manager import ProcessManager
from app.supervisor.policy import Policy
from tests.kit.output import content
from tests.kit.processes import alive, name_of
from tests.kit.requiring import require
from tests.kit.waiting import ended, wait_until

BASH, DASH = shutil.which("bash"), shutil.which("dash")
# Options as fish reads them: the word after -c is the command, whatever it is.
TAKES_THE_NEXT_WORD = """#!/usr/bin/env python3
import os, sys
os.execvp("bash", ["bash", "-c", "--", sys.argv[2]])
"""
Managers = Callable[[str | None], ProcessManager]


@pytest.fixture
def with_shell(tmp_path: Path) -> Iterator[Managers]:
    """Return a function that makes a manager whose commands run in a shell; all have the same log directory."""
    managers: list[ProcessManager] = []

    def make(shell: str | None) -> ProcessManager:
        require(shell, "bash and dash")
        managers.append(manage(tmp_path / "logs", Policy(shell=str(shell))))
        return managers[-1]

    yield make
    for manager in managers:
        manager.shut_down(0.0)
        manager.close()


def result(pm: ProcessManager, command: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command to its end; return its exit code and what it printed."""
    pm.start(Spec(command, env=env or {}))
    code = ended(pm.get_status)["exit_code"]
    wait_until(lambda: not pm.get_status()["output_open"])
    return code, content(pm)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ('python3 -c "import sys; sys.exit(1)" &> /dev/null', (1, "")),
        ("[[ abc == a* ]] && echo yes", (0, "yes")),
        ("set -o pipefail; false | true", (1, "")),
        ('list=(a b); echo "${list[1]}" ${#list[@]}', (0, "b 2")),
        ("echo {1..3} $'a\\tb'", (0, "1 2 3 a\tb")),
        ("source /dev/stdin <<< 'echo sourced'", (0, "sourced")),
    ],
)
def test_commands_are_bash(pm: ProcessManager, command: str, expected: tuple[int, str]) -> None:
    """Where nothing else is set, a command means what it means in bash, and its exit code is told."""
    require(BASH, "bash")
    assert result(pm, command) == expected


def test_a_single_command_is_the_process(pm: ProcessManager) -> None:
    """The shell gives its place to a single command: pid, signal and exit code are the tool's own."""
    require(BASH, "bash")
    pid = pm.start("sleep 1000")["process_pid"]
    wait_until(lambda: name_of(pid) == "sleep")
    assert pm.kill()["exit_code"] == -15


@pytest.mark.parametrize("command", ["-build", "+x", "--version", "-c", "--", "-", "+", "-o pipefail", "-build --now"])
@pytest.mark.parametrize("shell", [BASH, DASH], ids=["bash", "dash"])
def test_a_command_is_never_an_option(with_shell: Managers, shell: str, command: str) -> None:
    """What begins like an option of the shell is a command like any other, that is not found."""
    code, printed = result(with_shell(shell), command)
    assert code == 127
    assert "not found" in printed


def test_a_shell_without_an_end_of_options(with_shell: Managers, tmp_path: Path) -> None:
    """A shell that takes the word after -c for the command, as fish does, gets the command there."""
    shell = tmp_path / "shell"
    shell.write_text(TAKES_THE_NEXT_WORD)
    shell.chmod(0o755)
    code, printed = result(with_shell(str(shell)), "-build")
    assert code == 127
    assert "-build: command not found" in printed


ODD_NAMES = {"a.b": "1", "c-d": "2", "1st": "3", "npm_config_@x:registry": "4", "x y": "5", "ä": "6"}


def test_bash_hands_on_what_it_can_t_hold(with_shell: Managers) -> None:
    """A name that is no identifier reaches what the command starts."""
    _, printed = result(with_shell(BASH), "env", ODD_NAMES)
    assert dict(line.split("=", 1) for line in printed.splitlines()).items() >= ODD_NAMES.items()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_the_shell_drops_is_refused(with_shell: Managers, name: str) -> None:
    """Where the shell would drop a variable without a word, the start is refused, and the variable named."""
    pm = with_shell(DASH)
    pid = pm.start("exec sleep 1000")["process_pid"]
    with pytest.raises(BadRequestError, match="does not pass on") as caught:
        pm.start(Spec("env", env={"KEPT": "1", name: "2"}), if_running="replace")
    assert caught.value.errors is not None
    assert list(caught.value.errors) == [f"env.{name}"]
    assert name in caught.value.detail
    assert alive(pid)


def test_a_refusal_of_many_names_is_short(with_shell: Managers) -> None:
    """Of many and long names a few are told, cut, and the rest counted."""
    with pytest.raises(BadRequestError) as caught:
        with_shell(DASH).start(Spec("env", env={f"{number}-{'x' * 1000}": "" for number in range(500)}))
    assert "and 495 more" in caught.value.detail
    assert len(caught.value.detail) < 1000
    assert len(str(caught.value.errors)) < 1500


def test_names_that_every_shell_holds_are_not_asked_for(with_shell: Managers) -> None:
    """Identifiers pass in dash as well."""
    assert result(with_shell(DASH), 'echo "$_x$Y9$z"', {"_x": "1", "Y9": "2", "z": "3"}) == (0, "123")


def test_restart_keeps_the_shell(with_shell: Managers) -> None:
    """A run that is started again is written in the shell that it was started in, whatever the setting says now."""
    first = with_shell(DASH)
    assert result(first, "echo ${BASH_VERSION:-none}") == (0, "none")
    second = with_shell(BASH)
    second.take_over()
    again = second.restart()
    ended(second.get_status)
    assert content(second) == "none"
    record = read_record(record_path(again["log_file"]))
    assert record is not None
    assert record.spec.shell == DASH


def test_a_shell_that_has_gone(with_shell: Managers, tmp_path: Path) -> None:
    """Without the shell nothing is ended for a restart, and the answer names what is missing."""
    shell = tmp_path / "own"
    shutil.copy(BASH or "/bin/sh", shell)
    pm = with_shell(str(shell))
    pid = pm.start("exec sleep 1000")["process_pid"]
    shell.unlink()
    with pytest.raises(InternalError, match=f"The shell {shell} can't be executed"):
        pm.restart()
    with pytest.raises(InternalError, match=f"The shell {shell} can't be executed"):
        pm.start("true", if_running="replace")
    assert alive(pid)


DASH_SAYS = "echo ${BASH_VERSION:-none}"
FAULTY = "must be the absolute path of an executable file"


def test_a_caller_names_the_shell(either: ProcessManager) -> None:
    """A start runs in the shell that it names, which is recorded, and in which a restart runs it again."""
    require(BASH and DASH, "bash and dash")
    assert _printed(either, Spec(DASH_SAYS, cwd="/", shell=str(DASH))) == "none"
    again = either.restart()
    ended(either.get_status)
    assert content(either) == "none"
    record = read_record(record_path(again["log_file"]))
    assert record is not None
    assert record.spec.shell == DASH
    assert _printed(either, Spec(DASH_SAYS, cwd="/")) != "none"


def _printed(pm: ProcessManager, spec: Spec) -> str:
    pm.start(spec)
    ended(pm.get_status)
    return content(pm)


def test_what_the_named_shell_drops_is_refused(pm: ProcessManager) -> None:
    """It is the shell of the start that is asked which names it passes on, not the setting's."""
    require(BASH and DASH, "bash and dash")
    with pytest.raises(BadRequestError, match=f"{DASH} does not pass on 'a.b'"):
        pm.start(Spec("env", env={"a.b": "1"}, shell=str(DASH)))
    assert "a.b=1" in _printed(pm, Spec("env", env={"a.b": "1"}, shell=str(BASH)))


@pytest.mark.parametrize("kind", ["relative", "directory", "missing", "not executable", "long"])
def test_a_named_shell_that_is_none(pm: ProcessManager, tmp_path: Path, kind: str) -> None:
    """What is not the absolute path of an executable file is refused by name, and nothing is ended for it."""
    (tmp_path / "file").touch()
    path = {
        "relative": "sh",
        "directory": str(tmp_path),
        "missing": str(tmp_path / "missing"),
        "not executable": str(tmp_path / "file"),
        "long": "/" + "x" * 100_000,
    }[kind]
    pid = pm.start("exec sleep 1000")["process_pid"]
    with pytest.raises(BadRequestError, match=f"^shell {FAULTY}, not ") as caught:
        pm.start(Spec("true", shell=path), if_running="replace")
    assert caught.value.errors == {"shell": [f"M{FAULTY[1:]}."]}
    assert len(caught.value.detail) < 400
    assert alive(pid)


# What only root may execute, and what lies where only root may go.
@pytest.mark.parametrize(("mode", "above"), [(0o700, 0o755), (0o755, 0o700), (0o755, 0o755)])
def test_a_shell_must_be_the_users_to_execute(tmp_path: Path, place: Path, mode: int, above: int) -> None:
    """With another user to run as, that user must be able to execute it, or nothing is ended for the start."""
    (place / "above").mkdir(mode=0o755)
    shell = place / "above" / "sh"
    shutil.copy(BASH or "/bin/sh", shell)
    shell.chmod(mode)
    (place / "above").chmod(above)
    pm = manage(tmp_path / "logs", Policy(run_as="nobody"))
    try:
        pid = pm.start(Spec("exec sleep 1000", cwd="/"))["process_pid"]
        if (mode, above) == (0o755, 0o755):
            pm.start(Spec("exec sleep 1000", cwd="/", shell=str(shell)), if_running="replace")
            return
        with pytest.raises(BadRequestError, match=f"^shell {FAULTY} that the user 'nobody'") as caught:
            pm.start(Spec("true", cwd="/", shell=str(shell)), if_running="replace")
        assert caught.value.errors is not None
        assert list(caught.value.errors) == ["shell"]
        assert alive(pid)
    finally:
        pm.shut_down(0.0)
        pm.close()


@pytest.mark.parametrize("text", ["no program", "#!/no/such/interpreter\n"])
def test_a_named_shell_that_the_system_can_t_start(either: ProcessManager, place: Path, text: str) -> None:
    """A file that only looks executable is the caller's to correct, and nothing is left of the start."""
    shell = place / "shell"
    shell.write_text(text)
    shell.chmod(0o755)
    with pytest.raises(BadRequestError, match=f"^shell {FAULTY} that the system can start") as caught:
        either.start(Spec("true", cwd="/", shell=str(shell)))
    assert caught.value.errors is not None
    assert list(caught.value.errors) == ["shell"]


def test_a_named_shell_that_has_gone(pm: ProcessManager, tmp_path: Path) -> None:
    """A restart whose shell is gone ends nothing, and names what is missing."""
    shell = tmp_path / "own"
    shutil.copy(BASH or "/bin/sh", shell)
    pid = pm.start(Spec("exec sleep 1000", shell=str(shell)))["process_pid"]
    shell.unlink()
    with pytest.raises(BadRequestError, match=f"^shell {FAULTY}") as caught:
        pm.restart()
    assert caught.value.detail.startswith("Nothing was ended and nothing restarted. shell must be ")
    assert alive(pid)


SYSTEMD = (
    *("JOURNAL_STREAM", "INVOCATION_ID", "WATCHDOG_PID", "WATCHDOG_USEC", "SYSTEMD_EXEC_PID", "MAINPID", "MANAGERPID"),
    *("MANAGERPIDFDID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"),
    *("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "LOGS_DIRECTORY", "CONFIGURATION_DIRECTORY"),
    *("MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "FDSTORE", "LOG_NAMESPACE", "DEBUG_INVOCATION"),
)


def test_nothing_of_the_service_s_own_is_inherited(pm: ProcessManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """What systemd, make or a shell set for the service does not reach the command; what the operator set does."""
    for name in (*SYSTEMD, "MAKELEVEL", "OLDPWD"):
        monkeypatch.setenv(name, "the service's")
    kept = {"CARGO_HOME": "/opt/cargo", "XDG_CACHE_HOME": "/var/cache/x", "SSH_AUTH_SOCK": "/run/agent"}
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    _, printed = result(pm, "env")
    environment = dict(line.split("=", 1) for line in printed.splitlines())
    assert "the service's" not in environment.values()
    assert environment.items() >= kept.items()


def test_a_caller_may_give_what_is_not_inherited(pm: ProcessManager) -> None:
    """The names that are kept from the command are the caller's to set."""
    assert (
        result(pm, 'echo "$INVOCATION_ID $STATE_DIRECTORY"', {"INVOCATION_ID": "1", "STATE_DIRECTORY": "/s"})[1]
        == "1 /s"
    )


def test_no_start_up_file_is_read(pm: ProcessManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that was started over ssh has no `.bashrc` read before each command."""
    (tmp_path / ".bashrc").write_text("echo read\n")
    monkeypatch.setenv("SSH_CLIENT", "192.0.2.1 50000 22")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SHLVL", raising=False)
    assert result(pm, "echo ran") == (0, "ran")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the working directory one that can be removed, and return it."""
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def at_home(home: Path, tmp_path: Path) -> Iterator[ProcessManager]:
    """Return a manager that was made in `home`."""
    manager = manage(tmp_path / "logs", Policy(working_dir=home))
    yield manager
    manager.shut_down(0.0)
    manager.close()


def test_without_the_service_s_directory(at_home: ProcessManager, home: Path) -> None:
    """With the service's own directory removed, an absolute one works, and others are refused by name."""
    pm = at_home
    home.rmdir()
    pm.start(Spec("pwd", cwd="/"))
    ended(pm.get_status)
    assert content(pm) == "/"
    pm.restart()
    assert ended(pm.get_status)["exit_code"] == 0
    for cwd, named in ((None, f"'{home}'"), (".", f"'{home}"), ("sub", f"'{home}/sub'")):
        with pytest.raises(BadRequestError, match="No such file or directory") as caught:
            pm.start(Spec("pwd", cwd=cwd or ""))
        assert named in caught.value.detail
        assert caught.value.errors == {"cwd": ["No such file or directory."]}


def test_the_service_s_directory_made_again(at_home: ProcessManager, home: Path) -> None:
    """Once the directory is there again everything works as before, in the new one."""
    pm = at_home
    pm.start("pwd")
    ended(pm.get_status)
    home.rmdir()
    with pytest.raises(BadRequestError, match="can't be used"):
        pm.restart()
    (home / "sub").mkdir(parents=True)
    for cwd, place in ((None, home), (".", home), ("sub", home / "sub")):
        pm.start(Spec("pwd; : > made", cwd=cwd or ""))
        ended(pm.get_status)
        assert content(pm) == str(place)
        assert (place / "made").exists()
    pm.restart()
    ended(pm.get_status)
    assert content(pm) == f"{home}/sub"
