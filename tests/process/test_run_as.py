"""Commands run as another user: with that user's identity, no way back, and no look at what the service keeps."""

import ctypes
import os
import platform
import pwd
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.exceptions import BadRequestError, InternalError
from app.runs.spec import Spec
from app.service import manage
from app.supervisor.manager import ProcessManager
from app.supervisor.policy import Policy
from tests.kit.output import content, printed
from tests.kit.processes import alive, parent
from tests.kit.requiring import require
from tests.kit.waiting import ended, wait_until

NAME = "nobody"
SESSION = (
    *("XDG_RUNTIME_DIR", "XDG_SESSION_ID", "XDG_CONFIG_HOME", "MAIL", "SUDO_USER", "SUDO_COMMAND", "SSH_AUTH_SOCK"),
    *("SSH_CONNECTION", "DBUS_SESSION_BUS_ADDRESS", "XAUTHORITY", "DOAS_USER", "PKEXEC_UID", "KRB5CCNAME"),
)


@pytest.fixture
def pm(tmp_path: Path) -> Iterator[ProcessManager]:
    """Return a process manager whose commands run as nobody."""
    require(os.geteuid() == 0, "root, to start commands as another user")
    manager = manage(tmp_path / "logs", Policy(run_as=NAME))
    yield manager
    manager.shut_down(0.0)
    manager.close()


def output_of(pm: ProcessManager, command: str) -> str:
    """Run a command to its end and return what it printed."""
    pm.start(Spec(command, cwd="/"), if_running="replace")
    ended(pm.get_status)
    return content(pm)


def test_the_process_is_that_user(pm: ProcessManager) -> None:
    """Real, effective and saved ids and the groups are the user's, and the login's variables are set."""
    user = pwd.getpwnam(NAME)
    shown = output_of(
        pm, "grep -E '^(Uid|Gid|Groups|CapEff|CapPrm|NoNewPrivs)' /proc/self/status; echo $HOME $USER $LOGNAME"
    )
    fields = dict(line.split(":\t") for line in shown.split("\n") if ":\t" in line)
    assert set(fields["Uid"].split()) == {str(user.pw_uid)}
    assert set(fields["Gid"].split()) == {str(user.pw_gid)}
    assert set(map(int, fields["Groups"].split())) == set(os.getgrouplist(NAME, user.pw_gid))
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert shown.endswith(f"{user.pw_dir} {NAME} {NAME}")


