"""The settings: what is taken, what is refused, and in what words."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from app.addresses import is_loopback, split_port
from app.config import Settings, SettingsError, load_settings, require_token_for
from app.runs.shells import default_shell
from tests.kit.libraries_words import assert_own_words

TOKEN = "correct-horse-battery"  # noqa: S105 (a token of these tests alone)
# Only a service of root's may start commands as somebody else.
RUN_AS = "nobody" if os.geteuid() == 0 else ""
SECOND_TOKEN = "another-horse-battery"  # noqa: S105 (a token of these tests alone)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty directory the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def faults_of(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> list[str]:
    """Return the faults that these variables cause."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return caught.value.faults


def test_defaults(directory: Path) -> None:
    """With nothing set, the documented defaults hold, and the log directory is absolute."""
    assert load_settings() == Settings(
        host="127.0.0.1",
        port=8000,
        bind=None,
        log_dir=directory / "logs",
        default_restart_timeout=10,
        shell=default_shell(),
        token=None,
        trusted_hosts=(),
        trusted_proxies=(),
        threads=16,
        on_shutdown="stop",
        log_max_bytes=1024**3,
        log_keep=50,
        log_total_bytes=20 * 1024**3,
        log_group_read=False,
    )


def test_every_setting_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is taken from its variable."""
    environment = {
        "HOST": "::1",
        "PORT": "0",
        "BIND": "unix:/run/llm-shell.sock",
        "LOG_DIR": "/var/log/llm-shell",
        "DEFAULT_RESTART_TIMEOUT": "2.5",
        "SHELL": sys.executable,
        "RUN_AS": RUN_AS,
        "TOKEN": TOKEN,
        "TRUSTED_HOSTS": "Shell.Example.com, 10.0.0.5:8000,[fd00::5]",
        "TRUSTED_PROXIES": "10.244.0.0/16, FD00::5",
        "THREADS": "4",
        "MAX_PROCESSES": "1024",
        "ON_SHUTDOWN": "keep",
        "LOG_MAX_BYTES": "1048576",
        "LOG_KEEP": "1",
        "LOG_TOTAL_BYTES": "2097152",
        "LOG_GROUP_READ": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(f"LLM_SHELL_{name}", value)
    assert load_settings() == Settings(
        host="::1",
        port=0,
        bind="unix:/run/llm-shell.sock",
        log_dir=Path("/var/log/llm-shell"),
        default_restart_timeout=2.5,
        shell=sys.executable,
        run_as=RUN_AS or None,
        token=TOKEN,
        trusted_hosts=("shell.example.com", "10.0.0.5:8000", "[fd00::5]"),
        trusted_proxies=(IPv4Network("10.244.0.0/16"), IPv6Network("fd00::5/128")),
        threads=4,
        max_processes=1024,
        on_shutdown="keep",
        log_max_bytes=1024**2,
        log_keep=1,
        log_total_bytes=2 * 1024**2,
        log_group_read=True,
    )
    assert {f"LLM_SHELL_{field.name.upper()}" for field in dataclasses.fields(Settings)} == {
        f"LLM_SHELL_{name}" for name in environment
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOST", ""),
        ("HOST", "0.0.0.0:8000"),
        ("HOST", "[::1]"),
        ("HOST", "a b"),
        ("HOST", "http://localhost"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "http"),
        ("PORT", ""),
        ("BIND", "8000"),
        ("BIND", "localhost"),
        ("BIND", "localhost:"),
        ("BIND", ":8000"),
        ("BIND", "127.0.0.1:65536"),
        ("BIND", "::1:8000"),
        ("BIND", "http://localhost:8000"),
        ("BIND", "fd://3"),
        ("BIND", "unix:"),
        ("BIND", "unix:llm-shell.sock"),
        ("BIND", "unix:/run/"),
        ("BIND", "unix:/nonexistent/llm-shell.sock"),
        ("BIND", "unix:/etc/passwd"),
        ("BIND", f"unix:/tmp/{'x' * 103}"),
        ("LOG_DIR", ""),
        ("LOG_DIR", "  "),
        ("DEFAULT_RESTART_TIMEOUT", "-1"),
        ("DEFAULT_RESTART_TIMEOUT", "600.1"),
        ("DEFAULT_RESTART_TIMEOUT", "nan"),
        ("DEFAULT_RESTART_TIMEOUT", "soon"),
        ("SHELL", "sh"),
        ("SHELL", "/nonexistent/sh"),
        ("SHELL", "/etc/passwd"),
        ("SHELL", "/"),
        ("TOKEN", ""),
        ("TOKEN", "fifteen-letters"),
        ("TOKEN", "a token with spaces in it"),
        ("TOKEN", "токен-из-кириллицы"),
        ("TRUSTED_HOSTS", "*"),
        ("TRUSTED_HOSTS", "*.example.com"),
        ("TRUSTED_HOSTS", "http://example.com"),
        ("TRUSTED_HOSTS", "example.com:99999"),
        ("TRUSTED_HOSTS", "fd00::5"),
        ("TRUSTED_PROXIES", "*"),
        ("TRUSTED_PROXIES", "proxy.example.com"),
        ("TRUSTED_PROXIES", "10.0.0.5:8000"),
        ("TRUSTED_PROXIES", "10.0.0.5/8"),
        ("THREADS", "3"),
        ("THREADS", "many"),
        ("THREADS", "9" * 5000),
        ("MAX_PROCESSES", "1.5"),
        ("DEFAULT_RESTART_TIMEOUT", "inf"),
        ("DEFAULT_RESTART_TIMEOUT", ""),
        ("ON_SHUTDOWN", "KEEP"),
        ("LOG_MAX_BYTES", "1048575"),
        ("LOG_KEEP", "0"),
        ("LOG_TOTAL_BYTES", "1048575"),
        ("LOG_GROUP_READ", "yes"),
        ("MAX_PROCESSES", "0"),
        ("MAX_PROCESSES", "1025"),
    ],
)
def test_bad_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A value that cannot be meant is the one fault, and the fault names its variable."""
    (fault,) = faults_of(monkeypatch, {f"LLM_SHELL_{name}": value})
    assert fault.startswith(f"LLM_SHELL_{name}: ")
    assert_own_words([fault.partition(": ")[2]])


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PORT", "80x", "must be a whole number, not '80x'."),
        ("PORT", "", "must be a whole number, not ''."),
        ("LOG_KEEP", "1e3", "must be a whole number, not '1e3'."),
        ("PORT", "65536", "must be from 0 to 65535, not 65536."),
        ("DEFAULT_RESTART_TIMEOUT", "soon", "must be a number of seconds, such as 2 or 0.5."),
        ("DEFAULT_RESTART_TIMEOUT", "nan", "must be a number of seconds, such as 2 or 0.5."),
    ],
)
def test_what_a_number_must_be(monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str) -> None:
    """A number that is none is told with what it was, or what it must be."""
    assert faults_of(monkeypatch, {f"LLM_SHELL_{name}": value}) == [f"LLM_SHELL_{name}: {told}"]


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:8000", "shell.example.com:65535", f"unix:/tmp/{'x' * 102}"])
def test_bind(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """BIND takes an address with its port, and the path of a socket as long as the kernel takes it."""
    monkeypatch.setenv("LLM_SHELL_BIND", address)
    assert load_settings().bind == address


def test_empty_bind(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty BIND is as good as none, so that whoever starts the service can undo what `.env` says."""
    (directory / ".env").write_text("LLM_SHELL_BIND=127.0.0.1:9000\n")
    monkeypatch.setenv("LLM_SHELL_BIND", "")
    assert load_settings().bind is None


def test_bind_to_a_socket_that_is_there(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that a killed service has left behind is no fault: the next one replaces it."""
    path = directory / "left.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    monkeypatch.setenv("LLM_SHELL_BIND", f"unix:{path}")
    assert load_settings().bind == f"unix:{path}"


def test_all_faults_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fault is told in one text, so that nobody corrects them one start at a time."""
    environment = {"LLM_SHELL_PORT": "x", "LLM_SHELL_THREADS": "1", "LLM_SHELL_TOKN": TOKEN}
    assert len(faults_of(monkeypatch, environment)) == 3
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert all(name in str(caught.value) for name in environment)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LLM_SHELL_TOKN", "LLM_SHELL_TOKEN"),
        ("llm_shell_token", "LLM_SHELL_TOKEN"),
        ("LLM_SHELL_LOGDIR", "LLM_SHELL_LOG_DIR"),
    ],
)
def test_misspelt_name(monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    """A misspelt name is a fault that tells the right one, since a token that is ignored would leave the door open."""
    (fault,) = faults_of(monkeypatch, {name: TOKEN})
    assert fault == f"{name}: there is no such setting; did you mean {meant}?"


def test_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name like none of the settings is a fault that lists them."""
    (fault,) = faults_of(monkeypatch, {"LLM_SHELL_QQQQQQQQ": "1"})
    assert "LLM_SHELL_TRUSTED_HOSTS" in fault


def test_the_variables_of_a_run_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a service that is part of a run, the run's two variables are passed over, whatever their values."""
    usual = load_settings()
    for name, value in {"LLM_SHELL_RUN_ID": "2026-11-22_06-08-00", "LLM_SHELL_NAME": ""}.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == usual


@pytest.mark.parametrize("name", ["LLM_SHELL_RUN_IDS", "LLM_SHELL_NAMES", "llm_shell_run_id", "LLM_SHELL_RUN_NAME"])
def test_what_resembles_the_variables_of_a_run(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A name that is like them and not one of them is an unknown setting."""
    (fault,) = faults_of(monkeypatch, {name: "1", "LLM_SHELL_RUN_ID": "1", "LLM_SHELL_NAME": "default"})
    assert fault.startswith(f"{name}: there is no such setting")
    assert "LLM_SHELL_NAME," not in fault


@pytest.mark.parametrize("name", ["LLM_SHELL_RUN_ID", "LLM_SHELL_NAME"])
def test_the_variables_of_a_run_in_the_file(directory: Path, name: str) -> None:
    """In `.env`, where no run has put them, they are unknown settings like any other."""
    (directory / ".env").write_text(f"{name}=x\n")
    with pytest.raises(SettingsError, match=f"{name}: there is no such setting"):
        load_settings()


def test_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a fault nor the settings' own text shows the token."""
    assert "sesame" not in str(faults_of(monkeypatch, {"LLM_SHELL_TOKEN": "sesame"}))
    assert TOKEN not in repr(Settings(token=TOKEN))


def test_env_file(directory: Path) -> None:
    """`.env` in the working directory is read, and does not become part of the environment that processes inherit."""
    (directory / ".env").write_text(f'# a comment\n\nexport LLM_SHELL_PORT=9000\nLLM_SHELL_TOKEN="{TOKEN}"\nOTHER=1\n')
    settings = load_settings()
    assert (settings.port, settings.token) == (9000, TOKEN)
    assert "LLM_SHELL_TOKEN" not in os.environ


def test_environment_wins_over_env_file(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the real environment counts more than the file's."""
    (directory / ".env").write_text(f"LLM_SHELL_TOKEN={TOKEN}\n")
    monkeypatch.setenv("LLM_SHELL_TOKEN", SECOND_TOKEN)
    assert load_settings().token == SECOND_TOKEN


def test_env_file_of_a_parent_directory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.env` further up, of some other project, is not ours."""
    (directory / ".env").write_text("LLM_SHELL_PORT=9000\n")
    (directory / "inner").mkdir()
    monkeypatch.chdir(directory / "inner")
    assert load_settings().port == 8000


@pytest.mark.parametrize("line", ["LLM_SHELL_TOKEN", "LLM_SHELL_TOKEN: x", "LLM_SHELL_TOKEN = 'x"])
def test_env_file_line_that_would_be_skipped(directory: Path, line: str) -> None:
    """A line that is no assignment is a fault with its number, because it may be the one with the token."""
    (directory / ".env").write_text(f"LLM_SHELL_PORT=1\n{line}\n")
    with pytest.raises(SettingsError, match=r"\.env, line 2: must be NAME=value"):
        load_settings()


def test_env_file_with_an_unknown_name(directory: Path) -> None:
    """A misspelt name is a fault in `.env`, too."""
    (directory / ".env").write_text("LLM_SHELL_TOKN=x\n")
    with pytest.raises(SettingsError, match="did you mean LLM_SHELL_TOKEN"):
        load_settings()


def test_env_file_that_is_no_text(directory: Path) -> None:
    """A `.env` that cannot be read is a fault and no traceback."""
    (directory / ".env").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"\.env: cannot be read"):
        load_settings()


def test_env_file_that_is_a_directory(directory: Path) -> None:
    """A directory named `.env`, as virtual environments have been, is a fault and no traceback."""
    (directory / ".env").mkdir()
    with pytest.raises(SettingsError, match=r"\.env: cannot be read"):
        load_settings()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.8.9.10", "::1"])
def test_loopback(host: str) -> None:
    """Names and addresses that can only mean this machine are loopback."""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "0.0.0.0",
        "::",
        "10.0.0.1",
        "localhost.example.com",
        "a.localhost",
        "notlocalhost",
        "127.0.0.1.example.com",
        "::2",
    ],
)
def test_not_loopback(host: str) -> None:
    """Everything else is not, whatever it looks like."""
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost", "localhost"),
        ("localhost:8000", "localhost"),
        ("[::1]:8000", "[::1]"),
        ("", None),
        ("a,b:c", None),
        ("a b", None),
        ("::1", None),
        ("localhost:x", None),
    ],
)
def test_split_port(host: str, name: str | None) -> None:
    """A Host header is taken apart only where it has the form of one."""
    assert split_port(host) == name


@pytest.mark.parametrize("address", [("127.0.0.1", 8000), ("::1", 8000, 0, 0), "/run/llm-shell.sock", b"\0abstract"])
def test_no_token_needed(address: object) -> None:
    """Loopback and Unix sockets are served without a token."""
    require_token_for([address], Settings())


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (("0.0.0.0", 8000), "0.0.0.0:8000"),
        (("::", 80, 0, 0), "[::]:80"),
        (("10.1.2.3", 1), "10.1.2.3:1"),
        ((3, 4), "(3, 4)"),
    ],
)
def test_token_needed(address: object, shown: str) -> None:
    """Any other address is refused without a token, by a text that names it, and served with one."""
    with pytest.raises(SettingsError) as caught:
        require_token_for([("127.0.0.1", 8000), address], Settings())
    assert shown in str(caught.value)
    assert "127.0.0.1:8000" not in str(caught.value)
    require_token_for([address], Settings(token=TOKEN))


def test_the_line_that_sets_a_token() -> None:
    """The line that the refusal gives works in a shell as it stands, and makes a token that is accepted."""
    with pytest.raises(SettingsError) as caught:
        require_token_for([("0.0.0.0", 8000)], Settings())
    line = str(caught.value).splitlines()[-1].strip()
    script = f'{line}; exec "$0" -c "from app.config import load_settings; print(len(load_settings().token))"'
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        ["/bin/sh", "-c", script, sys.executable], env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == 43


@pytest.mark.parametrize(("name", "words"), [("no-such-user", "the name of a user"), ("root", "must not be root")])
def test_commands_run_only_as_a_user_who_is_less(monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
    """RUN_AS names a user of the machine, and not root."""
    monkeypatch.setenv("LLM_SHELL_RUN_AS", name)
    with pytest.raises(SettingsError, match=words):
        load_settings()
