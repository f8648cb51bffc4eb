"""Runs in the master: refuse settings and options that the service can't run with, at the start and at a reload."""

import os
import sys
from typing import NoReturn

from gunicorn.config import Config

from app.config import Settings, SettingsError
from app.linux.account import look_up
from app.server.listening import bind_address, require_free
from app.server.reach import changeable_by
from app.server.worker import ShellWorker

ONE_WORKER = (
    "LLM Shell runs exactly one worker, since it holds the state of the process; requests share its threads instead "
    "(LLM_SHELL_THREADS)"
)


def require_free_addresses(config: Config, settings: Settings, deadline: float) -> None:
    """Refuse an address that can't be listened on, naming the setting that it comes from."""
    setting = "LLM_SHELL_BIND" if settings.bind else "LLM_SHELL_PORT"
    if config.settings["bind"].get() != [bind_address(settings)]:
        setting = "--bind"
    for address in config.address:
        require_free(address, setting, reuse_port=config.reuse_port, deadline=deadline)


def require_logs_out_of_reach(settings: Settings) -> None:
    """Refuse a log directory where the commands' user could put symbolic links, which root would follow, or records."""
    if settings.run_as is None:
        return
    found = changeable_by(look_up(settings.run_as)[0], [settings.log_dir])
    if found:
        raise SettingsError(
            f"LLM_SHELL_LOG_DIR: can't be {settings.log_dir.absolute()} together with LLM_SHELL_RUN_AS: "
            f"{settings.run_as!r} may change {', '.join(map(str, found))}, and so what this service, as root, "
            "writes there. Make a directory of root's below directories of root's, for instance with "
            "`install -d -m 0700 /var/lib/llm-shell/logs`, and set LLM_SHELL_LOG_DIR to it."
        )


def check_workers(config: Config) -> None:
    """Exit unless gunicorn is configured for one worker of the right class."""
    asked = os.environ.get("WEB_CONCURRENCY", "").strip() or "1"
    if config.workers != 1 or asked != "1":
        wanted = config.workers if config.workers != 1 else asked
        refuse(f"{ONE_WORKER}: remove -w, --workers or WEB_CONCURRENCY (asked for {wanted}).")
    if config.worker_class_str not in {"gthread", f"{ShellWorker.__module__}.{ShellWorker.__qualname__}"}:
        refuse(f"{ONE_WORKER}: worker class gthread is needed, {config.worker_class_str} was asked for.")
    if config.threads < 4:  # noqa: PLR2004  the minimum of LLM_SHELL_THREADS
        refuse(f"LLM Shell needs at least 4 threads, so that reads never wait: {config.threads} were asked for.")
    if config.preload_app:
        refuse("LLM Shell can't be preloaded, since its worker manages the process: remove --preload.")


def require_same_place(old: Settings, new: Settings) -> None:
    """Refuse what a reload can't change: the directory is claimed, and connections wait at the address.

    gunicorn would close the old listener first, and exit without `on_exit` where the new address can't be bound.
    """
    faults = [
        f"LLM_SHELL_{name.upper()}: can't change while the service runs (it is {getattr(old, name)}): restart it."
        for name in ("log_dir", "run_as", "bind", "host", "port")
        if getattr(new, name) != getattr(old, name)
    ]
    if faults:
        raise SettingsError(*faults)


def refuse(text: str) -> NoReturn:
    """Exit with this text as the reason."""
    sys.exit(f"LLM Shell does not start: {text}" if not text.startswith("LLM Shell") else text)