def test_nothing_of_the_service_s_own_session_is_inherited(pm: ProcessManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a login or sudo set for the service's user does not reach the other user's command; the rest does."""
    session = dict.fromkeys(SESSION, "/root's")
    for name, value in {**session, "CARGO_HOME": "/opt/cargo", "HOME": "/root", "USER": "root"}.items():
        monkeypatch.setenv(name, value)
    environment = dict(line.split("=", 1) for line in output_of(pm, "env").splitlines())
    assert session.keys() & environment.keys() == set()
    assert "/root's" not in environment.values()
    user = pwd.getpwnam(NAME)
    assert (environment["HOME"], environment["USER"], environment["CARGO_HOME"]) == (user.pw_dir, NAME, "/opt/cargo")


def test_the_shell_is_asked_as_that_user(tmp_path: Path, place: Path) -> None:
    """What a shell does with a name is found out with the user's rights: it may be that user's to change."""
    shell = place / "shell"
    shell.write_text(
        '#!/bin/bash\nid -u >> "$0.seen"\ngrep NoNewPrivs /proc/self/status >> "$0.seen"\nexec bash "$@"\n'
    )
    shell.chmod(0o755)
    (place / "shell.seen").touch()
    (place / "shell.seen").chmod(0o666)
    manager = manage(tmp_path / "logs", Policy(shell=str(shell), run_as=NAME))
    try:
        assert output_of(manager, "env | grep odd") == ""
        manager.start(Spec("env | grep odd", cwd="/", env={"odd.name": "1"}))
        ended(manager.get_status)
        assert content(manager) == "odd.name=1"
    finally:
        manager.shut_down(0.0)
        manager.close()
    lines = (place / "shell.seen").read_text().splitlines()
    assert len(lines) == 3 * 2  # the two commands, and the one question
    assert set(lines) == {str(pwd.getpwnam(NAME).pw_uid), "NoNewPrivs:\t1"}


def test_standard_streams_can_be_opened_by_name(pm: ProcessManager) -> None:
    """A program that opens /dev/stdout or /dev/stderr may do so: the pipe is the user's."""
    assert (
        output_of(pm, "echo out > /dev/stdout; echo err > /dev/stderr; ls -l /proc/self/fd | grep -c pipe")
        == "out\nerr\n2"
    )


def test_signals_and_session_are_as_for_the_service_s_own_user(pm: ProcessManager) -> None:
    """The process leads its session, and no signal arrives ignored or blocked."""
    shown = output_of(
        pm, "yes | head -n 2; ps -o sid= -p $$ | tr -d ' '; echo $$; grep -E '^Sig(Blk|Ign)' /proc/self/status"
    )
    first, second, session, pid, *masks = shown.split("\n")
    assert (first, second) == ("y", "y")
    assert session == pid
    assert all(int(mask.split()[1], 16) == 0 for mask in masks)


def test_what_the_service_keeps_is_out_of_reach(pm: ProcessManager, tmp_path: Path) -> None:
    """The log and the run record can't be read by the process, nor the shim signalled."""
    pm.start(Spec("echo ready; exec sleep 100", cwd="/", env={"KEY": "s3cr3t"}))
    printed(pm, "ready")
    logs = tmp_path / "logs"
    shim = parent(pm.get_status()["process_pid"])
    told = output_of(
        pm, f"cat {logs}/* 2>&1 | tail -n 1; ls {logs} 2>&1; kill -9 {shim} 2>&1; kill -9 $PPID 2>&1; true"
    )
    assert "s3cr3t" not in told
    assert told.count("Permission denied") + told.count("not permitted") >= 3


def test_no_planted_link_is_followed(pm: ProcessManager, tmp_path: Path) -> None:
    """A link in the place of the lock leads the service nowhere: nothing is started, and its target not made."""
    (tmp_path / "logs" / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(InternalError, match="symbolic links"):
        pm.start(Spec("true", cwd="/"))
    assert not (tmp_path / "victim").exists()
    (tmp_path / "logs" / ".lock").unlink()


def test_a_directory_that_the_user_may_not_enter_is_refused(pm: ProcessManager, tmp_path: Path) -> None:
    """A directory open to the service and not to the user is a 400, and nothing is left of the run."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    told = f"cwd '{closed}' can't be entered by the user '{NAME}', which commands run as: Permission denied. Name a "
    with pytest.raises(BadRequestError, match=told) as caught:
        pm.start(Spec("true", cwd=str(closed)))
    assert caught.value.errors == {"cwd": ["Permission denied."]}
    assert {path.name for path in (tmp_path / "logs").iterdir()} <= {".lock"}


def test_without_the_service_s_directory(tmp_path: Path, place: Path) -> None:
    """The directory that the service was started in may go and come back, for another user's commands as well."""
    home = place / "home"
    home.mkdir()
    manager = manage(tmp_path / "logs", Policy(run_as=NAME, working_dir=home))
    try:
        home.rmdir()
        assert output_of(manager, "pwd") == "/"
        with pytest.raises(BadRequestError, match=f"The service's own directory, '{home}'"):
            manager.start("pwd")
        home.mkdir()
        manager.start("pwd")
        ended(manager.get_status)
        assert content(manager) == str(home)
    finally:
        manager.shut_down(0.0)
        manager.close()


def test_the_tree_of_another_user_ends_like_any_other(pm: ProcessManager) -> None:
    """A kill reaches the user's processes, escapees included."""
    pm.start(Spec("setsid sleep 100 & echo ready; trap '' TERM; while :; do sleep 0.05; done", cwd="/"))
    printed(pm, "ready")
    answer = pm.kill("SIGTERM", 0.3)
    assert (answer["status"], answer["escalated"], answer["survivors"]) == ("killed", True, [])


def test_the_process_outlives_its_shim(pm: ProcessManager) -> None:
    """What kills a child that hangs before it is the command does not kill the command."""
    pid = pm.start(Spec("echo ready; exec sleep 100", cwd="/"))["process_pid"]
    printed(pm, "ready")
    os.kill(parent(pid), signal.SIGKILL)
    wait_until(lambda: "took over" in (pm.get_status()["reason"] or ""))
    assert alive(pid)
    assert pm.kill()["exit_code"] == -15


JOIN, SEARCH, SESSION_KEYRING = 1, 10, -3


@pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="keyctl(2) has other numbers there")
def test_no_key_of_the_service_s_session_is_within_reach(pm: ProcessManager) -> None:
    """A key that the service's session keyring holds can't be found by the command."""
    add_key, keyctl = {"x86_64": (248, 250), "aarch64": (217, 219)}[platform.machine()]
    libc = ctypes.CDLL(None, use_errno=True)
    require(libc.syscall(keyctl, JOIN, None) >= 0, "keyctl(2)")
    assert libc.syscall(add_key, b"user", b"llm-shell-test", b"secret", 6, SESSION_KEYRING) > 0
    search = f"ctypes.CDLL(None).syscall({keyctl}, {SEARCH}, {SESSION_KEYRING}, b'user', b'llm-shell-test', 0)"
    assert libc.syscall(keyctl, SEARCH, SESSION_KEYRING, b"user", b"llm-shell-test", 0) > 0
    assert output_of(pm, f'/usr/bin/env python3 -c "import ctypes; print({search})"') == "-1"
