"""Runs in the worker: log one line for each /start, /kill and /restart: the peer, the request and its outcome."""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import chain, islice
from typing import Any

from flask import Flask, Response, g, request

from app.config import Settings
from app.web.redaction import HIDDEN, escape, make_holds, make_show

logger = logging.getLogger(__name__)
AUDITED: Mapping[str, str] = {"start.start": "start", "start.restart": "restart", "kill.kill": "kill"}
MAX_LINE = 2000  # bytes
# Characters of each text: enough to recognise a command, which the run record has whole, readable by its owner alone.
# Where the line would be too long, fewer.
SHOWN_TEXT = (200, 50, 10)
SHOWN_ENTRIES = 10
# Of a start, the command last: it is the longest.
ASKED = ("name", "if_running", "replace", "leftovers", "port", "stdin", "shell", "cwd", "command")
OUTCOME = ("run_id", "process_pid", "status", "exit_code", "escalated", "survivors")


def register(app: Flask, settings: Settings) -> None:
    """Log every start, kill and restart, refused ones included.

    The environment's values never appear, nor does the service's token, even inside a command. The request of a
    refused caller is not read; its line has the caller's address alone.
    """
    show, holds = make_show(settings.token), make_holds(settings.token)

    def note(response: Response) -> Response:
        call = AUDITED.get(request.endpoint or "")
        if call is not None and request.method == "POST":
            facts = _describe(call, response)
            # A refusal quotes shortened texts, and the part of a token before the cut would not be recognised.
            if "detail" in facts and any(map(holds, _sent())):
                facts["detail"] = HIDDEN
            logger.info("%s", _write(facts, show))
        return response

    app.after_request(note)


def _write(facts: dict[str, Any], show: Callable[[str, int], str]) -> str:
    line = ""
    for limit in SHOWN_TEXT:
        line = escape(json.dumps(_bound(facts, show, limit), ensure_ascii=False, separators=(",", ":")))
        if len(line.encode()) <= MAX_LINE:
            break
    return line


def _bound(value: Any, show: Callable[[str, int], str], limit: int) -> Any:
    """Return a JSON value with its texts redacted and its lists shortened."""
    match value:
        case str():
            return show(value, limit)
        case Mapping():
            return {show(name, limit): _bound(inner, show, limit) for name, inner in value.items()}
        case Sequence():
            rest = len(value) - SHOWN_ENTRIES
            shown = [_bound(inner, show, limit) for inner in value[:SHOWN_ENTRIES]]
            return [*shown, f"and {rest} more"] if rest > 0 else shown
        case float() if not math.isfinite(value):  # which JSON does not have
            return str(value)
        case int() if len(str(value)) > limit:  # of up to 4,300 digits
            return show(str(value), limit)
        case _:
            return value


def _describe(call: str, response: Response) -> dict[str, Any]:
    answer = response.get_json(silent=True)
    names = OUTCOME if response.status_code < HTTPStatus.BAD_REQUEST else ("detail",)
    outcome = {name: answer[name] for name in names if name in answer} if isinstance(answer, dict) else {}
    facts = {"audit": call, "from": request.remote_addr, "answer": response.status_code}
    return facts | _asked(call) | outcome | facts  # a parameter may have one of these names, and must not hide it


def _sent() -> Iterator[str]:
    """Yield each text of the request that was read."""
    if g.get("accepted"):
        yield from _texts([g.get("body", {}), *request.args.items(multi=True)])


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            yield from _texts([*value.keys(), *value.values()])
        case Sequence():
            for inner in value:
                yield from _texts(inner)


def _asked(call: str) -> dict[str, Any]:
    """Return the request's parameters, as far as they were read."""
    if not g.get("accepted"):
        return {}
    body: dict[str, Any] = g.get("body", {})
    if call != "start":
        single = (item for item in body.items() if not isinstance(item[1], Mapping | list))
        return dict(islice(chain(request.args.items(), single), SHOWN_ENTRIES))
    asked = {name: body[name] for name in ASKED if isinstance(body.get(name), str | bool | int)}
    if isinstance(body.get("env"), dict):
        asked["env_names"] = sorted(body["env"])
    return asked
