"""Runs in the worker: log once where the service listens, where its docs page is, and a first call to try."""

import logging
import mmap
from collections.abc import Sequence

from app.addresses import show
from app.config import PREFIX
from app.exceptions import LLMShellError
from app.service import supervisor

_log = logging.getLogger("gunicorn.error")
# One byte that master and workers share (mmap(2)), so that only the first worker to load the application logs.
_announced = mmap.mmap(-1, 1)
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  wildcard address to one that a client can connect to
_BODY = """-H 'Content-Type: application/json' -d '{"command": "echo hello"}'"""


def announce(names: Sequence[object], scheme: str) -> None:
    """Log three lines, once for all workers of a service; `names` are its sockets' addresses (getsockname(2)).

    The example starts a command, or asks for the status of a run that is still alive, since a start would be refused.
    """
    if _announced[0]:
        return
    _announced[0] = 1
    shown = [show(name) if _is_path(name) else f"{scheme}://{show(name)}" for name in names]
    curl, url = _curl_and_url(names[0], scheme)
    over = f" (over {shown[0]})" if _is_path(names[0]) else ""
    token = f'-H "Authorization: Bearer ${PREFIX}TOKEN" ' if supervisor.settings and supervisor.settings.token else ""
    _log.info("LLM Shell is up, at %s", " and ".join(shown))
    _log.info("The API as a page: %s/docs%s", url, over)
    call = f"{url}/status {token}" if _is_busy() else f"{url}/start {token}{_BODY}"
    _log.info("A first call: %s%s", curl, call.rstrip())


def _is_busy() -> bool:
    try:
        status = supervisor.processes.get_status()
    except LLMShellError:
        return False
    return status["status"] == "running" or bool(status["leftover_pids"])


def _is_path(name: object) -> bool:
    return isinstance(name, str | bytes)


def _curl_and_url(name: object, scheme: str) -> tuple[str, str]:
    """Return the curl command that connects to this address, and the beginning of the URL."""
    match name:
        case (str(host), int(port), *_):
            return "curl ", f"{scheme}://{show((_ANY.get(host, host), port))}"
        case _:
            return f"curl --unix-socket {show(name)} ", f"{scheme}://localhost"
