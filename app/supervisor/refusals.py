"""Runs in the worker, and in the master at its stop: the errors of operations: messages, and the facts with them."""

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.exceptions import BadRequestError, ConflictError, InternalError, NotFoundError
from app.linux.pidfd import may_signal
from app.linux.proc import command_line, read_member
from app.runs.record import RunRecord
from app.runs.shells import WANTED
from app.runs.spec import DEFAULT_NAME
from app.supervisor.launch import LaunchError
from app.supervisor.naming import count_rest, listed, name_all, name_some, shown
from app.supervisor.policy import Policy
from app.supervisor.run import Run
from app.wording import shorten

# Where /proc is mounted with hidepid (proc(5)), it does not show other users' processes.
UNSEEN = "processes that /proc does not show"
# Limits of a message: variables named, and characters of a name and of a path.
MAX_NAMES = 5
MAX_NAME = 80
MAX_PATH = 200
NOTHING_STARTED = "No command has been started yet: use POST /start."
# Errors of execve(2) that are due to the file itself, or to the interpreter that it names.
_FAULTS_OF_A_PROGRAM = (errno.ENOEXEC, errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)
MAKE_AGAIN = "make that directory again"


@contextlib.contextmanager
def prefixed(words: str) -> Iterator[None]:
    """Prefix an error's message with how far the operation got."""
    try:
        yield
    except (BadRequestError, ConflictError, InternalError) as error:
        error.detail = words + error.detail
        raise


def environment_too_large() -> BadRequestError:
    """Return the error for an environment that execve(2) does not take."""
    return BadRequestError(
        "The environment is over the system's limit (131,071 bytes for one NAME=value): pass large values in a file.",
        {"env": ["Over the system's limit."]},
    )


def directory_unusable(
    directory: str, words: str, given: str, what: str = "used", remedy: str = MAKE_AGAIN
) -> BadRequestError:
    """Return the error for a directory that a command can't start in: its caller's, or the service's own."""
    directory = shorten(directory, MAX_PATH)
    if not given:
        detail = (
            f"The service's own directory, {directory!r}, where commands start by default, can't be {what}: "
            f'{words}. Send "cwd" with an absolute path, or {remedy}.'
        )
    else:
        detail = f"cwd {directory!r} can't be {what}: {words}. Name a directory that exists and may be entered."
    return BadRequestError(detail, {"cwd": [f"{words}."]})


def names_lost(shell: str, names: Sequence[str]) -> BadRequestError:
    """Return the error for variables that a shell does not pass on to the command."""
    shown = [shorten(name, MAX_NAME) for name in names[:MAX_NAMES]]
    rest = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return BadRequestError(
        f"env: {shell} does not pass on {', '.join(map(repr, shown))}{rest}, which is no name to it: use letters, "
        "digits and _, or set it with env(1) inside the command.",
        {f"env.{name}": [f"{shell} does not pass on a variable of this name."] for name in shown},
    )


def shell_unusable(path: str, what: str = "") -> BadRequestError:
    """Return the error for a caller's shell that can't be executed; `what` adds to what its path has to be."""
    wanted = f"{WANTED} {what}".rstrip()
    return BadRequestError(
        f"shell {wanted}, not {shorten(path, MAX_PATH)!r}. Name another, or leave it out for the service's own.",
        {"shell": [f"{wanted[0].upper()}{wanted[1:]}."]},
    )


def launch_failure(
    error: LaunchError, record: RunRecord, given: str, policy: Policy
) -> BadRequestError | InternalError:
    """Return the error for a command that could not be started: the caller's to correct, or the operator's.

    `given` is the directory that its caller named.
    """
    user = policy.run_as
    if error.step == "cwd":
        if user is None:
            return directory_unusable(record.spec.cwd, str(error), given, "entered")
        what = f"entered by the user {user!r}, which commands run as"
        remedy = "have the service started where this user may enter"
        return directory_unusable(record.spec.cwd, str(error), given, what, remedy)
    if error.errno == errno.E2BIG:
        return environment_too_large()
    if error.errno == 0:
        return InternalError(
            "The command could not be started: the processes that were to keep it ended before they could answer, and "
            "it was not left running. Try again; the service's log may say why."
        )
    if error.errno == errno.ETIMEDOUT:
        return InternalError(
            "The command could not be started: its shim did not answer. If its directory is on a file system that does "
            "not answer either, name another; else try again."
        )
    return _shell_failure(error, record, policy)


