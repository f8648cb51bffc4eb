"""The systemd units: what they say is started here as systemd would, by a user without privileges, and stopped."""

from __future__ import annotations

import http.client
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import GracefulTimeout

from app.supervisor.process import SHIM_TIMEOUT
from app.supervisor.supervisor import SHUTDOWN_TIMEOUT
from tests.kit.calling import ANSWER_TIMEOUT, over_unix_socket
from tests.kit.leftovers import nothing_left_behind
from tests.kit.places import ROOT
from tests.kit.processes import alive
from tests.kit.requiring import require
from tests.kit.service import Answer
from tests.kit.waiting import wait_until
from tests.service.unprivileged import ACCOUNT, AS_ROOT, OWNER, TOKEN, Deployed, install_program, interpreter, scratch

UNITS = ROOT / "deploy" / "systemd"
SYSTEMD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What systemd does between fork and exec: the process learns its own pid only there.
ACTIVATE = """
import os, sys
handed = int(sys.argv[1])
if handed != 3:
    os.dup2(handed, 3)
    os.close(handed)
os.execve(sys.argv[2], sys.argv[2:], {**os.environ, "LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())})
"""
# 2.5 on systemd's scale of ten; its versions judge a little differently.
EXPOSURE_LIMIT = "25"


class Activated(Deployed):
    """A service that got its socket from whoever started it, and is called over that."""

    path = Path()

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        """Return a connection over the Unix socket."""
        return over_unix_socket(self.path, timeout)

    def find(self) -> bool:
        """Say where it listens: where it was told to."""
        return True


class Host:
    """A folder in place of a machine's root, on which LLM Shell is installed as docs/deploy.md says: `opt` has it."""

    def __init__(self, folder: Path, opt: Path) -> None:
        self.folder = folder
        (folder / "opt").symlink_to(opt)
        self.unit = read_unit(self.place("llm-shell.service"))
        self.socket_path = Path(read_unit(self.place("llm-shell.socket"))["ListenStream"][0])
        self.socket_path.parent.mkdir(parents=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.socket_path))
        self.listener.listen()
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(folder / "notify"))
        (folder / "notify").chmod(0o777)
        for name in self.unit["StateDirectory"][0].split():
            directory = folder / "var" / "lib" / name
            directory.mkdir(parents=True, mode=int(self.unit["StateDirectoryMode"][0], 8))
            os.chown(directory, OWNER, -1)
        self.configure(LLM_SHELL_TOKEN=TOKEN)
        self.started: list[Activated] = []

    @property
    def work(self) -> str:
        """Return the directory that is the commands' own."""
        return str(self.folder / "var" / "lib" / "llm-shell" / "work")

    def place(self, name: str) -> Path:
        """Write a unit with all its paths below the folder, and return its path."""
        text = re.sub(r"(?<![\w%./])/(?=(?:opt|etc|run|var/lib)/)", f"{self.folder}/", (UNITS / name).read_text())
        path = self.folder / name
        path.write_text(text)
        return path

    def configure(self, **settings: str) -> None:
        """Write the environment file."""
        path = Path(self.unit["EnvironmentFile"][0])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        path.chmod(0o600)

    def launch(self, *wrapper: str, **options: Any) -> Activated:
        """Start what ExecStart says, in the unit's environment, with the socket as descriptor 3 (sd_listen_fds(3)).

        With a `wrapper`, a command that starts what follows it.
        """
        handed = os.dup(self.listener.fileno())
        service = Activated(
            self.folder / "service.log",
            [*wrapper, str(interpreter()), "-c", ACTIVATE, str(handed), *shlex.split(self.unit["ExecStart"][0])],
            Path(self.unit["WorkingDirectory"][0]),
            self.environment(),
            umask=int(self.unit["UMask"][0], 8),
            pass_fds=[handed],
            **options,
        )
        os.close(handed)
        service.path = self.socket_path
        self.started.append(service)
        return service

    def start(self) -> Activated:
        """Start the service, and return it when it answers."""
        service = self.launch()
        service.wait_until_healthy()
        return service

    def environment(self) -> dict[str, str]:
        """Return what systemd gives the unit: its own lines, those of the file, and its defaults."""
        lines = [*self.unit["Environment"], *Path(self.unit["EnvironmentFile"][0]).read_text().splitlines()]
        settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        return {"PATH": SYSTEMD_PATH, "LANG": "C.UTF-8", "NOTIFY_SOCKET": str(self.folder / "notify"), **settings}

    def close(self) -> None:
        """End what still runs, the command that would be kept included."""
        for service in self.started:
            if service.running:
                service.end_run()
                service.stop()


def read_unit(path: Path) -> Mapping[str, list[str]]:
    """Return a unit's values by their names, which no two of its sections share."""
    values: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text().splitlines():
        if line and line[0] not in "#;[":
            name, _, value = line.partition("=")
            values[name].append(value)
    return values


