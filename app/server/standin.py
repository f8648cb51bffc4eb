"""Runs in the worker: answer every request with a 500 while the application can't be loaded, and keep trying."""

import hmac
import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from app.addresses import is_loopback, split_port
from app.exceptions import LLMShellError
from app.service import supervisor
from app.web.problems import head_and_body

RETRY_INTERVAL = 1.0
# How long a request waits for the result of an attempt that is under way.
TRY_TIMEOUT = 5.0
_log = logging.getLogger("gunicorn.error")


class StandIn:
    """Load the application as soon as that works; until then answer with the reason, to callers that may see paths.

    `on_loaded` gets the application, which then replaces this one.
    """

    def __init__(self, load: Callable[[], Any], on_loaded: Callable[[Any], None]) -> None:
        self._load = load
        self._on_loaded = on_loaded
        self._trying = threading.Lock()
        self._tried_at = 0.0
        self._words = ""
        self._application: WSGIApplication | None = None

    def try_to_load(self) -> WSGIApplication | None:
        """Load it, at most once a second and in one thread at a time."""
        if time.monotonic() - self._tried_at < RETRY_INTERVAL or not self._trying.acquire(blocking=False):
            return None
        try:
            importlib.invalidate_caches()  # they compare directories' mtimes, which are coarse
            application: WSGIApplication = self._load()
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever the reason, it is logged and answered
            self._note(error)
            return None
        else:
            self._application = application
            self._on_loaded(application)
            return application
        finally:
            self._tried_at = time.monotonic()
            self._trying.release()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer by the application, if it can be loaded now, or with a 500."""
        application = self.try_to_load() or self._await_other_try()
        if application is not None:
            return application(environ, start_response)
        why = f": {self._words}" if _may_see_reason(environ) else "; its log has the reason"
        detail = f"The service can't be brought up{why}. It tries again by itself; a running command goes on."
        headers, body = head_and_body(HTTPStatus.INTERNAL_SERVER_ERROR, detail)
        start_response("500 Internal Server Error", list(headers.items()))
        return [body]

    def _await_other_try(self) -> WSGIApplication | None:
        """Return the application that another thread has loaded, waiting for an attempt that is under way."""
        if self._trying.acquire(timeout=TRY_TIMEOUT):
            self._trying.release()
        return self._application

    def _note(self, error: BaseException) -> None:
        words = error.detail if isinstance(error, LLMShellError) else f"{type(error).__name__}: {error}"
        words = words.rstrip(".")
        if words != self._words:
            _log.error("The application can't be loaded: %s. The worker tries again.", words, exc_info=error)
        self._words = words


def _may_see_reason(environ: WSGIEnvironment) -> bool:
    """Tell whether the caller has the token or, where none is set, is a program of this machine and not a web page."""
    settings = supervisor.settings
    if settings is None:
        return False
    if settings.token is not None:
        given = environ.get("HTTP_AUTHORIZATION", "").encode("utf-8", "replace")
        return hmac.compare_digest(given, b"Bearer " + settings.token.encode())
    name = split_port(environ.get("HTTP_HOST", "").lower())
    return name is not None and is_loopback(name.strip("[]")) and "HTTP_ORIGIN" not in environ
