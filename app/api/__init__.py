"""Runs in the worker: build the Flask application from the modules of calls."""

from flask import Flask

from app.api import docs, health, killing, logs, processes, runs, starting
from app.api.context import SUPERVISOR
from app.config import Settings
from app.supervisor.supervisor import Supervisor
from app.web import audit, auth, errors, places
from app.web.answers import QuickJSON
from app.web.bodies import MAX_BODY_BYTES
from app.web.openapi import ShellApi
from app.web.parsing import refuse_odd_requests
from app.web.problems import ANSWER_HEADERS
from app.web.proxy import TrustedProxies
from app.web.quick import QuickStatus


def build_app(settings: Settings, supervisor: Supervisor) -> Flask:
    """Build the Flask application with every route, check and error handler, over this supervisor."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES + 1  # see app/web/parsing.py
    app.extensions[SUPERVISOR] = supervisor
    app.json = QuickJSON(app)
    app.url_map.merge_slashes = False  # "/docs//x" is a 404 like any other wrong path, not a redirect
    places.register(app, settings.threads)
    check_caller = auth.protect(app, settings, docs.PATHS)
    app.before_request(refuse_odd_requests)
    quick = QuickStatus(app.wsgi_app, lambda: supervisor.processes.get_status(), check_caller, ANSWER_HEADERS)  # noqa: PLW0108  init_app() may replace the manager
    app.wsgi_app = TrustedProxies(quick, settings.trusted_proxies)  # type: ignore[method-assign]  # Flask's way
    errors.register(app)
    audit.register(app, settings)
    api = ShellApi(app, needs_token=settings.token is not None)
    for module in (starting, processes, killing, logs, runs, health, docs):
        api.register_blueprint(module.blueprint)
    app.register_blueprint(docs.assets)
    return app
