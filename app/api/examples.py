"""Runs in the worker: example answers for the OpenAPI document; tests/api/test_examples.py provokes each error."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from app.runs.spec import DEFAULT_NAME
from app.supervisor.history import UNKNOWN_RUN, not_listed
from app.supervisor.refusals import NOTHING_STARTED, cancelled, port_asked
from app.version import __version__
from app.web import auth, places
from app.web.errors import TOO_LARGE
from app.web.openapi import Body, ByStatus
from app.web.parsing import NOT_JSON
from app.web.problems import problem


def _problem(status: HTTPStatus, detail: str, **more: object) -> Body:
    return problem(status, detail) | more


def _invalid(field: str, message: str) -> Body:
    return _problem(HTTPStatus.BAD_REQUEST, f"{field}: {message}", errors={field: [message]})


def _unknown(name: str, rest: str) -> Body:
    return _invalid(name, f"There is no such parameter{rest}.")


NO_DIRECTORY = "No such file or directory"
ERRORS: Mapping[str, Body] = MappingProxyType(
    {
        "foreign-host": _problem(
            HTTPStatus.BAD_REQUEST,
            "The Host 'shell.example.com' is not this service's: call it by localhost, or have the operator add the "
            "name to the setting LLM_SHELL_TRUSTED_HOSTS.",
        ),
        "blank-command": _invalid("command", "Must not be blank."),
        "no-such-directory": _problem(
            HTTPStatus.BAD_REQUEST,
            f"cwd '/srv/gone' can't be used: {NO_DIRECTORY}. Name a directory that exists and may be entered.",
            errors={"cwd": [f"{NO_DIRECTORY}."]},
        ),
        "unknown-parameter-of-status": _unknown("verbose", ". /status takes name, run_id, details"),
        "unknown-parameter-of-health": _unknown("verbose", ". /health takes none"),
        "unknown-parameter-of-openapi": _unknown("verbose", ". /openapi.json takes none"),
        "unknown-parameter-of-docs": _unknown("verbose", ". /docs takes none"),
        "unknown-parameter-of-runs": _unknown("run", ". /runs takes name, limit, before"),
        "misspelt-parameter": _unknown("line", "; did you mean lines? /logs takes lines, seconds, name, run_id"),
        "unknown-signal": _invalid("type", "Must be SIGTERM or SIGKILL."),
        "already-ended": _problem(
            HTTPStatus.BAD_REQUEST,
            "The process already ended with exit code 0 and left nothing behind: there is nothing to kill. Read its "
            "output with GET /logs, or start again with POST /restart.",
        ),
        "listed-too-many": _invalid("limit", "Must be from 1 to 100."),
        "grace-too-long": _invalid("timeout", "Must be from 0 to 600 seconds."),
        "page-too-long": _invalid("limit", "Must be from 1 to 100."),
        "both-limits": _invalid("seconds", "Give lines or seconds, not both."),
        "no-token": _problem(HTTPStatus.UNAUTHORIZED, auth.UNAUTHENTICATED),
        "foreign-origin": _problem(HTTPStatus.FORBIDDEN, auth.FOREIGN_ORIGIN),
        "foreign-site": _problem(HTTPStatus.FORBIDDEN, auth.FOREIGN_SITE),
        "nothing-started": _problem(HTTPStatus.NOT_FOUND, NOTHING_STARTED),
        "unknown-run": _problem(HTTPStatus.NOT_FOUND, UNKNOWN_RUN),
        "page-not-kept": _problem(HTTPStatus.NOT_FOUND, not_listed("2026-11-22_06-08-00").detail),
        "already-running": _problem(
            HTTPStatus.CONFLICT,
            'A process is already running (pid 4242): call /kill first, or send "replace": true.',
            process_pid=4242,
            run_id="2026-11-22_06-08-00",
        ),
        "leftovers": _problem(
            HTTPStatus.CONFLICT,
            "The last process ended, but what it started lives on: 4243 (sleep). Call /kill to end that, or send "
            '"replace": true.',
            leftovers=[{"pid": 4243, "name": "sleep", "command_line": "sleep 3600"}],
            more=0,
            run_id="2026-11-22_06-08-00",
        ),
        "port-asked-for": _problem(
            HTTPStatus.CONFLICT,
            port_asked(3000, "web").detail,
            port=3000,
            pid=4242,
            command_line="sleep 3600",
            name="web",
        ),
        "overtaken-by-kill": _problem(HTTPStatus.CONFLICT, cancelled().detail),
        "body-too-large": _problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LARGE),
        "not-declared-as-json": _problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, NOT_JSON),
        "too-many-operations": _problem(HTTPStatus.TOO_MANY_REQUESTS, places.many_operations(DEFAULT_NAME)),
        "too-many-long-answers": _problem(HTTPStatus.TOO_MANY_REQUESTS, places.MANY_LONG_ANSWERS),
        "no-such-shell": _problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "The shell /bin/zsh can't be executed: it is gone, or its rights have changed.",
        ),
        "out-of-reach": _problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "The process could not be ended: its shim does not answer. Call again; the service's log says more.",
        ),
        "too-many-files": _problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "The system refused what this request needs: Too many open files. Try again once that is remedied.",
        ),
    }
)


def _pick(*names: str) -> ByStatus:
    """Return these errors and those that any call can have, by their status."""
    picked: dict[int, dict[str, Body]] = {}
    for name in (*names, "foreign-host", "foreign-origin", "too-many-files"):
        picked.setdefault(ERRORS[name]["status"], {})[name] = ERRORS[name]
    return MappingProxyType(picked)


_OPERATION = ("foreign-site", "no-token", "body-too-large", "not-declared-as-json", "too-many-operations")
START = _pick(
    *_OPERATION,
    "blank-command",
    "no-such-directory",
    "already-running",
    "leftovers",
    "port-asked-for",
    "no-such-shell",
)
STATUS = _pick("foreign-site", "unknown-parameter-of-status", "no-token", "nothing-started", "unknown-run")
PROCESSES = _pick("foreign-site", "listed-too-many", "no-token")
KILL = _pick(*_OPERATION, "already-ended", "unknown-signal", "nothing-started", "out-of-reach")
RESTART = _pick(*_OPERATION, "grace-too-long", "nothing-started", "overtaken-by-kill", "no-such-shell")
LOGS = _pick(
    "both-limits",
    "misspelt-parameter",
    "foreign-site",
    "no-token",
    "nothing-started",
    "unknown-run",
    "too-many-long-answers",
)
RUN_LIST = _pick(
    "page-too-long", "unknown-parameter-of-runs", "foreign-site", "no-token", "page-not-kept", "unknown-run"
)
HEALTH = _pick("unknown-parameter-of-health")
OPENAPI = _pick("foreign-site", "unknown-parameter-of-openapi")
DOCS = _pick("foreign-site", "unknown-parameter-of-docs")

# The body in "Try it out": it starts anywhere, prints a line to read, and runs until it is killed.
TRY = MappingProxyType({"command": "echo ready; sleep 3600"})
RUNNING: Body = MappingProxyType(
    {
        "name": "default",
        "status": "running",
        "process_pid": 4242,
        "command": TRY["command"],
        "run_id": "2026-11-22_06-08-00",
        "log_file": "/srv/llm-shell/logs/2026-11-22_06-08-00.log",
        "created_at": "2026-11-22T06:08:00.123456Z",
        "stopped_at": None,
        "exit_code": None,
        "signal": None,
        "reason": None,
        "output_open": True,
        "leftover_pids": [],
        "daemons": [],
        "restarts": 0,
        "next_start_at": None,
        "limit": None,
    }
)
REUSED: Body = MappingProxyType({**RUNNING, "started": False})
LISTED: Body = MappingProxyType(
    {
        "processes": [
            {
                "name": "default",
                "status": "running",
                "run_id": "2026-11-22_06-08-00",
                "process_pid": 4242,
                "command": TRY["command"],
                "created_at": "2026-11-22T06:08:00.123456Z",
                "stopped_at": None,
                "exit_code": None,
                "restarts": 0,
                "next_start_at": None,
                "leftovers": 0,
            }
        ]
    }
)
KILLED: Body = MappingProxyType(
    {
        "status": "killed",
        "type": "SIGTERM",
        "exit_code": -15,
        "signal": "SIGTERM",
        "reason": "Ended by /kill.",
        "stopped_at": "2026-11-22T06:08:04.654321Z",
        "escalated": False,
        "survivors": [],
        "ports": {"freed": [], "held": []},
    }
)
LINES: Body = MappingProxyType(
    {
        "log_file": "/srv/llm-shell/logs/2026-11-22_06-08-00.log",
        "total_lines": 1,
        "content": "ready",
        "lines_returned": 1,
    }
)
RUNS: Body = MappingProxyType(
    {
        "runs": [
            {
                "run_id": "2026-11-22_06-08-00",
                "name": "default",
                "command": TRY["command"],
                "status": "killed",
                "exit_code": -15,
                "signal": "SIGTERM",
                "reason": "Ended by /kill.",
                "created_at": "2026-11-22T06:08:00.123456Z",
                "stopped_at": "2026-11-22T06:08:04.654321Z",
                "total_lines": 1,
                "log_bytes": 69,
                "leftovers": 0,
            }
        ],
        "next": None,
    }
)
HEALTHY: Body = MappingProxyType({"status": "healthy", "version": __version__, "uptime": 20})