def _shell_failure(error: LaunchError, record: RunRecord, policy: Policy) -> BadRequestError | InternalError:
    shell = record.spec.shell
    if shell != policy.shell and error.errno in _FAULTS_OF_A_PROGRAM:
        return shell_unusable(shell, f"that the system can start ({error})")
    as_user = f" by the user {policy.run_as!r}, which commands run as" if policy.run_as is not None else ""
    return InternalError(f"The shell {shell} could not be started{as_user}: {error}.")


def busy(doing: str, name: str) -> ConflictError:
    """Return the error for an operation while another one on the same process is under way."""
    of = "" if name == DEFAULT_NAME else f" on {name!r}"
    return ConflictError(
        f"Another operation ({doing}){of} is under way: wait for its answer, or call /kill, which is allowed meanwhile."
    )


def nothing_started(name: str) -> NotFoundError:
    """Return the error for a process of which nothing was ever started, or nothing is kept."""
    if name == DEFAULT_NAME:
        return NotFoundError(NOTHING_STARTED)
    return NotFoundError(f"There is no process {name!r}: GET /processes lists those there are, POST /start starts one.")


def too_many(live: int) -> ConflictError:
    """Return the error for a start while as many names live as may."""
    return ConflictError(
        f"{live} processes live already, as many as LLM_SHELL_MAX_PROCESSES allows: end one with /kill first "
        "(GET /processes lists them).",
        live=live,
    )


def port_asked(port: int, name: str, pid: int | None = None) -> ConflictError:
    """Return the error for a start whose port a live process of another name has asked for."""
    words = shown(command_line(pid)) if pid is not None else None
    return ConflictError(
        f"Port {port} is taken: the process {name!r} was started for it. Send another port, or end that first "
        f"(/kill?name={name}).",
        port=port,
        pid=pid,
        command_line=words or None,
        name=name,
    )


def port_taken(port: int, holder: Mapping[str, Any], record: RunRecord | None, end: str | None) -> ConflictError:
    """Return the error for a start on whose port a socket listens: by whom, of which run, and the call that ends it."""
    pid, words = holder["pid"], holder["command_line"]
    who = f"{pid} ({words})" if pid is not None else "a process that the service may not look into"
    name, run_id = (record.name, record.run_id) if record is not None else (None, None)
    of = f", of the process {name!r}," if name is not None else ""
    remedy = end or "it is none of the service's"
    return ConflictError(
        f"Port {port} is taken: {who}{of} listens on it. Send another port, or end that first ({remedy}).",
        port=port,
        **holder,
        name=name,
        run_id=run_id,
    )


def of_another_process(run_id: str, name: str, of: str) -> BadRequestError:
    """Return the error for a run and a name that do not belong together."""
    text = f"The run {run_id} is one of {of!r}, not of {name!r}: give one of the two."
    return BadRequestError(text, {"name": [text]})


def still_alive(run: Run) -> ConflictError:
    """Return the error for a start while the last run lives, with both remedies."""
    state = run.state
    if state.stopped_at is None:
        pid = run.record.process.pid if run.record.process else None
        if pid is not None and _out_of_reach([pid]):
            return _beside_only(f"{_subject(run)} is already running: {name_all([pid])}", run, process_pid=pid)
        return ConflictError(
            f"{_subject(run)} is already running (pid {pid}): call {_call('/kill', run)} first, "
            'or send "replace": true.',
            process_pid=pid,
            run_id=run.record.run_id,
        )
    pids = run.left().leftovers
    facts = {"leftovers": name_some(pids), "more": count_rest(pids)}
    refused = _out_of_reach(pids)
    if pids and refused == pids:
        return _beside_only(f"{_last(run)} ended, but what it started lives on: {name_all(pids)}", run, **facts)
    return ConflictError(
        f"{_last(run)} ended, but what it started lives on: {listed(pids) or UNSEEN}. "
        f'Call {_call("/kill", run)} to end that, or send "replace": true.{_and_not_signalled(refused)}',
        **facts,
        run_id=run.record.run_id,
    )


def _subject(run: Run) -> str:
    return "A process" if run.record.name == DEFAULT_NAME else f"The process {run.record.name!r}"


def _last(run: Run) -> str:
    return "The last process" if run.record.name == DEFAULT_NAME else f"The last run of {run.record.name!r}"


