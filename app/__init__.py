"""Runs in every process of ours: the package of LLM Shell, and its application factory, for the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.config import Settings


def create_app(settings: Settings | None = None) -> Flask:
    """Build a WSGI application with these settings (default: those of the environment).

    Each log directory has one supervisor, which is `app.extensions["supervisor"]`; its `stop()` ends the run. Raises
    `SettingsError` when the environment's settings are faulty, `ConflictError` when the log directory is in use.

    Flask is imported here and not above, because the zygote imports `app.shim` and must not load a web framework.
    """
    from app.api import build_app  # noqa: PLC0415 (see the docstring)
    from app.config import load_settings  # noqa: PLC0415 (see the docstring)
    from app.service import serve, supervisor  # noqa: PLC0415 (see the docstring)

    if settings is None:
        # Under gunicorn the master has read them: a worker must not take those that a reload refused.
        settings = supervisor.settings if supervisor.claimed and supervisor.settings else load_settings()
    return build_app(settings, serve(settings))