@pytest.fixture(scope="module")
def opt() -> Iterator[Path]:
    """Return a folder with the installed program, which nobody but its owner may change."""
    with scratch() as folder:
        install_program(folder / "llm-shell")
        (folder / "llm-shell" / "empty").mkdir()
        yield folder


@pytest.fixture
def host(opt: Path) -> Iterator[Host]:
    """Return a machine of the test's own, whose services and commands are ended afterwards."""
    with nothing_left_behind(), scratch() as folder, ExitStack() as cleanup:
        host = Host(folder, opt)
        cleanup.enter_context(host.listener)
        cleanup.enter_context(host.notified)
        cleanup.callback(host.close)
        yield host


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on units."""
    program = shutil.which("systemd-analyze")
    require(program, "systemd-analyze (Debian: apt install systemd)")
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("drop_ins", [[], ["run-as.conf"]], ids=["as shipped", "with RUN_AS"])
def test_units_are_valid(host: Host, drop_ins: list[str]) -> None:
    """`systemd-analyze verify` has nothing to say against the units, with the drop-in and without."""
    (host.folder / "llm-shell.service.d").mkdir()
    for name in drop_ins:
        host.place(name).rename(host.folder / "llm-shell.service.d" / name)
    done = analyze("verify", host.folder / "llm-shell.service", host.folder / "llm-shell.socket")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_exposure(host: Host) -> None:
    """`systemd-analyze security` finds the service well confined."""
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE_LIMIT}", host.folder / "llm-shell.service")
    assert done.returncode == 0, done.stdout[-200:]


def test_user() -> None:
    """systemd-sysusers makes the user whom the unit names, without a password and with the unit's HOME."""
    program = shutil.which("systemd-sysusers")
    require(program, "systemd-sysusers (Debian: apt install systemd)")
    unit = read_unit(UNITS / "llm-shell.service")
    with scratch() as folder:
        (folder / "etc").mkdir()
        subprocess.run([str(program), f"--root={folder}", UNITS / "llm-shell.sysusers"], check=True)
        [line] = [
            line for line in (folder / "etc" / "passwd").read_text().splitlines() if line.startswith("llm-shell:")
        ]
        (folder / "etc" / "shadow").chmod(0o600)  # made with 0000, which binds its owner, unless that is root
        [locked] = [line for line in (folder / "etc" / "shadow").read_text().splitlines() if "llm-shell" in line]
    name, _, uid, _, _, home, shell = line.split(":")
    assert [name] == unit["User"] == unit["Group"]
    assert int(uid) > 0
    assert f"HOME={home}" in unit["Environment"]
    assert shell == "/bin/sh"
    assert locked.split(":")[1].startswith("!")


def test_ready_is_told(host: Host) -> None:
    """The service tells systemd when it is ready (Type=notify), and answers on the socket that it was given."""
    host.notified.settimeout(ANSWER_TIMEOUT)
    service = host.launch()
    assert host.notified.recv(4096).startswith(b"READY=1")
    assert service.get("/health").status == 200
    assert host.unit["Type"] == ["notify"]


def test_commands_run(host: Host) -> None:
    """A command started in `work` is the unit's user, writes there and to no place of root's, and sees no token."""
    service = host.start()
    service.start('id -u; umask; pwd; echo "$HOME"; echo ok > file; cat file; : > ../file; env', cwd=host.work)
    service.wait_for_exit()
    user, mask, cwd, home, written, refused, *environment = service.content().splitlines()
    assert (user, mask, written) == (str(OWNER), "0027", "ok")
    assert cwd == home == host.work
    if ACCOUNT:
        assert "ermission denied" in refused
    assert not [line for line in environment if TOKEN in line or line.startswith(("LISTEN_", "NOTIFY_"))]
    ours = {line.split("=")[0] for line in environment if line.startswith("LLM_SHELL_")}
    assert ours == {"LLM_SHELL_RUN_ID", "LLM_SHELL_NAME"}


def test_commands_begin_in_an_empty_directory(host: Host) -> None:
    """A command that does not say where begins in root's own empty directory, above no logs; nothing is warned of."""
    service = host.start()
    service.start("pwd -P; ls -A; : > file")
    service.wait_for_exit()
    where, *rest = service.content().splitlines()
    directory = Path(host.unit["WorkingDirectory"][0]).resolve()
    assert Path(where) == directory
    assert not list(directory.iterdir())
    if ACCOUNT:
        [refused] = rest
        assert "ermission denied" in refused
        assert directory.owner() == "root"
    assert not service.log_dir.resolve().is_relative_to(directory)
    assert "[WARNING]" not in service.text


