"""The HTTP room: the only code that knows requests, answers and status codes."""

from __future__ import annotations

from flask import Flask

from app.api import audit, auth, docs, errors, health, logs, places, process
from app.api.answers import QuickJSON
from app.api.context import SUPERVISOR
from app.api.openapi import ShellApi
from app.api.parsing import refuse_odd_requests
from app.api.proxy import TrustedProxies
from app.api.quick import QuickStatus
from app.bodies import MAX_BODY_BYTES
from app.config import Settings
from app.problems import ANSWER_HEADERS
from app.supervisor.supervisor import Supervisor


def build_app(settings: Settings, supervisor: Supervisor) -> Flask:
    """Build the Flask application with every route, check and error handler; it answers for what `supervisor` has."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES + 1  # see where bodies are read
    app.extensions[SUPERVISOR] = supervisor
    app.json = QuickJSON(app)
    app.url_map.merge_slashes = False  # "/docs//x" is a 404 like any other wrong path, not a redirect
    places.register(app, settings.threads)
    check_caller = auth.protect(app, settings)
    app.before_request(refuse_odd_requests)
    quick = QuickStatus(app.wsgi_app, supervisor, check_caller, ANSWER_HEADERS)
    app.wsgi_app = TrustedProxies(quick, settings.trusted_proxies)  # type: ignore[method-assign]  # Flask's way
    errors.register(app)
    audit.register(app, settings)
    api = ShellApi(app, needs_token=settings.token is not None)
    for blueprint in (process.blueprint, logs.blueprint, health.blueprint, docs.blueprint):
        api.register_blueprint(blueprint)
    app.register_blueprint(docs.assets)
    return app
