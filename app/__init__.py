"""LLM Shell: start one shell command for a remote caller, watch it, read it, stop it, start it again."""

from __future__ import annotations

# Not typing's: the shim imports this package, and typing would cost it more than all that it does before a spawn.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from flask import Flask

    from app.config import Settings


def create_app(settings: Settings | None = None) -> Flask:
    """Build a WSGI application that serves by `settings` (default: those of the environment).

    Each log directory has one supervisor, which is `app.extensions["supervisor"]`; its `stop()` ends the run. Raises
    `SettingsError` when the environment's settings are faulty, `ConflictError` when the log directory can't be had.

    Flask is imported here and not above, because the shim imports `app.process` and must not pay for a web framework.
    """
    from app.api import build_app  # noqa: PLC0415 (see the docstring)
    from app.config import load_settings  # noqa: PLC0415 (see the docstring)
    from app.service import serve, supervisor  # noqa: PLC0415 (see the docstring)

    if settings is None:
        # Under gunicorn the master has read them; what a reload refused must not come in through the worker.
        settings = supervisor.settings if supervisor.claimed and supervisor.settings else load_settings()
    return build_app(settings, serve(settings))
