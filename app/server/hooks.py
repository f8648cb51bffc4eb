"""Runs in the master, `post_fork` in the worker: gunicorn's hooks, which stop the run when the service stops."""

import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from gunicorn.arbiter import Arbiter
from gunicorn.config import Chdir
from gunicorn.errors import HaltServer

from app.config import Settings, SettingsError, load_settings, require_token_for
from app.exceptions import LLMShellError
from app.log.quoting import ESCAPES_QUICKLY
from app.runs.claim import CLAIM_TIMEOUT
from app.server import checks
from app.server.exposure import exposures
from app.server.master import RetryingMaster
from app.server.terminal import Terminal
from app.service import supervisor
from app.supervisor.orphans import become_subreaper
from app.supervisor.zygote import await_end

# Seconds that the zygote of a killed worker may take to see its end of file, on a busy machine.
ZYGOTE_TIMEOUT = 2.0
ROOT = Path(__file__).resolve().parents[2]
_log = logging.getLogger("gunicorn.error")
terminal = Terminal()
# The addresses that gunicorn listens on: its own options, or systemd, override the settings.
_addresses: list[object] = []
_masters: list[RetryingMaster] = []


def settings_for_gunicorn() -> Settings:
    """Return the settings to serve with; gunicorn executes its configuration file at the start and again at HUP.

    At the start a fault exits with its text. At HUP it must not, since the master would exit without `on_exit`: the
    old settings stay.
    """
    old = supervisor.settings
    try:
        new = load_settings()
        if old is not None:
            checks.require_same_place(old, new)
            require_token_for(_addresses, new)
    except SettingsError as error:
        if old is None:
            checks.refuse(str(error))
        _log.warning("Reload: the old settings stay in force. %s", error)
        return old
    if old is not None:
        supervisor.settings = new
    return new


def _inherited_addresses() -> list[object]:
    """Return the addresses of the sockets that systemd passes, which gunicorn uses instead of opening its own.

    sd_listen_fds(3): they are the descriptors from 3 on, and meant for the process that LISTEN_PID names.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    addresses: list[object] = []
    for fd in range(3, 3 + int(os.environ.get("LISTEN_FDS", "0"))):
        with socket.socket(fileno=os.dup(fd)) as passed:
            addresses.append(passed.getsockname())
    return addresses


def on_starting(server: Arbiter) -> None:
    """Refuse settings that can't work, with one line each; then claim the log directory."""
    deadline = time.monotonic() + CLAIM_TIMEOUT
    settings = load_settings()
    _log_to_gunicorn()
    checks.check_workers(server.cfg)
    inherited = _inherited_addresses()
    _addresses.extend(inherited or server.cfg.address)
    try:
        require_token_for(_addresses, settings)
        checks.require_logs_out_of_reach(settings)
        supervisor.claim(settings)
        supervisor.working_dir = Path.cwd()
        if not inherited:
            checks.require_free_addresses(server.cfg, settings, deadline)
    except (SettingsError, LLMShellError) as error:
        checks.refuse(str(error))
    become_subreaper()
    _masters.append(RetryingMaster(server))
    for exposure in exposures(settings, Path.cwd()):
        _log.warning("%s", exposure)
    if not ESCAPES_QUICKLY:
        _log.info("Without ssrjson a flood of output costs more processor time (requirements-quick.txt).")


def pre_fork(server: Arbiter, worker: object) -> None:  # noqa: ARG001  gunicorn's signature
    """Let the worker share the master's memory for longer.

    Python's cyclic collector writes to each object that it looks at, and would copy its page: it leaves alone what is
    frozen here. What was frozen for the worker before is looked at first, since some of it may be garbage by now.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def post_fork(server: Arbiter, worker: object) -> None:  # noqa: ARG001  gunicorn's signature
    """Make the worker a subreaper, and keep the working directory off `sys.path`.

    It gets the orphans of runs without keepers, and the understudies of a killed zygote.
    gunicorn puts that directory first on the path, and a command may have left a `flask.py` there.
    """
    become_subreaper()
    here = supervisor.working_dir
    if here != ROOT:
        sys.path[:] = [entry for entry in sys.path if entry and Path(entry) != here]


def on_reload(server: Arbiter) -> None:  # noqa: ARG001  gunicorn's signature
    """Have the workers after a reload use our worker class, too."""
    for master in _masters:
        master.use_own_worker()


def when_ready(server: Arbiter) -> None:
    """Make SIGTERM to the master begin the stop at once, before gunicorn waits for the worker's requests.

    A /restart with ten minutes of grace may be among them: it is overtaken, and nothing is started. A hang-up of the
    terminal stops the service, too; any other SIGHUP is a reload.
    """
    queue_signal = server.signal

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, queue_signal)  # one stop is enough
        if os.getpid() == server.pid:  # not in a worker that has just been forked
            _begin_stop()
        queue_signal(number, frame)

    def hang_up(number: int, frame: FrameType | None) -> None:
        if terminal.hung_up():
            stop(signal.SIGTERM, frame)
        else:
            queue_signal(number, frame)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, hang_up)
    terminal.watch()
    _guard_reload(server)


def _begin_stop() -> None:
    """Begin the stop in a thread; in this signal handler itself where no thread can be created."""
    try:
        threading.Thread(target=supervisor.begin_stop, name="begin-stop", daemon=True).start()
    except RuntimeError:  # CPython's only sign of EAGAIN from pthread_create(3)
        supervisor.begin_stop()


def _guard_reload(server: Arbiter) -> None:
    """Refuse a reload while the directory that gunicorn enters for it is missing: the master would exit.

    It calls getcwd(2) first, which fails with ENOENT in a directory that was removed.
    """
    reload = server.handle_hup

    def handle_hup() -> None:
        try:
            os.chdir(server.cfg.chdir)
            os.chdir(Chdir.default)
        except OSError as error:
            _log.warning("Reload: the old settings stay in force. %s: %s.", error.filename, error.strerror)
        else:
            reload()

    server.handle_hup = handle_hup  # type: ignore[method-assign]  # gunicorn has no hook there


def _log_to_gunicorn() -> None:
    """Send the application's log records to gunicorn's handlers, so that the service has one log in one format."""
    ours = logging.getLogger("app")
    ours.handlers = _log.handlers
    ours.setLevel(logging.INFO)
    ours.propagate = False


def nworkers_changed(server: Arbiter, new: int, old: int | None) -> None:
    """Undo SIGTTIN, which asks for another worker; before `on_starting` no number of workers is in force yet."""
    if supervisor.claimed and new != 1:
        _log.warning("%s: %d workers refused.", checks.ONE_WORKER, new)
        server.num_workers = old if old == 1 else 1


def pre_exec(server: Arbiter) -> None:  # noqa: ARG001  gunicorn's signature
    """Refuse USR2: a second master could only wait for the first. Runs in the child forked for it."""
    _log.warning(
        "USR2 refused: one service at a time uses a log directory. To upgrade, restart with LLM_SHELL_ON_SHUTDOWN=keep."
    )
    os._exit(0)


def on_exit(server: Arbiter) -> None:  # noqa: ARG001  gunicorn's signature
    """Stop the run once the worker has exited, unless the master exits because of a fault of its own.

    gunicorn calls it while it handles the exception that ends it: `HaltServer` is a fault, for which no run may end.
    """
    if isinstance(sys.exc_info()[1], HaltServer):
        _log.error("The master exits after an internal error: the command runs on, and the next service takes it over.")
        return
    if terminal.closed:
        _log.info("The terminal in which the service was started was closed.")
    supervisor.stop()
    await_end(ZYGOTE_TIMEOUT)