def _call(path: str, run: Run) -> str:
    """Return a call as it has to be made for the process of this run."""
    return path if run.record.name == DEFAULT_NAME else f"{path}?name={run.record.name}"


def unlike(run: Run, differing: Sequence[str]) -> ConflictError:
    """Return the error for a start that would have taken a live run as its own, were it not for these fields."""
    named = [shown(name, MAX_NAME) for name in differing[:MAX_NAMES]]
    rest = f" and {len(differing) - MAX_NAMES} more" if len(differing) > MAX_NAMES else ""
    pid = run.record.process.pid if run.record.process else None
    return ConflictError(
        f"{_subject(run)} is already running (pid {pid}), but differs in {', '.join(named)}{rest}: send what it "
        f'was started with, call {_call("/kill", run)} first, or send "replace": true.',
        differing=named,
        more=len(differing) - len(named),
        process_pid=pid,
        run_id=run.record.run_id,
    )


def _beside_only(said: str, run: Run, **facts: object) -> ConflictError:
    """Return the error for a start that is possible only beside processes that the service may not signal."""
    return ConflictError(
        f'{said}, which the service may not signal. Send "replace": true to start beside it, or have its owner end it.',
        **facts,
        run_id=run.record.run_id,
    )


def out_of_reach(refused: list[int]) -> ConflictError:
    """Return the error for a restart of a process that we may not signal."""
    return ConflictError(
        f"The old process could not be ended, so nothing was restarted: the service may not signal "
        f'{name_all(refused)}. Have its owner end it, or call /start with "replace": true to start beside it.',
        survivors=name_some(refused),
        more=count_rest(refused),
    )


def not_signalled(refused: list[int]) -> str | None:
    """Return a sentence that names the survivors that we may not signal; None when there are none."""
    return f"The service may not signal, so did not end: {name_all(refused)}." if refused else None


def _out_of_reach(pids: list[int]) -> list[int]:
    """Return those of these processes that we may not signal."""
    members = [member for pid in pids if (member := read_member(pid)) is not None]
    return [member.pid for member in members if not may_signal(member.identity)]


def _and_not_signalled(refused: list[int]) -> str:
    said = not_signalled(refused)
    return f" {said}" if said else ""


def cancelled() -> ConflictError:
    """Return the error for a start that a kill, or the service's stop, cancelled."""
    return ConflictError(
        "A /kill, or the service's stop, cancelled this: the old process is ended and nothing was started. "
        "Call /start or /restart if you still want one."
    )


def outlived(survivors: list[int], refused: list[int]) -> ConflictError:
    """Return the error for a start that survivors of SIGKILL prevent; `/proc` may not show them."""
    others = [pid for pid in survivors if pid not in refused]
    return ConflictError(
        f"The old process could not be ended, so nothing was started: {listed(others) or UNSEEN} outlived SIGKILL."
        f"{_and_not_signalled(refused)}",
        survivors=name_some(survivors),
        more=count_rest(survivors),
    )


def already_ended(run: Run) -> BadRequestError:
    """Return the error for a kill of a process whose run has ended, with how it ended."""
    return BadRequestError(
        f"The process already ended {_how(run)} and left nothing behind: there is nothing to kill. "
        f"Read its output with GET {_call('/logs', run)}, or start again with POST {_call('/restart', run)}."
    )


def past_ended(run: Run) -> BadRequestError:
    """Return the error for a kill of a past run that has ended; a restart by name would end the one of today."""
    run_id = run.record.run_id
    return BadRequestError(
        f"The run {run_id} already ended {_how(run)} and left nothing behind: there is nothing to kill. "
        f"Read its output with GET /logs?run_id={run_id}."
    )


def earlier_lives(run: Run, run_ids: Sequence[str]) -> BadRequestError:
    """Return the error for a kill of a process that has ended, while earlier runs of it live on."""
    more = f" ({len(run_ids) - 1} more: see GET /runs)" if len(run_ids) > 1 else ""
    return BadRequestError(
        f"{_last(run)} already ended {_how(run)} and left nothing behind, but an earlier run lives on: "
        f"POST /kill?run_id={run_ids[0]} ends it{more}."
    )


def _how(run: Run) -> str:
    code = run.state.exit_code
    return f"with exit code {code}" if code is not None else "with an exit code that is not known"
