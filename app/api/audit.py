"""One line in the service's log for each call that changes the process: from where, what, and how it went."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from app.config import Settings

logger = logging.getLogger(__name__)
AUDITED: Mapping[str, str] = {"process.start": "start", "process.kill": "kill", "process.restart": "restart"}
# Enough to recognise a command by; the whole of it stands in the run record, which only the owner may read.
SHOWN_COMMAND = 200
OUTCOME = ("run_id", "process_pid", "status", "exit_code", "escalated", "survivors")


def register(app: Flask, settings: Settings) -> None:
    """Log every start, kill and restart, refused ones included.

    The environment's values never appear, nor does the service's token, should somebody put it into a command.
    """

    def note(response: Response) -> Response:
        call = AUDITED.get(request.endpoint or "")
        if call is not None and request.method == "POST":
            line = json.dumps(_describe(call, response), ensure_ascii=False, separators=(",", ":"))
            logger.info("%s", line.replace(settings.token, "***") if settings.token else line)
        return response

    app.after_request(note)


def _describe(call: str, response: Response) -> dict[str, Any]:
    answer = response.get_json(silent=True)
    told = OUTCOME if response.status_code < HTTPStatus.BAD_REQUEST else ("detail",)
    outcome = {name: answer[name] for name in told if name in answer} if isinstance(answer, dict) else {}
    return {"audit": call, "from": request.remote_addr, "answer": response.status_code} | _asked(call) | outcome


def _asked(call: str) -> dict[str, Any]:
    if call != "start":
        return dict(request.args)
    try:
        body = json.loads(request.get_data())
    except (ValueError, RecursionError, HTTPException):  # refused already, and told so in `detail`
        return {}
    if not isinstance(body, dict):
        return {}
    asked = {name: body[name] for name in ("cwd", "replace") if name in body}
    if isinstance(body.get("command"), str):
        asked["command"] = body["command"][:SHOWN_COMMAND]
    if isinstance(body.get("env"), dict):
        asked["env_names"] = sorted(body["env"])
    return asked
