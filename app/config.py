"""Runs in the master and the worker: the settings, from the environment and `.env`, with all their faults at once."""

import ipaddress
import os
import pwd
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from dotenv.parser import parse_stream
from environs import Env, EnvValidationError, ValidationError, validate

from app.addresses import HOST_AND_PORT, HOST_NAME, is_exposed, is_host, parse_ip, show
from app.runs.names import NAME_VARIABLE, RUN_ID_VARIABLE
from app.runs.shells import WANTED, default_shell, is_executable
from app.wording import nearest

PREFIX = "LLM_SHELL_"
UNIX = "unix:"
ENV_FILE = Path(".env")
MAX_TIMEOUT = 600
MIN_THREADS = 4
MOST_PROCESSES = 1024
MIN_TOKEN_LENGTH = 16
MAX_PORT = 65535
MIB = 1024 * 1024
# unix(7): sun_path holds 108 bytes, the last of them NUL.
MAX_SOCKET_PATH = 107
# Keys of marshmallow's messages, which say no more than that the value is invalid.
_NUMBER_FAULTS = ("invalid", "too_large", "special")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_EXPORT_LINE = """export LLM_SHELL_TOKEN="$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')\""""


@dataclass(frozen=True, slots=True)
class Settings:
    """Hold the operator's settings; the defaults are those of the documentation.

    `log_dir` is absolute, `default_restart_timeout` is in seconds, `log_max_bytes` is per run, `log_keep` counts
    the runs of a name, `log_total_bytes` is for all logs together, `max_processes` names that live at the same time.
    `trusted_hosts` holds lower-case `name` or `name:port`, a name without a port standing for any port. `bind`, in
    gunicorn's notation, is the address to listen on instead of `host` and `port`. `trusted_proxies` are the TCP peers
    whose X-Forwarded headers count.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    bind: str | None = None
    log_dir: Path = field(default_factory=lambda: Path("logs").absolute())
    default_restart_timeout: float = 10.0
    shell: str = field(default_factory=default_shell)
    run_as: str | None = None
    token: str | None = field(default=None, repr=False)
    trusted_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    threads: int = 16
    max_processes: int = 64
    on_shutdown: Literal["stop", "keep"] = "stop"
    log_max_bytes: int = 1024 * MIB
    log_keep: int = 50
    log_total_bytes: int = 20 * 1024 * MIB
    log_group_read: bool = False


class SettingsError(Exception):
    """Report every fault of the settings at once; the text is meant to be shown as it is."""

    def __init__(self, *faults: str) -> None:
        lines = "".join(f"\n  - {fault}" for fault in faults)
        super().__init__(f"LLM Shell does not start, its settings must change first:{lines}")
        self.faults = list(faults)


def load_settings() -> Settings:
    """Read the settings from the environment and, for names not set there, from `.env` in the working directory.

    Raises `SettingsError` with every fault. `os.environ` stays as it is, so that no value of `.env` reaches a command.
    """
    file_names, faults = _inspect_env_file()
    env = Env(eager=False)
    if not faults:
        env.read_env(ENV_FILE, recurse=False)
    with env.prefixed(PREFIX):
        settings = _read_fields(env)
    try:
        env.seal()
    except EnvValidationError as error:
        messages = cast("dict[str, list[str]]", error.error_messages)
        faults += [f"{name}: {message}" for name, texts in messages.items() for message in texts]
    # A command of another service has these two: a service that is one goes by its own settings.
    faults += _unknown_names([*(os.environ.keys() - {RUN_ID_VARIABLE, NAME_VARIABLE}), *file_names])
    if faults:
        raise SettingsError(*faults)
    return settings


def require_token_for(addresses: Iterable[object], settings: Settings) -> None:
    """Refuse, by raising `SettingsError`, to serve a TCP address other than loopback without a token.

    Addresses are as `socket.getsockname()` returns them: a tuple for TCP, a string or bytes for a Unix socket, which
    the file system's permissions protect.
    """
    if settings.token is not None:
        return
    exposed = [show(address) for address in addresses if is_exposed(address)]
    if exposed:
        raise SettingsError(
            f"{PREFIX}TOKEN: not set, and LLM Shell runs any command it is given, so it does not serve "
            f"{', '.join(exposed)} without one. Set one and start again:\n      {_EXPORT_LINE}"
        )


def _read_fields(env: Env) -> Settings:
    """Build the settings; a faulty field holds None, and `env.seal()` raises before it is used."""
    defaults = Settings()
    return Settings(
        host=env.str("HOST", defaults.host, validate=_check_host),
        port=_integer(env, "PORT", defaults.port, 0, MAX_PORT),
        bind=env.str("BIND", "", validate=_check_bind) or None,
        log_dir=Path(env.str("LOG_DIR", "logs", validate=_check_log_dir) or "").absolute(),
        default_restart_timeout=env.float(  # type: ignore[call-overload]  # environs hands all else on to the field
            "DEFAULT_RESTART_TIMEOUT",
            defaults.default_restart_timeout,
            error_messages=dict.fromkeys(_NUMBER_FAULTS, "must be a number of seconds, such as 2 or 0.5."),
            validate=validate.Range(0, MAX_TIMEOUT, error=f"must be from 0 to {MAX_TIMEOUT} seconds, not {{input}}."),
        ),
        shell=env.str("SHELL", defaults.shell, validate=_check_shell),
        run_as=env.str("RUN_AS", "", validate=_check_run_as) or None,
        token=env.str("TOKEN", None, validate=_check_token),
        trusted_hosts=_list(env, "TRUSTED_HOSTS", _check_trusted_hosts),
        trusted_proxies=tuple(map(ipaddress.ip_network, _list(env, "TRUSTED_PROXIES", _check_trusted_proxies))),
        threads=_integer(env, "THREADS", defaults.threads, MIN_THREADS, None),
        max_processes=_integer(env, "MAX_PROCESSES", defaults.max_processes, 1, MOST_PROCESSES),
        on_shutdown=_choice(env, "ON_SHUTDOWN", defaults.on_shutdown, ("stop", "keep")),
        log_max_bytes=_integer(env, "LOG_MAX_BYTES", defaults.log_max_bytes, MIB, None),
        log_keep=_integer(env, "LOG_KEEP", defaults.log_keep, 1, None),
        log_total_bytes=_integer(env, "LOG_TOTAL_BYTES", defaults.log_total_bytes, MIB, None),
        log_group_read=_choice(env, "LOG_GROUP_READ", "0", ("0", "1", "true", "false")) in {"1", "true"},
    )


def _integer(env: Env, name: str, default: int, minimum: int, maximum: int | None) -> int:
    wanted = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    number: int = env.int(  # type: ignore[call-overload]  # environs hands all else on to the field
        name,
        default,
        error_messages=dict.fromkeys(_NUMBER_FAULTS, "must be a whole number, not {input!r}."),
        validate=validate.Range(minimum, maximum, error=f"must be {wanted}, not {{input}}."),
    )
    return number


def _choice(env: Env, name: str, default: str, choices: tuple[str, ...]) -> Any:
    wanted = f"must be {' or '.join(choices)}, not {{input!r}}."
    return env.str(name, default, validate=validate.OneOf(choices, error=wanted))


def _list(env: Env, name: str, check: Callable[[str], None]) -> tuple[str, ...]:
    """Read entries between commas, in lower case."""
    text: str | None = env.str(name, "", validate=check)  # None where it is faulty
    return tuple(_entries(text or ""))


def _entries(text: str) -> Iterator[str]:
    return (entry.strip().lower() for entry in text.split(",") if entry.strip())


def _check_host(host: str) -> None:
    if parse_ip(host) is not None or HOST_NAME.fullmatch(host):
        return
    raise ValidationError(f"must be a host name or an IP address (IPv6 without brackets) and no port, not {host!r}.")


def _check_bind(address: str) -> None:
    if not address:  # counts as not set, so that a command line or a compose file can unset it
        return
    if address.startswith(UNIX):
        _check_socket_path(address.removeprefix(UNIX))
        return
    match = HOST_AND_PORT.fullmatch(address)
    if match is None or match["port"] is None or int(match["port"]) > MAX_PORT or not is_host(match["name"]):
        raise ValidationError(
            f"must be unix: and the absolute path of a socket, or an address and a port, such as "
            f"unix:/run/llm-shell/llm-shell.sock, 127.0.0.1:8000 or [::1]:8000, not {address!r}."
        )


def _check_socket_path(path: str) -> None:
    if not path.startswith("/") or path.endswith("/") or "\0" in path or len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ValidationError(
            f"must be unix: and the absolute path of a socket, of at most {MAX_SOCKET_PATH} bytes, not {path!r}."
        )
    if not Path(path).parent.is_dir():
        raise ValidationError(f"the directory of the socket, {Path(path).parent}, does not exist: make it first.")
    if Path(path).exists() and not Path(path).is_socket():
        raise ValidationError(f"{path} exists and is no socket: remove it, or name another path.")


def _check_log_dir(path: str) -> None:
    if not path.strip() or "\0" in path:
        raise ValidationError(f"must be the path of a directory, not {path!r}.")


def _check_shell(path: str) -> None:
    if not is_executable(path):
        raise ValidationError(f"{WANTED}, not {path!r}.")


def _check_run_as(name: str) -> None:
    """Refuse a user that does not exist, is root, or that this service has no right to become."""
    if not name:
        return
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise ValidationError(f"must be the name of a user of this machine, not {name!r}.") from None
    if user.pw_uid == 0:
        raise ValidationError(
            "must not be root, which has this service's own rights. Leave it out, or name another user."
        )
    if os.geteuid() != 0:
        raise ValidationError("needs a service that runs as root: only root may start commands as another user.")


def _check_token(token: str) -> None:
    """Refuse a token that can't be sent in a header, or could be guessed; its value is never shown."""
    if len(token) < MIN_TOKEN_LENGTH:
        raise ValidationError(
            f"must be at least {MIN_TOKEN_LENGTH} characters long, since a caller who guesses it can run commands. "
            f"To make one:\n      {_EXPORT_LINE}"
        )
    if not all("!" <= character <= "~" for character in token):
        raise ValidationError("must hold only printable ASCII characters and no space, to fit in a header.")


