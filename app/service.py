"""How gunicorn's life is tied to the process's: what its hooks do, in the master and in the worker."""

import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from gunicorn.errors import HaltServer

from app.config import ENV_FILE, Settings, SettingsError, load_settings, require_token_for
from app.exceptions import LLMShellError
from app.log.quoting import ESCAPES_QUICKLY
from app.master import Patience
from app.process.account import look_up
from app.process.boot import SITE_PACKAGES
from app.process.reach import changeable_by
from app.process.reaper import become_subreaper
from app.process.standby import await_abandoned
from app.supervisor import supervisor
from app.worker import ShellWorker

if TYPE_CHECKING:
    from types import FrameType

    from gunicorn.arbiter import Arbiter
    from gunicorn.config import Config

# Seconds that a dead worker's shim that stood by may take to notice, on a busy machine.
STANDBY_TIMEOUT = 2.0
ROOT = Path(__file__).resolve().parents[1]
_log = logging.getLogger("gunicorn.error")
ONE_WORKER = (
    "LLM Shell runs exactly one worker, since the state of its process lives in it; requests share its threads instead "
    "(LLM_SHELL_THREADS)"
)
# What gunicorn listens on, which its own options or systemd may have made other than the settings say.
_addresses: list[object] = []
_patience: list[Patience] = []


def settings_for_gunicorn() -> Settings:
    """Return the settings to serve with; gunicorn executes its configuration at the start and again at HUP.

    At the start a fault ends the program with its text. At HUP it must not, since the master would be gone without its
    `on_exit`: the old settings stay.
    """
    old = supervisor.settings
    try:
        new = load_settings()
        if old is not None:
            _require_same_place(old, new)
    except SettingsError as error:
        if old is None:
            _refuse(str(error))
        _log.warning("Reload: the old settings stay in force. %s", error)
        return old
    if old is not None:
        supervisor.settings = new
    return new


def bind_address(settings: Settings) -> str:
    """Return gunicorn's notation for the address to listen on."""
    if settings.bind is not None:
        return settings.bind
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.port}"


def _inherited_addresses() -> list[object]:
    """Return where the sockets listen that systemd passes: gunicorn takes them instead of opening its own.

    sd_listen_fds(3): they are the descriptors from 3 on, and meant for the process whose pid is told.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    addresses: list[object] = []
    for fd in range(3, 3 + int(os.environ.get("LISTEN_FDS", "0"))):
        with socket.socket(fileno=os.dup(fd)) as passed:
            addresses.append(passed.getsockname())
    return addresses


def on_starting(server: "Arbiter") -> None:
    """Refuse what can't work, with one line each; then claim the log directory."""
    settings = load_settings()
    _check_workers(server.cfg)
    _addresses.extend(_inherited_addresses() or server.cfg.address)
    try:
        require_token_for(_addresses, settings)
        _require_logs_out_of_reach(settings)
        supervisor.claim(settings)
    except (SettingsError, LLMShellError) as error:
        _refuse(str(error))
    become_subreaper()
    _patience.append(Patience(server))
    _log_to_gunicorn()
    if settings.run_as is not None:
        _warn_of_reach(settings.run_as)
    if not ESCAPES_QUICKLY:
        _log.info("Without ssrjson a flood of output costs more processor time (requirements-quick.txt).")


def post_fork(server: "Arbiter", worker: object) -> None:  # noqa: ARG001  gunicorn's signature
    """Make the worker the one to whom the orphans of a killed shim come, and its imports the service's own.

    gunicorn puts the working directory first on the path, where a command may have left a `flask.py`.
    """
    become_subreaper()
    here = Path.cwd()
    if here != ROOT:
        sys.path[:] = [entry for entry in sys.path if entry and Path(entry) != here]


def on_reload(server: "Arbiter") -> None:  # noqa: ARG001  gunicorn's signature
    """Let the next workers be ours, too."""
    for patience in _patience:
        patience.use_own_worker()


def when_ready(server: "Arbiter") -> None:
    """Let SIGTERM to the master begin the end of the tree at once, before gunicorn waits for the worker's requests.

    A /restart may be among them, with ten minutes of grace to give: it is overtaken, and nothing is started.
    """
    queue_signal = server.signal

    def stop(number: int, frame: "FrameType | None") -> None:
        signal.signal(signal.SIGTERM, queue_signal)  # once is enough
        if os.getpid() == server.pid:  # not in a worker that has just been forked
            _begin_stop()
        queue_signal(number, frame)

    signal.signal(signal.SIGTERM, stop)


def _begin_stop() -> None:
    """End the tree in the background; here, in the signal's handler, where no thread can be had for it."""
    try:
        threading.Thread(target=supervisor.begin_stop, name="begin-stop", daemon=True).start()
    except RuntimeError:  # all that CPython tells of pthread_create(3)'s EAGAIN
        supervisor.begin_stop()