def test_restart_keeps_the_command(host: Host) -> None:
    """A restart by the unit's signal leaves the command running, and the next service goes on with it and its log."""
    first = host.start()
    command = "echo one; while ! [ -e go ]; do sleep 0.05; done; echo two; exec sleep 300"
    pid = first.start(command, cwd=host.work)["process_pid"]
    first.wait_for_output("one")
    assert first.stop(signal.Signals[host.unit["KillSignal"][0]]) == 0
    assert alive(pid)
    Path(host.work, "go").touch()
    second = host.start()
    assert second.wait_for_output("two") == "one\ntwo"
    assert second.status()["process_pid"] == pid
    assert second.post("/kill").body["status"] == "killed"


def test_requests_wait_during_a_restart(host: Host) -> None:
    """A request that comes while no service runs waits in the socket, and the next service answers it."""
    service = host.start()
    service.stop()
    answers: list[Answer] = []
    caller = threading.Thread(target=lambda: answers.append(service.get("/status")))
    caller.start()
    # Its connection is accepted by the kernel, so that it is in the queue when the service comes.
    wait_until(lambda: queued(host.socket_path) == 1)
    host.start()
    caller.join(ANSWER_TIMEOUT)
    assert [answer.status for answer in answers] == [404]


def queued(path: Path) -> int:
    """Count the connections to a Unix socket that nobody has accepted: unnamed sides of state 2 have no inode yet."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    # unix(7) in the kernel, unix_seq_show(): a socket that waits to be accepted has inode 0 and the listener's path.
    return sum(1 for fields in lines if fields[-1] == str(path) and fields[6] == "0")


def test_stop_ends_the_command_where_the_site_says_so(host: Host) -> None:
    """LLM_SHELL_ON_SHUTDOWN=stop in the environment file goes before the unit's line: stopping ends the command."""
    host.configure(LLM_SHELL_TOKEN=TOKEN, LLM_SHELL_ON_SHUTDOWN="stop")
    service = host.start()
    pid = service.start("exec sleep 300")["process_pid"]
    assert service.stop(signal.Signals[host.unit["KillSignal"][0]]) == 0
    assert not alive(pid)


def test_token_is_exchanged_by_a_restart(host: Host) -> None:
    """A new token in the environment file counts after a restart, the old one no longer, and the command lives on."""
    first = host.start()
    pid = first.start("exec sleep 300")["process_pid"]
    host.configure(LLM_SHELL_TOKEN="another-" + TOKEN)
    first.stop()
    second = host.start()
    assert second.get("/status", headers={"Authorization": f"Bearer {TOKEN}"}).status == 401
    assert second.status()["process_pid"] == pid


def test_example_of_the_environment_is_refused(host: Host) -> None:
    """The environment file as it is shipped, its token not filled in, ends the start with the reason."""
    shutil.copy(UNITS / "environment.example", host.unit["EnvironmentFile"][0])
    service = host.launch()
    assert service.wait() != 0
    assert "LLM_SHELL_TOKEN: must be at least" in service.text


def test_run_as_needs_no_more_than_its_capabilities(host: Host) -> None:
    """With the capabilities of run-as.conf alone, commands are another user's, who reads no log; /kill ends them."""
    require(ACCOUNT and shutil.which("setpriv"), "root's rights, and setpriv of util-linux")
    name = pwd.getpwuid(OWNER).pw_name
    host.configure(LLM_SHELL_TOKEN=TOKEN, LLM_SHELL_RUN_AS=name)
    logs, _work, _tmp = (host.folder / "var" / "lib" / name for name in host.unit["StateDirectory"][0].split())
    os.chown(logs, 0, 0)
    kept = read_unit(UNITS / "run-as.conf")["CapabilityBoundingSet"][0].lower().replace("cap_", "+").split()
    service = host.launch("setpriv", "--no-new-privs", "--bounding-set", ",".join(["-all", *kept]), **AS_ROOT)
    service.wait_until_healthy()
    command = f"id -u; echo ok > file; cat file; echo out > /dev/stdout; ls {logs}; exec sleep 300"
    service.start(command, cwd=host.work)
    user, written, out, refused = service.wait_for_output("ermission denied").splitlines()
    assert (user, written, out) == (str(OWNER), "ok", "out")
    assert "ermission denied" in refused
    assert service.post("/kill").body["survivors"] == []


def test_stop_has_time() -> None:
    """TimeoutStopSec is longer than the longest graceful stop, so that systemd's SIGKILL never cuts one short."""
    unit = read_unit(UNITS / "llm-shell.service")
    after_kill = 2.0
    longest = GracefulTimeout.default + SHUTDOWN_TIMEOUT + after_kill + SHIM_TIMEOUT
    assert int(unit["TimeoutStopSec"][0]) >= longest + 10
