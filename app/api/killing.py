"""Runs in the worker: the call that ends processes."""

from collections.abc import Mapping
from typing import Any

from flask import Response, jsonify
from marshmallow import ValidationError, fields, validate, validates_schema

from app.api import examples
from app.api.context import supervisor
from app.api.processes import NAME_DESCRIPTION, TIMEOUT, OutcomeSchema
from app.runs.spec import DEFAULT_NAME
from app.web import places
from app.web.answers import AnswerSchema
from app.web.fields import Name, Number, RequestSchema, StrictBoolean, Text
from app.web.openapi import fails_with
from app.web.parsing import EITHER, Blueprint

SIGNALS = ("SIGTERM", "SIGKILL")


class KillQuery(RequestSchema):
    """The query of POST /kill, or its body."""

    name = Name(metadata={"description": NAME_DESCRIPTION})
    run_id = Text(metadata={"description": "A past run, of which what lives is to be ended."})
    every = StrictBoolean(
        data_key="all",
        load_default=False,
        metadata={"description": "true: end every tree of every process, side by side. Not with `name` or `run_id`."},
    )

    signal_type = Text(
        data_key="type",
        load_default="SIGTERM",
        validate=validate.OneOf(SIGNALS, error="Must be SIGTERM or SIGKILL."),
        metadata={
            "description": "SIGTERM asks the processes to end and sends SIGKILL to those alive after `timeout`; "
            "SIGKILL ends them at once.",
        },
    )
    timeout = Number(
        load_default=5.0,
        validate=TIMEOUT,
        metadata={"description": "Seconds to wait after SIGTERM before SIGKILL; fractions allowed."},
    )

    @validates_schema
    def check_which(self, data: Mapping[str, Any], **_: object) -> None:
        """Refuse `all` beside one that is named."""
        if data.get("every") and (data.keys() & {"name", "run_id"}):
            raise ValidationError("Stands alone: give a name or a run_id, or all.", "all")


class HeldPortSchema(AnswerSchema):
    """A port on which something listens after its tree has gone."""

    port = fields.Integer(required=True)
    pid = fields.Integer(required=True, allow_none=True, metadata={"description": "null where it can't be read."})
    command_line = fields.String(required=True, allow_none=True, metadata={"description": "Its first 80 characters."})


class PortsSchema(AnswerSchema):
    """The TCP ports that a tree listened on, as they are after its end."""

    freed = fields.List(fields.Integer(), required=True, metadata={"description": "Nothing listens on these any more."})
    held = fields.List(fields.Nested(HeldPortSchema), required=True)


class KillSchema(OutcomeSchema):
    """The result of POST /kill."""

    status = fields.String(
        required=True,
        validate=validate.OneOf(("running", "exited", "killed")),
        metadata={
            "description": "killed; exited when it had ended before and only leftovers were killed; running when it "
            "could not be killed."
        },
    )
    type = fields.String(required=True, validate=validate.OneOf(SIGNALS))
    escalated = fields.Boolean(
        required=True, metadata={"description": "true when SIGTERM was not enough and SIGKILL followed."}
    )
    survivors = fields.List(
        fields.Integer(),
        required=True,
        metadata={"description": "Pids still alive 2 seconds after SIGKILL; normally empty."},
    )
    ports = fields.Nested(
        PortsSchema, required=True, metadata={"description": "What became of the ports that the tree listened on."}
    )


class KilledProcessSchema(KillSchema):
    """The result of POST /kill?all=true for one process."""

    name = fields.String(required=True)


class KillAllSchema(AnswerSchema):
    """The result of POST /kill?all=true."""

    killed = fields.List(fields.Nested(KilledProcessSchema), required=True)
    survivors = fields.List(fields.Integer(), required=True, metadata={"description": "Those of all of them."})


blueprint = Blueprint("kill", __name__, description="End processes, with all that they started.")


@blueprint.post("/kill")
@blueprint.arguments(KillQuery(), location=EITHER, as_kwargs=True)
@blueprint.response(
    200,
    {"oneOf": [KillSchema, KillAllSchema]},
    description="What was ended, and how; with `all` of each process.",
    example=dict(examples.KILLED),
)
@fails_with(examples.KILL)
def kill(signal_type: str, timeout: float, *, every: bool, **which: str) -> Response:
    """End a process and everything it started

    Answers when all of it is gone. Parameters go in the query string or in a JSON body, not in both. 400 when it had
    ended already and left nothing behind. It joins or overtakes an operation that is under way. A third operation at a
    time is 429 at once, before anything is done, but `type=SIGKILL` has a place of its own. With `all=true` it ends
    every tree, and is 200 also when there was none.
    """
    forced = signal_type == "SIGKILL"
    if every:
        with places.forced_kill_all() if forced else places.kill_all():
            return jsonify(supervisor.processes.kill_all(signal_type, timeout))
    place = which.get("name") or which.get("run_id") or DEFAULT_NAME
    with places.forced_kill(place) if forced else places.operation(place):
        return jsonify(supervisor.processes.kill(signal_type, timeout, **which))
