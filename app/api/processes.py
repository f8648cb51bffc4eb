"""Runs in the worker: the calls that start, watch, kill and restart processes."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Response, jsonify
from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from app.api import examples
from app.api.context import supervisor
from app.api.details import DetailsSchema
from app.config import MAX_PORT, MAX_TIMEOUT, PREFIX
from app.runs.spec import DEFAULT_NAME, EMPTY, STDINS, Spec
from app.web import places
from app.web.answers import AnswerSchema
from app.web.fields import Name, Number, RequestSchema, StrictBoolean, Text, Variables, WholeNumber, check_text
from app.web.openapi import fails_with
from app.web.parsing import EITHER, MAX_VARIABLES, Blueprint

MAX_COMMAND_BYTES = 131_071  # Linux: MAX_ARG_STRLEN less the final NUL
SIGNALS = ("SIGTERM", "SIGKILL")
IF_RUNNING = ("refuse", "replace", "reuse")
LEFTOVERS = ("refuse", "end", "leave")
# Of GET /processes, by default and at most.
MAX_LISTED = 100
NO_COMMAND = "Give the command to run."
COMMAND_NOT_TEXT = "Must be one string, as you would type it into a shell: join a list with spaces and quotes."
NO_VALUE = 'Must be a string: send "" for an empty value, or leave the name out.'
VALUE_NOT_TEXT = 'Must be a string: put a number or a boolean in quotes, such as "3000".'
NAME_DESCRIPTION = "The process, by its name. Default: `default`, or the one whose run `run_id` is."
NO_STDIN = 'Must be "empty" (at its end at once) or "open" (never at its end, though nothing comes).'
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
    port = WholeNumber(
        allow_none=True,
        validate=validate.Range(1, MAX_PORT, error=f"Must be from 1 to {MAX_PORT}."),
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

    @post_load
    def make_spec(self, data: Mapping[str, Any], **_: object) -> dict[str, Any]:
        """Take null for a field that was left out, as strict tool schemas have models send it."""
        given = {name: value for name, value in data.items() if value is not None}
        options = {name: given.pop(name) for name in ("name", "if_running", "leftovers") if name in given}
        if given.pop("replace", False):
            options["if_running"] = "replace"
        return {"spec": Spec(**given), "options": options}


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

    limit = WholeNumber(
        load_default=MAX_LISTED,
        validate=validate.Range(1, MAX_LISTED, error=f"Must be from 1 to {MAX_LISTED}."),
        metadata={"description": "How many to list at most."},
    )


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
        validate=_TIMEOUT,
        metadata={"description": "Seconds to wait after SIGTERM before SIGKILL; fractions allowed."},
    )

    @validates_schema
    def check_which(self, data: Mapping[str, Any], **_: object) -> None:
        """Refuse `all` beside one that is named."""
        if data.get("every") and (data.keys() & {"name", "run_id"}):
            raise ValidationError("Stands alone: give a name or a run_id, or all.", "all")


class RestartQuery(RequestSchema):
    """The query of POST /restart, or its body."""

    name = Name(load_default=DEFAULT_NAME, metadata={"description": "The process, by its name."})

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


blueprint = Blueprint("process", __name__, description="Start, watch, kill and restart commands, each under a name.")


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
