"""Runs in the worker: the calls that start, watch, kill and restart the process."""

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError, fields, post_load, validate

from app.api import examples
from app.api.context import supervisor
from app.config import MAX_TIMEOUT, PREFIX
from app.runs.spec import Spec
from app.web import places
from app.web.answers import AnswerSchema
from app.web.fields import Number, RequestSchema, StrictBoolean, Text, Variables, check_text
from app.web.openapi import fails_with
from app.web.parsing import EITHER, MAX_VARIABLES, Blueprint

MAX_COMMAND_BYTES = 131_071  # Linux: MAX_ARG_STRLEN less the final NUL
SIGNALS = ("SIGTERM", "SIGKILL")
NO_COMMAND = "Give the command to run."
COMMAND_NOT_TEXT = "Must be one string, as you would type it into a shell: join a list with spaces and quotes."
NO_VALUE = 'Must be a string: send "" for an empty value, or leave the name out.'
VALUE_NOT_TEXT = 'Must be a string: put a number or a boolean in quotes, such as "3000".'
_TIMEOUT = validate.Range(0, MAX_TIMEOUT, error=f"Must be from 0 to {MAX_TIMEOUT} seconds.")


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
        raise ValidationError(f"Names that begin with {PREFIX} are the service's own: leave it out.")


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
            "contain `=` or begin with `LLM_SHELL_`; at most 1000 of them. Names that the shell "
            "would drop, as shells other than bash may, are refused. null adds none.",
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
    def make_spec(self, data: Mapping[str, Any], **_: object) -> dict[str, Any]:
        """Take null for a field that was left out, as strict tool schemas have models send it."""
        given = {name: value for name, value in data.items() if value is not None}
        return {"replace": given.pop("replace", False), "spec": Spec(**given)}


class StatusQuery(RequestSchema):
    """The query of GET /status."""

    run_id = Text(metadata={"description": "The run to report on, by its `run_id`. Default: the current run."})


class KillQuery(RequestSchema):
    """The query of POST /kill, or its body."""

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
    """The query of POST /restart, or its body."""

    timeout = Number(
        validate=_TIMEOUT,
        metadata={
            "description": "Seconds to wait after SIGTERM before SIGKILL; fractions allowed. The default is the "
            "setting LLM_SHELL_DEFAULT_RESTART_TIMEOUT, normally 10.",
        },
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


class StatusSchema(OutcomeSchema):
    """A run's state, as /start, /status and /restart report it."""

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
        metadata={"description": "Processes that the command started and that outlive it. POST /kill ends them, too."},
    )


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
def start(spec: Spec, *, replace: bool) -> dict[str, Any]:
    """Start a command

    Answers at once, while the command runs on; read what it prints with GET /logs and its end from GET /status. 409
    when the last run is still alive, or something it left behind does not end by itself within 2 s: call POST /kill
    first, or send `"replace": true`.
    """
    with places.operation():
        return supervisor.processes.start(spec, if_running="replace" if replace else "refuse")


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
    """Return the state of the current run, or how a past one ended

    The last run is reported on for as long as it is kept, also after a restart of the service. 404 when nothing was
    started yet, or there is no such run.
    """
    return supervisor.processes.get_status(run_id)


@blueprint.post("/kill")
@blueprint.arguments(KillQuery(), location=EITHER, as_kwargs=True)
@blueprint.response(200, KillSchema, description="What was ended, and how.", example=dict(examples.KILLED))
@fails_with(examples.KILL)
def kill(signal_type: str, timeout: float) -> dict[str, Any]:
    """End the process and everything it started

    Answers when all of it is gone. Parameters go in the query string or in a JSON body, not in both. 400 when it had
    ended already and left nothing behind. It joins or overtakes an operation that is under way. A third operation at a
    time is 429 at once, before anything is done, but `type=SIGKILL` has a place of its own.
    """
    with places.forced_kill() if signal_type == "SIGKILL" else places.operation():
        return supervisor.processes.kill(signal_type, timeout)


@blueprint.post("/restart")
@blueprint.arguments(RestartQuery(), location=EITHER, as_kwargs=True)
@blueprint.response(
    200,
    StatusSchema,
    description="The new run at the moment of the spawn, with a log file of its own.",
    example=dict(examples.RUNNING),
)
@fails_with(examples.RESTART)
def restart(timeout: float | None = None) -> dict[str, Any]:
    """End the current run and start the same command again

    Same command, directory and environment. Works on a run that has ended, too. Parameters go in the query string or
    in a JSON body, not in both.
    """
    with places.operation():
        return supervisor.processes.restart(timeout)
