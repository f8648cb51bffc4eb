"""What requests may hold and what answers look like; the descriptions are what an agent reads in /openapi.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, post_load, validate, validates_schema

from app.api.answers import AnswerSchema
from app.api.fields import Number, StrictBoolean, Text, Variables, WholeNumber
from app.api.parsing import MAX_VARIABLES, NO_SUCH_FIELD
from app.config import MAX_TIMEOUT, PREFIX

MAX_COMMAND_BYTES = 131_071  # Linux: MAX_ARG_STRLEN less the final NUL
SIGNALS = ("SIGTERM", "SIGKILL")
NO_COMMAND = "Give the command to run."
COMMAND_NOT_TEXT = "Must be one string, as you would type it into a shell: join a list with spaces and quotes."
NO_VALUE = 'Must be a string: send "" for an empty value, or leave the name out.'
VALUE_NOT_TEXT = 'Must be a string: put a number or a boolean in quotes, such as "3000".'
_NOT_NEGATIVE = validate.Range(min=0, error="Must not be negative.")
_TIMEOUT = validate.Range(0, MAX_TIMEOUT, error=f"Must be from 0 to {MAX_TIMEOUT} seconds.")


def check_text(text: str) -> None:
    """Refuse what no argument, path or environment of a Linux process can hold."""
    if "\0" in text:
        raise ValidationError("Must not contain a NUL character.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValidationError("Must be valid Unicode; it contains a lone surrogate.") from error


def _check_command(command: str) -> None:
    check_text(command)
    if not command.strip():
        raise ValidationError("Must not be blank.")
    if (size := len(command.encode("utf-8"))) > MAX_COMMAND_BYTES:
        raise ValidationError(
            f"Must be at most {MAX_COMMAND_BYTES} bytes of UTF-8, not {size}; put a longer script in a file and run it."
        )


def _check_cwd(path: str) -> None:
    check_text(path)
    if not path:
        raise ValidationError("Must not be empty: leave it out for the service's working directory.")


def _check_env_name(name: str) -> None:
    check_text(name)
    if not name or "=" in name:
        raise ValidationError("A variable's name must not be empty or contain '='.")
    if name.startswith(PREFIX):
        raise ValidationError(f"Names that begin with {PREFIX} are the service's own.")


class RequestSchema(Schema):
    """Word the faults that any request can have."""

    error_messages = {"unknown": NO_SUCH_FIELD, "type": "Must be an object."}  # noqa: RUF012  marshmallow declares it so; a ClassVar can't override


class StartSchema(RequestSchema):
    """The body of POST /start."""

    command = Text(
        required=True,
        validate=_check_command,
        error_messages={"required": NO_COMMAND, "null": NO_COMMAND, "invalid": COMMAND_NOT_TEXT},
        metadata={
            "description": "The shell command line to run, by `SHELL -c`: bash where the machine has one, else "
            "/bin/sh, unless the setting LLM_SHELL_SHELL names another. Not blank, no NUL, at most 131071 bytes.",
            "example": "npm run dev",
            "minLength": 1,
            "maxLength": MAX_COMMAND_BYTES,
        },
    )
    cwd = Text(
        allow_none=True,
        validate=_check_cwd,
        error_messages={"invalid": 'Must be one string, the path of a directory, such as "/srv/site".'},
        metadata={
            "description": "The directory to run it in: absolute, or relative to the service's working directory "
            "(the default, also for null).",
            "example": "/",
            "minLength": 1,
        },
    )
    env = Variables(
        keys=Text(validate=_check_env_name),
        values=Text(validate=check_text, error_messages={"null": NO_VALUE, "invalid": VALUE_NOT_TEXT}),
        allow_none=True,
        metadata={
            "description": "Environment variables to add to the process's, or to override. A name must not be empty, "
            "contain `=` or begin with `LLM_SHELL_`; at most 1000 of them. bash hands on other names than identifiers, "
            "too; where the shell is another, that drops them, they are refused. null adds none.",
            "example": {"PORT": "3000"},
            "maxProperties": MAX_VARIABLES,
        },
    )
    replace = StrictBoolean(
        allow_none=True,
        metadata={
            "description": "true: first end what is still alive of the current run, as POST /kill does, then start. "
            "false or null: answer 409 instead.",
            "default": False,
        },
    )

    @post_load
    def leave_out_nulls(self, data: Mapping[str, Any], **_: object) -> dict[str, Any]:
        """Take null for a field that was left out, as strict tool schemas have models send it."""
        return {name: value for name, value in data.items() if value is not None}


class StatusQuery(RequestSchema):
    """The query of GET /status."""

    run_id = Text(
        metadata={"description": "The run to tell of, by its `run_id`. Default: the current run."},
    )


class KillQuery(RequestSchema):
    """The query of POST /kill."""

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
        validate=_TIMEOUT,
        metadata={"description": "Seconds to wait after SIGTERM before SIGKILL; fractions allowed."},
    )


class RestartQuery(RequestSchema):
    """The query of POST /restart."""

    timeout = Number(
        validate=_TIMEOUT,
        metadata={
            "description": "Seconds to wait after SIGTERM before SIGKILL; fractions allowed. The default is the "
            "setting LLM_SHELL_DEFAULT_RESTART_TIMEOUT, normally 10.",
        },
    )


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
    run_id = Text(
        metadata={"description": "The run to read, by its `run_id`. Default: the current run."},
    )

    @validates_schema
    def check_one_limit(self, data: Mapping[str, Any], **_: object) -> None:
        """Refuse both limits at once."""
        if data.get("lines") is not None and data.get("seconds") is not None:
            raise ValidationError("Give lines or seconds, not both.", "seconds")


class StatusSchema(AnswerSchema):
    """A run's state, as /start, /status and /restart tell it."""

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
    stopped_at = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})
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
        required=True, allow_none=True, metadata={"description": "One sentence where one is needed."}
    )
    output_open = fields.Boolean(
        required=True,
        metadata={"description": "true while anything can still print: the log may grow though `status` is exited."},
    )
    leftover_pids = fields.List(
        fields.Integer(),
        required=True,
        metadata={"description": "What the command started and left alive after it ended. POST /kill ends these too."},
    )


