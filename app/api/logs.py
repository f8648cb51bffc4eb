"""Runs in the worker: the call that reads a run's output."""

from collections.abc import Mapping
from typing import Any

from flask import Response
from marshmallow import ValidationError, fields, validate, validates_schema

from app.api import examples
from app.api.context import supervisor
from app.api.processes import NAME_DESCRIPTION
from app.web.answers import AnswerSchema
from app.web.fields import Name, Number, RequestSchema, Text, WholeNumber
from app.web.lingering import LONG_ANSWER_BYTES
from app.web.openapi import fails_with
from app.web.parsing import Blueprint
from app.web.streaming import answer_long, answer_short

_NOT_NEGATIVE = validate.Range(min=0, error="Must not be negative.")


class LogsQuery(RequestSchema):
    """The query of GET /logs."""

    lines = WholeNumber(
        validate=_NOT_NEGATIVE,
        metadata={
            "description": "Return the last N lines; 0 returns everything. Not together with `seconds`.",
            "example": 100,
        },
    )
    seconds = Number(
        validate=_NOT_NEGATIVE,
        metadata={
            "description": "Return the lines of the last S seconds; fractions allowed; 0 returns nothing. Not together "
            "with `lines`."
        },
    )
    name = Name(metadata={"description": NAME_DESCRIPTION})
    run_id = Text(metadata={"description": "The run to read, by its `run_id`. Default: the current run."})

    @validates_schema
    def check_one_limit(self, data: Mapping[str, Any], **_: object) -> None:
        """Refuse both limits at once."""
        if data.get("lines") is not None and data.get("seconds") is not None:
            raise ValidationError("Give lines or seconds, not both.", "seconds")


class LogsSchema(AnswerSchema):
    """A part of a run's output."""

    log_file = fields.String(required=True)
    total_lines = fields.Integer(required=True, metadata={"description": "The lines of the run so far."})
    lines_returned = fields.Integer(required=True, metadata={"description": "The lines in `content`."})
    content = fields.String(
        required=True,
        metadata={
            "description": "The lines joined with newlines, stdout and stderr together, as the process wrote them; "
            "bytes that are not UTF-8 are shown as \\xNN."
        },
    )
    truncated = fields.Boolean(
        metadata={"description": "true, and only then present, when older lines were asked for than are still kept."}
    )
    first_seq = fields.Integer(
        metadata={"description": "With `truncated`: the number of the oldest line still kept; the run's first was 1."}
    )


blueprint = Blueprint("logs", __name__, description="Read what the command printed.")


@blueprint.get("/logs")
@blueprint.arguments(LogsQuery(), location="query", as_kwargs=True)
@blueprint.response(200, LogsSchema, description="The lines asked for.", example=dict(examples.LINES))
@fails_with(examples.LOGS)
def get_logs(
    lines: int | None = None, seconds: float | None = None, name: str | None = None, run_id: str | None = None
) -> Response:
    """Read what a run has printed so far

    Works while the run goes on and after it ended. Without `lines` and `seconds` it returns everything, which may be
    very long: prefer `lines=100`. 429 when too many very long answers are being read already.
    """
    page = supervisor.open_logs(run_id, name, lines, seconds)
    return answer_long(page) if page.size_hint > LONG_ANSWER_BYTES else answer_short(page)