def _require_logs_out_of_reach(settings: Settings) -> None:
    """Refuse a log directory where the commands' user could put links, which root would follow, or other records."""
    if settings.run_as is None:
        return
    found = changeable_by(look_up(settings.run_as)[0], [settings.log_dir])
    if found:
        raise SettingsError(
            [
                f"LLM_SHELL_LOG_DIR: can't be {settings.log_dir.absolute()} together with LLM_SHELL_RUN_AS: "
                f"{settings.run_as} may change {', '.join(map(str, found))}, and so what this service, as root, writes "
                "there. Make a directory of root's below directories of root's, for instance with "
                "`install -d -m 0700 /var/lib/llm-shell/logs`, and set LLM_SHELL_LOG_DIR to it."
            ]
        )


def _warn_of_reach(user: str) -> None:
    """Say what of the service, which runs as root, the commands' user could change.

    No refusal: that user's own directory is a natural place to start the service in, and nothing is lost before a start
    or a reload reads what was put there.
    """
    code = [ROOT / "wsgi.py", ROOT / "gunicorn.conf.py", *(ROOT / "app").rglob("*")]  # compiled code among it
    found = changeable_by(look_up(user)[0], [Path.cwd(), ENV_FILE, Path(sys.executable), Path(SITE_PACKAGES), *code])
    if found:
        _log.warning(
            "LLM_SHELL_RUN_AS does not hold %s back for long: that user may write to %s, and so give this service, "
            "which runs as root, other settings or other code. Take the right away, or start the service elsewhere.",
            user,
            ", ".join(str(path) for path in found if path.parent not in found),
        )


def _log_to_gunicorn() -> None:
    """Let what the application logs appear in the service's one log, in the same form."""
    ours = logging.getLogger("app")
    ours.handlers = _log.handlers
    ours.setLevel(logging.INFO)
    ours.propagate = False


def nworkers_changed(server: "Arbiter", new: int, old: int | None) -> None:
    """Keep to one worker when SIGTTIN asks for another; before `on_starting` there is nothing to keep to."""
    if supervisor.claimed and new != 1:
        _log.warning("%s: %d workers refused.", ONE_WORKER, new)
        server.num_workers = old if old == 1 else 1


def pre_exec(server: "Arbiter") -> None:  # noqa: ARG001  gunicorn's signature
    """Refuse USR2: a second master could only wait for the first. Runs in the forked child."""
    _log.warning(
        "USR2 refused: one service at a time uses a log directory. To upgrade, restart with LLM_SHELL_ON_SHUTDOWN=keep."
    )
    os._exit(0)


def on_exit(server: "Arbiter") -> None:  # noqa: ARG001  gunicorn's signature
    """End what is left of the tree, in the master, after the worker has gone.

    gunicorn calls it while it handles what ends it: a stop that somebody asked for, or a fault that it does not go on
    with, for which no command may end.
    """
    if isinstance(sys.exc_info()[1], HaltServer):
        _log.error("The master ends for a fault of its own: the command runs on, and the next service takes it over.")
        return
    supervisor.stop()
    await_abandoned(STANDBY_TIMEOUT)


def _check_workers(config: "Config") -> None:
    asked = os.environ.get("WEB_CONCURRENCY", "").strip() or "1"
    if config.workers != 1 or asked != "1":
        wanted = config.workers if config.workers != 1 else asked
        _refuse(f"{ONE_WORKER}: remove -w, --workers or WEB_CONCURRENCY (asked for {wanted}).")
    if config.worker_class_str not in {"gthread", f"{ShellWorker.__module__}.{ShellWorker.__qualname__}"}:
        _refuse(f"{ONE_WORKER}: worker class gthread is needed, {config.worker_class_str} was asked for.")
    if config.threads < 4:  # noqa: PLR2004  the least that LLM_SHELL_THREADS takes
        _refuse(f"LLM Shell needs at least 4 threads, so that reads never wait: {config.threads} were asked for.")
    if config.preload_app:
        _refuse("LLM Shell can't be preloaded, since its worker keeps the process: remove --preload.")


def _require_same_place(old: Settings, new: Settings) -> None:
    """Refuse what a reload can't do: the directory is claimed, and requests wait at the address.

    gunicorn would close the old address first and end without `on_exit` where the new one can't be had.
    """
    faults = [
        f"LLM_SHELL_{name.upper()}: can't change while the service runs (it is {getattr(old, name)}): restart it."
        for name in ("log_dir", "run_as", "bind", "host", "port")
        if getattr(new, name) != getattr(old, name)
    ]
    if faults:
        raise SettingsError(faults)
    require_token_for(_addresses, new)


def _refuse(text: str) -> NoReturn:
    sys.exit(f"LLM Shell does not start: {text}" if not text.startswith("LLM Shell") else text)