class KillSchema(AnswerSchema):
    """What /kill did."""

    status = fields.String(
        required=True,
        validate=validate.OneOf(("running", "exited", "killed")),
        metadata={
            "description": "killed; exited when it had ended before and only leftovers were killed; running when it "
            "could not be killed."
        },
    )
    type = fields.String(required=True, validate=validate.OneOf(SIGNALS))
    exit_code = fields.Integer(required=True, allow_none=True)
    signal = fields.String(required=True, allow_none=True)
    reason = fields.String(required=True, allow_none=True)
    stopped_at = fields.String(required=True, allow_none=True, metadata={"format": "date-time"})
    escalated = fields.Boolean(
        required=True, metadata={"description": "true when SIGTERM was not enough and SIGKILL followed."}
    )
    survivors = fields.List(
        fields.Integer(),
        required=True,
        metadata={"description": "Pids still alive 2 seconds after SIGKILL; normally empty."},
    )


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


class HealthSchema(AnswerSchema):
    """The service's own state."""

    status = fields.String(required=True, validate=validate.Equal("healthy"))
    version = fields.String(required=True)
    uptime = fields.Integer(required=True, metadata={"description": "Whole seconds since the service came up."})


class ProblemSchema(AnswerSchema):
    """An error, as RFC 9457 has it; members beyond these tell more, such as the pids in the way."""

    class Meta:
        """Document that further members may come."""

        unknown = INCLUDE

    type = fields.String(required=True, metadata={"example": "about:blank"})
    title = fields.String(required=True, metadata={"description": "The status in words."})
    status = fields.Integer(required=True, metadata={"description": "The HTTP status."})
    detail = fields.String(required=True, metadata={"description": "One sentence that tells what to do."})
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata={"description": "For an invalid request: the messages for each field."},
    )