def _check_trusted_hosts(text: str) -> None:
    for entry in _entries(text):
        match = HOST_AND_PORT.fullmatch(entry)
        if match is None or int(match["port"] or 0) > MAX_PORT or not is_host(match["name"]):
            raise ValidationError(
                f"must be exact host names separated by commas, each with or without a port, such as "
                f"shell.example.com,10.0.0.5:8000,[fd00::5] (no wildcards, no scheme); {entry!r} is not one."
            )


def _check_trusted_proxies(text: str) -> None:
    for entry in _entries(text):
        try:
            ipaddress.ip_network(entry)
        except ValueError as error:
            raise ValidationError(
                f"must be addresses or networks separated by commas, such as 10.0.0.5,10.244.0.0/16,fd00::/8: {error}."
            ) from error


def _inspect_env_file() -> tuple[list[str], list[str]]:
    """Return the names in `.env` and its faults: a line that the parser would skip may be the one with the token."""
    try:
        with ENV_FILE.open(encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except FileNotFoundError:
        return [], []
    except (OSError, UnicodeDecodeError) as error:
        return [], [f"{ENV_FILE.absolute()}: cannot be read: {error}."]
    faults = [
        f"{ENV_FILE.absolute()}, line {binding.original.line}: must be NAME=value, a comment or empty."
        for binding in bindings
        if binding.error or (binding.key is not None and binding.value is None)
    ]
    return [binding.key for binding in bindings if binding.key is not None], faults


def _unknown_names(names: Iterable[str]) -> list[str]:
    """Return a fault for each unknown name with our prefix: a misspelt TOKEN must not go unnoticed."""
    known = [PREFIX + name.upper() for name in Settings.__dataclass_fields__]
    unknown = sorted({name for name in names if name.upper().startswith(PREFIX)} - set(known))
    return [f"{name}: there is no such setting{_suggest(name, known)}" for name in unknown]


def _suggest(name: str, known: list[str]) -> str:
    # Without the prefix, which would make all names similar.
    names = [candidate.removeprefix(PREFIX) for candidate in known]
    closest = nearest(name.upper().removeprefix(PREFIX), names)
    return f"; did you mean {PREFIX}{closest}?" if closest else f"; the settings are {', '.join(known)}."
