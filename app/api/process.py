"""The calls that start, watch, end and start again the process."""

from __future__ import annotations

from typing import Any

from app.api import examples, places
from app.api.context import supervisor
from app.api.openapi import fails_with
from app.api.parsing import Blueprint, refuse_body
from app.api.schemas import KillQuery, KillSchema, RestartQuery, StartSchema, StatusQuery, StatusSchema

KILL_QUERY = KillQuery()
RESTART_QUERY = RestartQuery()
blueprint = Blueprint("process", __name__, description="Start, watch, kill and restart the one command.")


@blueprint.post("/start")
@blueprint.arguments(StartSchema(), as_kwargs=True, example=dict(examples.TRY))
@blueprint.response(
    201,
    StatusSchema,
    description="The command was started; the state at the moment of the spawn.",
    example=dict(examples.RUNNING),
)
@fails_with(examples.START)
def start(**request: Any) -> dict[str, Any]:
    """Start a command

    Answers at once, while the command runs on; read what it prints with GET /logs and its end from GET /status. 409
    when the last run is still alive, or something it left behind does not go by itself within 2 s: call POST /kill
    first, or send `"replace": true`.
    """
    with places.operation():
        return supervisor.start(**request)


@blueprint.get("/status")
@blueprint.arguments(StatusQuery(), location="query", as_kwargs=True)
@blueprint.response(
    200,
    StatusSchema,
    description="The state of the current run, the last one started, or of another.",
    example=dict(examples.RUNNING),
)
@fails_with(examples.STATUS)
def get_status(run_id: str | None = None) -> dict[str, Any]:
    """Tell the state of the current run, or how a past one ended

    The last run is answered for as long as it is kept, also after a restart of the service. 404 when nothing was
    started yet, or there is no such run.
    """
    return supervisor.get_status(run_id)


@blueprint.post("/kill")
@blueprint.arguments(KILL_QUERY, location="query", as_kwargs=True)
@blueprint.response(200, KillSchema, description="What was ended, and how.", example=dict(examples.KILLED))
@fails_with(examples.KILL)
def kill(signal_type: str, timeout: float) -> dict[str, Any]:
    """End the process and everything it started

    Answers when all of it is gone. Parameters go in the query string; a body is refused. 400 when it had ended already
    and left nothing behind. It joins or overtakes another operation that is under way, one of them at a time: a further
    one is 429 at once, before anything is done, but `type=SIGKILL` has a place of its own.
    """
    refuse_body(KILL_QUERY, "type=SIGKILL&timeout=2")
    with places.last_resort() if signal_type == "SIGKILL" else places.operation():
        return supervisor.kill(signal_type, timeout)


@blueprint.post("/restart")
@blueprint.arguments(RESTART_QUERY, location="query", as_kwargs=True)
@blueprint.response(
    200,
    StatusSchema,
    description="The new run at the moment of the spawn, with a log file of its own.",
    example=dict(examples.RUNNING),
)
@fails_with(examples.RESTART)
def restart(timeout: float | None = None) -> dict[str, Any]:
    """End the current run and start the same command again

    Same command, directory and environment. Works on a run that has ended, too. Parameters go in the query string; a
    body is refused.
    """
    refuse_body(RESTART_QUERY, "timeout=2")
    with places.operation():
        return supervisor.restart(timeout)
