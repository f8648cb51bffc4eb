"""Runs in the worker: what `details` of GET /status holds."""

from marshmallow import fields

from app.web.answers import AnswerSchema


class FailureSchema(AnswerSchema):
    """The newest run of a name that ended by itself with another code than 0, or by a signal."""

    run_id = fields.String(required=True)
    exit_code = fields.Integer(required=True)
    signal = fields.String(required=True, allow_none=True)
    stopped_at = fields.String(required=True, metadata={"format": "date-time"})
    lines = fields.List(
        fields.String(), required=True, metadata={"description": "The last 5 that it printed, without colours."}
    )


class ListenerSchema(AnswerSchema):
    """An address that a tree listens on, and the process that does."""

    address = fields.String(required=True)
    port = fields.Integer(required=True)
    pid = fields.Integer(required=True)


class MemberSchema(AnswerSchema):
    """A process of a tree."""

    pid = fields.Integer(required=True)
    ppid = fields.Integer(required=True)
    command_line = fields.String(required=True, metadata={"description": "Its first 80 characters."})
    cpu_percent = fields.Float(
        required=True, allow_none=True, metadata={"description": "As of the tree; null for one younger than that."}
    )
    memory_bytes = fields.Integer(required=True)


class DetailsSchema(AnswerSchema):
    """What costs a look at a run's processes and log."""

    last_output_at = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})
    total_lines = fields.Integer(
        required=True, allow_none=True, metadata={"description": "Lines printed so far; null when the log is gone."}
    )
    last_failure = fields.Nested(FailureSchema, required=True, allow_none=True)
    input = fields.Raw(required=True, allow_none=True, metadata={"description": "null: it can't be known yet."})
    ports = fields.List(fields.Nested(ListenerSchema), required=True)
    cpu_percent = fields.Float(
        required=True,
        allow_none=True,
        metadata={
            "description": "Of one processor, in the last whole second; null in the first second of asking, and again "
            "after a minute without."
        },
    )
    memory_bytes = fields.Integer(
        required=True, metadata={"description": "Of all members, without what they share: files and shared memory."}
    )
    members = fields.List(
        fields.Nested(MemberSchema), required=True, metadata={"description": "Oldest first, at most 100."}
    )
