"""What a caller is told when an operation can't be done: the words, and the facts that go with them."""

import contextlib
import errno
from collections.abc import Iterator

from app.exceptions import BadRequestError, ConflictError, InternalError
from app.process.launch import LaunchError
from app.process.run import RunRecord
from app.process.tree import command_line
from app.process.watch import Run

# Where it is mounted hidepid (proc(5)), others' processes are not to be seen.
UNSEEN = "what /proc does not show"


@contextlib.contextmanager
def said_before(words: str) -> Iterator[None]:
    """Say how far the operation got before what stopped it."""
    try:
        yield
    except (BadRequestError, InternalError) as error:
        error.detail = words + error.detail
        raise


def environment_too_large() -> BadRequestError:
    """Say that execve(2) would not take the environment."""
    return BadRequestError(
        "The environment is over the system's limit (131,071 bytes for one NAME=value): pass large values in a file.",
        {"env": ["Over the system's limit."]},
    )


def launch_failure(error: LaunchError, record: RunRecord) -> BadRequestError | InternalError:
    """Say why a command could not be started: for the caller to mend, or for whoever runs the machine."""
    if error.step == "cwd":
        return BadRequestError(f"cwd {record.cwd!r} can't be entered: {error}.", {"cwd": [str(error)]})
    if error.errno == errno.E2BIG:
        return environment_too_large()
    if error.errno == 0:
        return InternalError("The command could not be started: its shim ended before it could answer.")
    return InternalError(f"The shell {record.shell} could not be started: {error}.")


def busy(doing: str) -> ConflictError:
    """Say that an operation is under way."""
    return ConflictError(
        f"Another operation ({doing}) is under way: wait for its answer, or call /kill, which gets through."
    )


def still_alive(run: Run) -> ConflictError:
    """Say who is in the way of a start, and both remedies."""
    state = run.state
    if state.stopped_at is None:
        pid = run.record.process.pid if run.record.process else None
        return ConflictError(
            f'A process is already running (pid {pid}): call /kill first, or send "replace": true.',
            process_pid=pid,
            run_id=run.record.run_id,
        )
    leftovers = [{"pid": pid, "command_line": command_line(pid)} for pid in run.leftovers()]
    named = ", ".join(f"{left['pid']} ({left['command_line']})" for left in leftovers) or UNSEEN
    return ConflictError(
        f"The last process ended, but what it started lives on: {named}. "
        'Call /kill to end that, or send "replace": true.',
        leftovers=leftovers,
        run_id=run.record.run_id,
    )


def cancelled() -> ConflictError:
    """Say that somebody who wants no process joined in the ending of the old one."""
    return ConflictError(
        "A /kill, or the service's stop, cancelled this: the old process is ended and nothing was started. "
        "Call /start or /restart if you still want one."
    )


def outlived(survivors: list[int]) -> ConflictError:
    """Say who is in the way of a start even after SIGKILL; nobody is named whom `/proc` does not show."""
    return ConflictError(
        f"The old process could not be ended, so nothing was started: {survivors or UNSEEN} outlived SIGKILL.",
        survivors=survivors,
    )


def already_ended(run: Run) -> BadRequestError:
    """Say that there is nothing to kill, and how the run ended."""
    state = run.state
    how = f"with exit code {state.exit_code}" if state.exit_code is not None else "with an exit code that is not known"
    return BadRequestError(
        f"The process already ended {how} and left nothing behind: there is nothing to kill. "
        "Read its output with GET /logs, or start again with POST /restart."
    )
