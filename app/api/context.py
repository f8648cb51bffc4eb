"""Runs in the worker: find the supervisor of the application that handles the current request."""

from typing import cast

from flask import current_app
from werkzeug.local import LocalProxy

from app.supervisor.supervisor import Supervisor

SUPERVISOR = "supervisor"  # the key among the app's extensions

supervisor = cast("Supervisor", LocalProxy(lambda: current_app.extensions[SUPERVISOR]))
