"""What belongs to the application that a request came to, as each has its own."""

from __future__ import annotations

from typing import cast

from flask import current_app
from werkzeug.local import LocalProxy

from app.supervisor.supervisor import Supervisor

SUPERVISOR = "supervisor"  # the key among the app's extensions

supervisor = cast("Supervisor", LocalProxy(lambda: current_app.extensions[SUPERVISOR]))
