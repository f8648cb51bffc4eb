"""Runs in the worker: start a run: its checks, its files, its shim; a start that fails leaves no trace."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from app.exceptions import InternalError
from app.linux import sockets
from app.linux.account import Account, look_up
from app.linux.proc import boot_id
from app.log.clock import RunClock, format_time
from app.runs.names import MAX_RUN_ID, new_control_name
from app.runs.pointer import Pointer
from app.runs.record import RecordFile, RunRecord, record_path
from app.runs.shells import is_executable, may_execute, names_dropped
from app.runs.spec import Spec
from app.supervisor.launch import LaunchError, launch, process_environment, run_variables
from app.supervisor.refusals import (
    directory_unusable,
    environment_too_large,
    launch_failure,
    names_lost,
    shell_unusable,
)
from app.supervisor.run import Run
from app.supervisor.shared import Shared
from app.supervisor.unreported import end_start

# MAX_ARG_STRLEN (execve(2)): one argument or NAME=value string, its NUL included.
MAX_STRING = 131_072


@dataclass(frozen=True, slots=True)
class CheckedStart:
    """Hold a start that was checked: its spec as given and as it is to be run, and the command's environment.

    That is without `run_variables`, since the run has no id yet.
    """

    given: Spec
    spec: Spec
    environment: dict[bytes, bytes]


class Starter:
    """Start runs of one named process; its caller starts one at a time.

    `launching` is the path of the record of the run that is being started.
    """

    def __init__(self, name: str, shared: Shared, pointer: Pointer) -> None:
        self.launching: str | None = None
        self._name = name
        self._logs = shared.logs
        self._pointer = pointer
        self._policy = shared.policy
        self._retention = shared.retention

    def check(self, given: Spec) -> CheckedStart:
        """Check what can be checked before anything is ended or started for it; raises `BadRequestError`.

        Raises `InternalError` where the operator's shell is gone.
        """
        account, login = look_up(self._policy.run_as) if self._policy.run_as else (None, {})
        shell = self._shell(given.shell, account)
        directory = self._directory(given.cwd)
        if lost := names_dropped(shell, account, given.env):
            raise names_lost(shell, lost)
        environment = process_environment(given.variables(), login)
        with_longest = environment | run_variables("x" * MAX_RUN_ID, self._name)
        sizes = [len(name) + len(value) + 2 for name, value in with_longest.items()]
        # Half of ARG_MAX is left to the command and the pointers that execve(2) also counts.
        if max(sizes) > MAX_STRING or sum(sizes) > os.sysconf("SC_ARG_MAX") // 2:
            raise environment_too_large()
        user = account.pack() if account is not None else ""
        spec = msgspec.structs.replace(given, cwd=directory, shell=shell, account=user)
        return CheckedStart(given, spec, environment)

    def _shell(self, given: str, account: Account | None) -> str:
        """Return the shell that runs the command; raises `BadRequestError` and `InternalError` for one that can't.

        It is the policy's unless the spec has one, as at a restart: a setting does not change the language of a
        command.
        """
        own = self._policy.shell
        if given not in ("", own):
            if not is_executable(given):
                raise shell_unusable(given)
            if account is not None and not may_execute(account, given):
                raise shell_unusable(
                    given, f"that the user {self._policy.run_as!r}, which commands run as, may execute"
                )
            return given
        if not os.access(own, os.X_OK):
            raise InternalError(f"The shell {own} can't be executed: it is gone, or its rights have changed.")
        return own

    def _directory(self, cwd: str) -> str:
        """Return the absolute path of the directory to start in; raises `BadRequestError` where that can't be entered.

        The service's own is known by its path, as it may have been removed and made again: getcwd(2) fails then, and
        no command can start in the removed one.
        """
        directory = cwd if cwd.startswith("/") else str((self._policy.working_dir or Path.cwd()) / (cwd or "."))
        try:
            # The last component "." makes the system itself say whether it is a directory that may be entered.
            os.stat(f"{directory}/.")  # noqa: PTH116  pathlib would take the dot away
        except (OSError, UnicodeEncodeError) as error:  # the latter where the locale has no bytes for a character
            raise directory_unusable(directory, getattr(error, "strerror", None) or str(error), cwd) from error
        return directory

    def start(self, checked: CheckedStart, log_file: str | None, beside: str) -> Run:
        """Start the run and make it the current one; raises `BadRequestError` and `InternalError`.

        Its log is `log_file`, or named after the time. `beside` names what is left of the run before.
        """
        before = self._pointer.read()
        try:
            record = self._new_record(checked, log_file, beside)
            self.launching = record_path(record.log_file)
            run = Run(record)
            # Bound before the pointer names the run: an overlapping worker would else take its shim for dead.
            with self._undone_on_failure(run, before), sockets.listen(record.control) as listener:
                # Last: they prove whose a process is, so that nothing a caller gave may go before them.
                environment = checked.environment | run_variables(record.run_id, self._name)
                launched = launch(record, environment, listener, partial(self._prepare, run))
                if launched is None:
                    run.close()
                    run = _run_of_understudy(record)
                else:
                    run.begin(launched)
        except LaunchError as error:
            raise launch_failure(error, record, checked.given.cwd, self._policy) from error
        except OSError as error:
            raise InternalError(f"The command could not be started: {error.strerror}.") from error
        finally:
            self.launching = None
        return run

    def _prepare(self, run: Run) -> None:
        """Make the run the current one on disk, where a worker finds it should this one be killed.

        The threads are started here, since beside a command that has just started they would wait for a processor.
        """
        path = record_path(run.record.log_file)
        RecordFile(path, run.record.log_mode).write(run.record)
        self._pointer.set(path)
        run.expect()
        self._retention.after(run)

    def _new_record(self, checked: CheckedStart, log_file: str | None, beside: str) -> RunRecord:
        logs = self._logs
        path = logs.create_log_file() if log_file is None else logs.claim_log_file(log_file)
        clock = RunClock.start()
        return RunRecord(
            run_id=Path(path).stem,
            name=self._name,
            spec=checked.spec,
            created_at=format_time(clock.started_ns),
            started_ns=clock.started_ns,
            boottime_ns=clock.boottime_ns,
            boot_id=boot_id(),
            control=new_control_name(logs.log_dir),
            log_file=path,
            log_mode=logs.file_mode,
            log_max_bytes=self._policy.log_max_bytes,
            beside=beside,
        )

    @contextlib.contextmanager
    def _undone_on_failure(self, run: Run, before: str | None) -> Iterator[None]:
        """Remove what a failed start left: the former run is the current one again, its outcome readable."""
        record = run.record
        try:
            yield
        except BaseException:
            run.close()
            undo: tuple[Callable[[], None], ...] = (
                partial(self._pointer.set, before),
                RecordFile(record_path(record.log_file)).remove,
                partial(Path(record.log_file).unlink, missing_ok=True),
            )
            for undone in undo:
                with contextlib.suppress(OSError):  # it must neither hide why the start has failed, nor keep the rest
                    undone()
            raise


def _run_of_understudy(record: RunRecord) -> Run:
    """Return the run whose shim was killed before it could report; raises `LaunchError` where its understudy was, too.

    What it had executed is ended then, since its output is lost.
    """
    run = Run.load(record_path(record.log_file))
    if run is None or run.abandoned:
        if run is not None:
            run.close()
            record.process = run.record.process
        end_start(record)
        raise LaunchError("spawn", 0)
    return run
