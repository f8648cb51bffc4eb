"""Runs in the worker: answer a plain GET /status, which agents poll, without Flask's overhead."""

from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from app.web.answers import encode


class QuickStatus:
    """Answer a plain GET /status itself, and leave every other request, and every failure, to the application.

    The check of the caller and the answer are the same as the route's.
    """

    def __init__(
        self,
        app: WSGIApplication,
        get_status: Callable[[], object],
        check_caller: Callable[[WSGIEnvironment], None],
        headers: dict[str, str],
    ) -> None:
        self._app = app
        self._get_status = get_status
        self._check_caller = check_caller
        self._headers = list(headers.items())

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        if not _is_plain_status(environ):
            return self._app(environ, start_response)
        try:
            self._check_caller(environ)
            body = encode(self._get_status())
        except Exception:  # noqa: BLE001  the application meets the same error, and answers it
            return self._app(environ, start_response)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *self._headers]
        start_response("200 OK", headers)
        return [body]


def _is_plain_status(environ: WSGIEnvironment) -> bool:
    """Tell whether this is GET /status without parameters, a body or an upgrade to another protocol."""
    return (
        environ["PATH_INFO"] == "/status"
        and environ["REQUEST_METHOD"] == "GET"
        and not environ.get("QUERY_STRING")
        and not environ.get("CONTENT_LENGTH")
        and "HTTP_TRANSFER_ENCODING" not in environ
        and "HTTP_UPGRADE" not in environ
    )
