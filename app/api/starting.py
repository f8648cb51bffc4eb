"""Runs in the worker: the calls that start and restart processes."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from marshmallow import ValidationError, post_load, validate, validates_schema

from app.api import examples
from app.api.context import supervisor
from app.api.processes import TIMEOUT, StatusSchema
from app.config import MAX_PORT, PREFIX
from app.runs.spec import DEFAULT_NAME, EMPTY, STDINS, Spec
from app.web import places
from app.web.fields import Name, Number, NumberWithin, RequestSchema, StrictBoolean, Text, Variables, check_text
from app.web.openapi import fails_with
from app.web.parsing import EITHER, MAX_VARIABLES, Blueprint

MAX_COMMAND_BYTES = 131_071  # Linux: MAX_ARG_STRLEN less the final NUL
IF_RUNNING = ("refuse", "replace", "reuse")
LEFTOVERS = ("refuse", "end", "leave")
NO_COMMAND = "Give the command to run."
COMMAND_NOT_TEXT = "Must be one string, as you would type it into a shell: join a list with spaces and quotes."
NO_VALUE = 'Must be a string: send "" for an empty value, or leave the name out.'
VALUE_NOT_TEXT = 'Must be a string: put a number or a boolean in quotes, such as "3000".'
NO_STDIN = 'Must be "empty" (at its end at once) or "open" (never at its end, though nothing comes).'


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


def _check_shell(path: str) -> None:
    check_text(path)
    if not path:
        raise ValidationError("Must not be empty: leave it out for the service's shell.")


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
    stdin = Text(
        allow_none=True,
        validate=validate.OneOf(STDINS, error=NO_STDIN),
        error_messages={"invalid": NO_STDIN},
        metadata={
            "description": "What the process's standard input is. empty: at its end at once. open: never at its end, "
            "though nothing comes, for programs that take that end for an order to end, as some watchers do.",
            "default": EMPTY,
        },
    )
    shell = Text(
        allow_none=True,
        validate=_check_shell,
        error_messages={"invalid": 'Must be one string, the absolute path of a shell, such as "/bin/dash".'},
        metadata={
            "description": "The absolute path of the shell that runs the command, by `-c`, instead of the setting "
            "LLM_SHELL_SHELL.",
            "example": "/bin/sh",
            "minLength": 1,
        },
    )
    port = NumberWithin(
        1,
        MAX_PORT,
        allow_none=True,
        metadata={
            "description": "The TCP port that the command is going to listen on; also PORT in its environment, unless "
            "`env` has one.",
            "example": 3000,
        },
    )
    name = Name(
        allow_none=True,
        metadata={
            "description": "What to call the process: each name has one current run, and different names never touch "
            "or wait for each other. Calls without a name mean `default`.",
            "default": DEFAULT_NAME,
        },
    )
    if_running = Text(
        allow_none=True,
        validate=validate.OneOf(IF_RUNNING, error="Must be refuse, replace or reuse."),
        metadata={
            "description": "What to do while the process of this name lives. refuse: answer 409. replace: end it "
            "first, as POST /kill does, but for its daemons, then start. reuse: answer 200 with the live run and "
            '`"started": false` where it was started in the same way, else 409 that names what differs.',
            "default": "refuse",
        },
    )
    replace = StrictBoolean(
        allow_none=True,
        metadata={"description": 'true: the same as `"if_running": "replace"`.', "default": False},
    )
    leftovers = Text(
        allow_none=True,
        validate=validate.OneOf(LEFTOVERS, error="Must be refuse, end or leave."),
        metadata={
            "description": "What to do with what an ended run has left running. refuse: wait up to 2 s for it to end, "
            "then answer 409. end: end it first. leave: let it run; POST /kill?run_id= ends it.",
            "default": "refuse",
        },
    )

    @validates_schema
    def check_replace(self, data: Mapping[str, Any], **_: object) -> None:
        """Refuse two wishes that contradict each other."""
        replace, if_running = data.get("replace"), data.get("if_running")
        if None not in (replace, if_running) and replace != (if_running == "replace"):
            raise ValidationError("Contradicts replace: give one of the two.", "if_running")
        if data.get("leftovers") == "leave" and (replace or if_running == "replace"):
            raise ValidationError("Contradicts replace, which ends them: leave out one of the two.", "leftovers")

    @post_load
    def make_spec(self, data: Mapping[str, Any], **_: object) -> dict[str, Any]:
        """Take null for a field that was left out, as strict tool schemas have models send it."""
        given = {name: value for name, value in data.items() if value is not None}
        options = {name: given.pop(name) for name in ("name", "if_running", "leftovers") if name in given}
        if given.pop("replace", False):
            options["if_running"] = "replace"
        return {"spec": Spec(**given), "options": options}


class RestartQuery(RequestSchema):
    """The query of POST /restart, or its body."""

    name = Name(load_default=DEFAULT_NAME, metadata={"description": "The process, by its name."})

    timeout = Number(
        validate=TIMEOUT,
        metadata={
            "description": "Seconds to wait after SIGTERM before SIGKILL; fractions allowed. The default is the "
            "setting LLM_SHELL_DEFAULT_RESTARTTIMEOUT, normally 10.",
        },
    )


blueprint = Blueprint("start", __name__, description="Start commands, each under a name, and start them again.")


@blueprint.post("/start")
@blueprint.arguments(StartSchema(), as_kwargs=True, example=dict(examples.TRY))
@blueprint.response(
    201,
    StatusSchema,
    description="The command was started; the state at the moment of the spawn.",
    example=dict(examples.RUNNING),
)
@blueprint.alt_response(
    200, schema=StatusSchema, description="It runs already, and is reused.", example=dict(examples.REUSED)
)
@fails_with(examples.START)
def start(spec: Spec, options: dict[str, Any]) -> tuple[dict[str, Any], HTTPStatus]:
    """Start a command

    Answers at once, while the command runs on; read what it prints with GET /logs and its end from GET /status. 409
    when the last run of that name is still alive, or leftovers of it do not end by themselves within 2 s: call POST
    /kill first, or send `"replace": true`. Its daemons live on beside the new run. 409 also when too many names live
    already.
    """
    with places.operation(options.get("name", DEFAULT_NAME)):
        status = supervisor.processes.start(spec, **options)
    return status, HTTPStatus.OK if status.get("started") is False else HTTPStatus.CREATED


@blueprint.post("/restart")
@blueprint.arguments(RestartQuery(), location=EITHER, as_kwargs=True)
@blueprint.response(
    200,
    StatusSchema,
    description="The new run at the moment of the spawn, with a log file of its own.",
    example=dict(examples.RUNNING),
)
@fails_with(examples.RESTART)
def restart(name: str, timeout: float | None = None) -> dict[str, Any]:
    """End a process's current run and start the same command again

    Same command, directory, environment and all else that its start asked for. Works on a run that has ended, too.
    Parameters go in the query string or in a JSON body, not in both.
    """
    with places.operation(name):
        return supervisor.processes.restart(timeout, name=name)
