"""Runs in the master: warn at the start about files of the service that commands could read, serve or change."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from app.config import ENV_FILE, Settings
from app.linux.account import Account, look_up
from app.server.reach import changeable_by, readable_by, usable_by
from app.supervisor.zygote import SITE_PACKAGES

_REMEDY = {
    str(ENV_FILE): f"give the settings in the environment instead of {ENV_FILE}",
    "logs": "set LLM_SHELL_LOG_DIR to a directory outside of it",
}
ROOT = Path(__file__).resolve().parents[2]


def exposures(settings: Settings, directory: Path) -> Iterator[str]:
    """Yield warnings about service files in this directory, and about paths that `RUN_AS` can't use or could change.

    Warnings, not refusals: a user's own directory is a natural place to start the service in.
    """
    if settings.run_as is None:
        yield from _exposed(settings, directory, None)
        return
    account = look_up(settings.run_as)[0]
    yield from _changeable(settings.run_as, account, directory)
    usable = usable_by(account, [directory, Path(settings.shell)])
    if directory in usable:
        yield from _exposed(settings, directory, account)
    else:
        yield (
            f"LLM_SHELL_RUN_AS: {settings.run_as!r} can't enter {directory}, where commands without a "
            'cwd begin: send "cwd", or start the service in a directory that this user may enter.'
        )
    if Path(settings.shell) not in usable:
        yield f"LLM_SHELL_RUN_AS: {settings.run_as!r} can't execute the shell {settings.shell}: no command will start."


def _changeable(user: str, account: Account, directory: Path) -> Iterator[str]:
    """Name the service's files that the commands' user could change although the service runs as root.

    Only a later start or reload reads them, so a warning is enough.
    """
    code = [ROOT / "wsgi.py", ROOT / "gunicorn.conf.py", *(ROOT / "app").rglob("*")]  # compiled code included
    paths = [directory, directory / ENV_FILE, Path(sys.executable), Path(SITE_PACKAGES), *code]
    if found := changeable_by(account, paths):
        named = ", ".join(str(path) for path in found if path.parent not in found)
        yield (
            f"LLM_SHELL_RUN_AS does not protect the service from {user!r}: that user may write to {named}, and so "
            "give this service, which runs as root, other settings or other code. Take the right away, or start the "
            "service elsewhere."
        )


def _exposed(settings: Settings, directory: Path, account: Account | None) -> Iterator[str]:
    """Warn of a settings file and logs that `python3 -m http.server`, tar or git add in the directory would include."""
    own = {directory / ENV_FILE: str(ENV_FILE), settings.log_dir: "logs"}
    inside = [path for path in own if path.exists() and _is_below(path, directory)]
    if account is not None:
        inside = readable_by(account, inside)
    if inside:
        remedies = " and ".join(_REMEDY[own[path]] for path in inside)
        yield (
            f"Commands begin in {directory}, which holds this service's {' and '.join(own[path] for path in inside)}: "
            f'send "cwd" for one that serves or packs up its directory, or {remedies}.'
        )


def _is_below(path: Path, directory: Path) -> bool:
    """Tell whether this can be reached through the directory: it lies there, or a symbolic link to it does."""
    named = Path(os.path.normpath(path))
    return named.is_relative_to(directory) or path.resolve().is_relative_to(directory.resolve())
