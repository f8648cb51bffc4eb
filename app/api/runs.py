"""Runs in the worker: the call that lists runs."""

from typing import Any

from marshmallow import fields, validate

from app.api import examples
from app.api.context import supervisor
from app.api.processes import OutcomeSchema
from app.web.answers import AnswerSchema
from app.web.fields import Name, NumberWithin, RequestSchema, Text
from app.web.openapi import fails_with
from app.web.parsing import Blueprint

MOST = 100


class RunsQuery(RequestSchema):
    """The query of GET /runs."""

    name = Name(metadata={"description": "List the runs of this name alone. Default: those of all names."})
    limit = NumberWithin(
        1,
        MOST,
        load_default=20,
        metadata={"description": f"List at most this many runs, up to {MOST}."},
    )
    before = Text(
        metadata={"description": "Go on after this run, the `next` of the page before. Default: begin with the newest."}
    )


class RunSchema(OutcomeSchema):
    """One run in the list."""

    run_id = fields.String(required=True, metadata={"description": "GET /status and GET /logs take it."})
    name = fields.String(required=True)
    command = fields.String(required=True, metadata={"description": "Cut at 200 characters; /status has it whole."})
    status = fields.String(required=True, validate=validate.OneOf(("running", "exited", "killed")))
    created_at = fields.String(required=True, metadata={"format": "date-time"})
    total_lines = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "The lines of the run so far; null when its log was removed."},
    )
    log_bytes = fields.Integer(required=True, metadata={"description": "The size of its log on disk."})
    leftovers = fields.Integer(
        required=True, metadata={"description": "How many processes that the command started outlive it."}
    )


class RunsSchema(AnswerSchema):
    """A page of runs, the newest first."""

    runs = fields.List(fields.Nested(RunSchema), required=True)
    next = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "Give this as `before` for the next page; null when there is none."},
    )


blueprint = Blueprint("runs", __name__, description="Look back at what has run.")


@blueprint.get("/runs")
@blueprint.arguments(RunsQuery(), location="query", as_kwargs=True)
@blueprint.response(200, RunsSchema, description="The runs that are kept.", example=dict(examples.RUNS))
@fails_with(examples.RUN_LIST)
def list_runs(limit: int, name: str | None = None, before: str | None = None) -> dict[str, Any]:
    """List the runs that are kept, the newest first

    Those of earlier services included. The list is empty where nothing was started yet, or no run of `name` is kept.
    404 where `before` is not kept any more: begin again without it.
    """
    return supervisor.runs(name, limit, before)
