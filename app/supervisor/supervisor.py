"""Runs in the master and the worker: the supervisor of a log directory, from its claim to its stop."""

import atexit
import contextlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from app.config import Settings
from app.exceptions import InternalError
from app.reading.page import LogPage
from app.runs.claim import claim
from app.runs.directory import LogDirectory
from app.supervisor import zygote
from app.supervisor.manager import ProcessManager
from app.supervisor.policy import Policy

logger = logging.getLogger(__name__)
# Seconds from SIGTERM to SIGKILL when the service stops.
SHUTDOWN_TIMEOUT = 5.0
# Seconds until a stop logs which processes it waits for: those that obey SIGTERM have ended by then.
SHUTDOWN_SILENCE = 0.5


class Supervisor:
    """Own the ProcessManager of one log directory and the claim to that.

    `settings` are those in force, `working_dir` is the path that the service was started in. Under gunicorn the master
    claims (`claim`) and each worker, forked from it, inherits the claim and calls `init_app`; elsewhere `init_app` does
    both, and the interpreter's end ends the processes.
    """

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.working_dir: Path | None = None
        self._manager: ProcessManager | None = None
        self._claim: int | None = None
        self._claimed_by = 0  # the pid of this process or, in a worker, of the master
        self._log_dir = ""
        self._started_ns = 0
        # Taken by the thread that logs what a stop waits for, so that only one of them does.
        self._wait_logged = threading.Lock()

    @property
    def claimed(self) -> bool:
        """Tell whether this service holds its log directory."""
        return self._claim is not None

    def holds(self, log_dir: Path) -> bool:
        """Tell whether this is the directory that was claimed, however it is spelt."""
        return self.claimed and os.path.realpath(log_dir) == self._log_dir

    def claim(self, settings: Settings) -> None:
        """Become the only service on the log directory; see `runs.claim`. Raises `ConflictError`, `InternalError`."""
        directory = LogDirectory(settings.log_dir, group_read=settings.log_group_read)
        with directory.explained(directory.log_dir):
            fd = claim(directory.log_dir)
        self._give_up_claim()
        self._claim = fd
        self._claimed_by = os.getpid()
        self._log_dir = os.path.realpath(directory.log_dir)
        self._wait_logged = threading.Lock()
        self.settings = settings
        self._started_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def init_app(self, settings: Settings) -> None:
        """Serve this log directory from now on, by these settings, and take over what is live there."""
        in_a_worker = self.claimed and self._claimed_by != os.getpid()
        if not in_a_worker and not self._claim_is_good(settings.log_dir):
            self.claim(settings)
            atexit.register(self._stop_with_the_interpreter)
        if not in_a_worker:
            self.working_dir = Path.cwd()
        manager = self._new_manager(settings)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(manager.close)
            manager.take_over()
            on_failure.pop_all()
        manager.prepare_lists()
        if in_a_worker:
            zygote.own.prepare()
        self.settings = settings
        former, self._manager = self._manager, manager
        if former is not None:
            former.close()

    def stop(self) -> None:
        """End all trees (with ON_SHUTDOWN=keep, let them run) and give the log directory up; harmless when repeated."""
        manager, self._manager = self._manager, None
        self._end_run(manager)
        if manager is not None:
            manager.close()
        self._give_up_claim()

    def begin_stop(self) -> None:
        """End all trees (see `stop`) while the worker still answers: operations are overtaken, and start nothing."""
        self._end_run(None)

    def _end_run(self, manager: ProcessManager | None) -> None:
        """End all trees, unless they are to be kept, through this manager or, in gunicorn's master, one made for it."""
        if self.settings is None or not self.claimed or self.settings.on_shutdown == "keep":
            return
        try:
            if manager is not None:
                self._shut_down(manager)
                return
            with contextlib.closing(self._new_manager(self.settings)) as last:
                last.take_over()
                self._shut_down(last)
        except InternalError as error:
            logger.error("Not all could be ended: %s", error)  # noqa: TRY400  the message is enough

    def _shut_down(self, manager: ProcessManager) -> None:
        timer = threading.Timer(SHUTDOWN_SILENCE, self._log_wait, [manager])
        timer.daemon = True
        with contextlib.suppress(RuntimeError):  # no thread can be had: the wait is not logged
            timer.start()
        try:
            manager.shut_down(SHUTDOWN_TIMEOUT)
        finally:
            timer.cancel()

    def _log_wait(self, manager: ProcessManager) -> None:
        awaited = manager.awaited()
        if awaited is not None and self._wait_logged.acquire(blocking=False):
            logger.info("Waiting up to %.0f s for %s.", SHUTDOWN_TIMEOUT, awaited)

    @property
    def processes(self) -> ProcessManager:
        """Return the manager of the named processes; raises `InternalError` once the service stops."""
        if self._manager is None:
            raise InternalError("The service is stopping: no command is taken any more.")
        return self._manager

    def open_logs(self, run_id: str | None, name: str | None, lines: int | None, seconds: float | None) -> LogPage:
        """Open a run's log for reading, or that of a process's current run; the caller closes the page."""
        manager = self.processes
        log_file, clock = manager.log_of(run_id, name)
        return manager.logs.open_page(log_file, lines, seconds, clock)

    def runs(self, name: str | None, limit: int, before: str | None) -> dict[str, Any]:
        """Return a page of the runs that are kept; see `History.runs`."""
        return self.processes.runs(name, limit, before)

    def uptime(self) -> int:
        """Return whole seconds since the service started, unaffected by new workers and by the wall clock."""
        return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self._started_ns) // 1_000_000_000

    def _new_manager(self, settings: Settings) -> ProcessManager:
        policy = Policy(
            shell=settings.shell,
            run_as=settings.run_as,
            working_dir=self.working_dir,
            group_read=settings.log_group_read,
            log_max_bytes=settings.log_max_bytes,
            log_keep=settings.log_keep,
            log_total_bytes=settings.log_total_bytes,
            restart_timeout=settings.default_restart_timeout,
            max_processes=settings.max_processes,
        )
        return ProcessManager(settings.log_dir, policy)

    def _claim_is_good(self, log_dir: Path) -> bool:
        """Tell whether the claim is to the directory that has this path now, and not to one that was removed."""
        with contextlib.suppress(OSError):
            return self._claim is not None and os.path.samestat(os.fstat(self._claim), log_dir.stat())
        return False

    def _give_up_claim(self) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            os.close(claim)
            atexit.unregister(self._stop_with_the_interpreter)

    def _stop_with_the_interpreter(self) -> None:
        if os.getpid() == self._claimed_by:  # and not in a child forked from it
            self.stop()
