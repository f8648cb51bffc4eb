"""Runs in the worker: the calls that tell how processes are, and what all calls tell of one."""

from typing import Any

from marshmallow import fields, validate

from app.api import examples
from app.api.context import supervisor
from app.api.details import DetailsSchema
from app.config import MAX_TIMEOUT
from app.web.answers import AnswerSchema
from app.web.fields import Name, NumberWithin, RequestSchema, StrictBoolean, Text
from app.web.openapi import fails_with
from app.web.parsing import Blueprint

# Of GET /processes, by default and at most.
MAX_LISTED = 100
NAME_DESCRIPTION = "The process, by its name. Default: `default`, or the one whose run `run_id` is."
TIMEOUT = validate.Range(0, MAX_TIMEOUT, error=f"Must be from 0 to {MAX_TIMEOUT} seconds.")


class StatusQuery(RequestSchema):
    """The query of GET /status."""

    name = Name(metadata={"description": NAME_DESCRIPTION})
    run_id = Text(metadata={"description": "The run to report on, by its `run_id`. Default: the current run."})
    details = StrictBoolean(
        load_default=False,
        metadata={"description": "true: add `details`: its ports, members and load, and how its name last failed."},
    )


class ProcessesQuery(RequestSchema):
    """The query of GET /processes."""

    limit = NumberWithin(
        1,
        MAX_LISTED,
        load_default=MAX_LISTED,
        metadata={"description": "How many to list at most."},
    )


class OutcomeSchema(AnswerSchema):
    """How a run ended, if it did."""

    exit_code = fields.Integer(
        required=True,
        allow_none=True,
        metadata={
            "description": "-15 for a death by SIGTERM, and so on; null while it runs, or with a `reason` when unknown."
        },
    )
    signal = fields.String(
        required=True, allow_none=True, metadata={"description": "The signal that ended it, such as SIGTERM, or null."}
    )
    reason = fields.String(
        required=True, allow_none=True, metadata={"description": "Facts that no other field has, or null."}
    )
    stopped_at = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})


class DaemonSchema(AnswerSchema):
    """A process that a command has left behind in a session of its own, without its output."""

    pid = fields.Integer(required=True)
    name = fields.String(required=True, metadata={"example": "gpg-agent"})


class StatusSchema(OutcomeSchema):
    """A run's state, as /start, /status and /restart report it."""

    name = fields.String(required=True, metadata={"description": "The process whose run it is."})
    status = fields.String(
        required=True,
        validate=validate.OneOf(("running", "exited", "killed")),
        metadata={
            "description": "running; exited: it ended by itself; killed: the service ended it, and `reason` says why."
        },
    )
    process_pid = fields.Integer(
        required=True,
        allow_none=True,
        metadata={
            "description": "The pid of the command's shell; null for a run that was cut short before it had one."
        },
    )
    command = fields.String(required=True)
    run_id = fields.String(
        required=True,
        metadata={"description": "Names this run, as in GET /logs?run_id=.", "example": "2026-11-22_06-08-00"},
    )
    log_file = fields.String(required=True, metadata={"description": "The absolute path of the run's log."})
    created_at = fields.String(required=True, metadata={"format": "date-time"})
    output_open = fields.Boolean(
        required=True,
        metadata={"description": "true while anything can still print: the log may grow though `status` is exited."},
    )
    leftover_pids = fields.List(
        fields.Integer(),
        required=True,
        metadata={
            "description": "Processes that the command started and that outlive it, as far as they hold its output or "
            "are in its session. POST /kill ends them, too."
        },
    )
    daemons = fields.List(
        fields.Nested(DaemonSchema),
        required=True,
        metadata={
            "description": "Others that outlive it, at most 20. No start waits for them or ends them; POST /kill does."
        },
    )
    restarts = fields.Integer(required=True, metadata={"description": "How often a policy has started it again."})
    next_start_at = fields.String(
        required=True, allow_none=True, metadata={"format": "date-time", "description": "When a policy starts it next."}
    )
    limit = fields.String(required=True, allow_none=True, metadata={"description": "The limit that ended it, or null."})
    started = fields.Boolean(
        metadata={"description": "false, and only then present, where `if_running` had the live run reused."}
    )
    details = fields.Nested(DetailsSchema, metadata={"description": "Present with `details=true` alone."})


class ProcessSchema(AnswerSchema):
    """One line of GET /processes."""

    name = fields.String(required=True)
    status = fields.String(required=True, validate=validate.OneOf(("running", "exited", "killed")))
    run_id = fields.String(required=True)
    process_pid = fields.Integer(required=True, allow_none=True)
    command = fields.String(required=True, metadata={"description": "At most 200 characters of it."})
    created_at = fields.String(required=True, metadata={"format": "date-time"})
    stopped_at = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})
    exit_code = fields.Integer(required=True, allow_none=True)
    restarts = fields.Integer(required=True)
    next_start_at = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})
    leftovers = fields.Integer(required=True, metadata={"description": "How many processes it has left running."})


class ProcessesSchema(AnswerSchema):
    """The named processes."""

    processes = fields.List(fields.Nested(ProcessSchema), required=True)


blueprint = Blueprint("status", __name__, description="Watch processes.")


@blueprint.get("/status")
@blueprint.arguments(StatusQuery(), location="query", as_kwargs=True)
@blueprint.response(
    200,
    StatusSchema,
    description="The state of the current run, the last one started, or of another.",
    example=dict(examples.RUNNING),
)
@fails_with(examples.STATUS)
def get_status(*, details: bool, name: str | None = None, run_id: str | None = None) -> dict[str, Any]:
    """Return the state of a process's current run, or how a past one ended

    The last run is reported on for as long as it is kept, also after a restart of the service. 404 when nothing was
    started yet, or there is no such run.
    """
    status = supervisor.processes.get_status(run_id, name)
    if details:
        status["details"] = supervisor.processes.details_of(status["run_id"])
    return status


@blueprint.get("/processes")
@blueprint.arguments(ProcessesQuery(), location="query", as_kwargs=True)
@blueprint.response(200, ProcessesSchema, description="The processes, live ones first.", example=dict(examples.LISTED))
@fails_with(examples.PROCESSES)
def get_processes(limit: int) -> dict[str, Any]:
    """List every process whose last run is kept, live ones first

    GET /status?name= has the whole of one.
    """
    return {"processes": supervisor.processes.overview(limit)}
