"""Runs in the master: make gunicorn try again where it would exit because a worker or a reload failed."""

import logging
import os
import signal
import time
from collections import deque

from gunicorn.arbiter import Arbiter

from app.server.worker import HELD_SIGNALS, ShellWorker

_log = logging.getLogger("gunicorn.error")
# Limit of workers in an interval of seconds: one that fails at its start is replaced for ever, but not in a loop that
# takes all processor time. The master asks for a missing worker again at least once a second.
MOST_WORKERS = 5
WORKERS_INTERVAL = 2.0
# No process exits with this code: gunicorn exits when a worker's is WORKER_BOOT_ERROR or APP_LOAD_ERROR.
_NEVER = -1


class RetryingMaster:
    """Wrap the arbiter's `spawn_worker` and `reload`, and retry what fails in them; made once, in `on_starting`."""

    def __init__(self, server: Arbiter) -> None:
        self._server = server
        self._spawn = server.spawn_worker
        self._reload = server.reload
        self._spawned: deque[float] = deque(maxlen=MOST_WORKERS)
        # gunicorn has no hook for these.
        server.spawn_worker = self.spawn_worker  # type: ignore[method-assign, assignment]
        server.reload = self.reload  # type: ignore[method-assign]
        server.WORKER_BOOT_ERROR = server.APP_LOAD_ERROR = _NEVER  # type: ignore[misc]
        self.use_own_worker()

    def use_own_worker(self) -> None:
        """Replace gunicorn's gthread worker class by our subclass of it; at the start and at each reload."""
        if issubclass(ShellWorker, self._server.worker_class):
            self._server.worker_class = ShellWorker

    def spawn_worker(self) -> int | None:
        """Fork a worker that loses no signal; return None when that can't be done now."""
        now = time.monotonic()
        if len(self._spawned) == MOST_WORKERS and now - self._spawned[0] < WORKERS_INTERVAL:
            self._keep_workers()
            return None
        self._spawned.append(now)
        umask = os.umask(0)
        os.umask(umask)
        # Until the child has handlers of its own, the arbiter's, which it inherits, would take a signal and lose it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
        try:
            return self._spawn()
        except (OSError, RuntimeError) as error:  # fork(2) failed, or the heartbeat's file
            if self._in_a_worker:
                raise
            os.umask(umask)
            _log.error("No worker can be made: %s. The master tries again.", error)
            self._keep_workers()
            return None
        finally:
            if not self._in_a_worker:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def reload(self) -> None:
        """Reload; where that fails, go on with the old configuration."""
        server = self._server
        config = server.cfg
        self._await_turn()
        try:
            self._reload()
        except (Exception, SystemExit) as error:
            if self._in_a_worker:
                raise
            server.cfg = server.app.cfg = config
            _log.error("The reload failed, and the old settings stay in force: %s", error)

    def _await_turn(self) -> None:
        """Wait, two seconds at most, until a worker may be made: a reload that makes none would be lost."""
        if len(self._spawned) == MOST_WORKERS:
            turn = self._spawned[0] + WORKERS_INTERVAL
            # Time alone is waited for; gunicorn queues signals meanwhile, and SIGTERM begins the stop in its handler.
            time.sleep(max(0.0, turn - time.monotonic()))  # the limit of workers in an interval of seconds

    @property
    def _in_a_worker(self) -> bool:
        """Tell whether this is the forked child, where exceptions, `SystemExit` among them, must propagate."""
        return os.getpid() != self._server.pid

    def _keep_workers(self) -> None:
        """Give the current workers the newest age, so that a reload does not wait for them to be replaced."""
        for worker in self._server.WORKERS.values():
            worker.age = self._server.worker_age
