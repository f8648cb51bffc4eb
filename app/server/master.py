"""gunicorn's master made patient: what it can't do now it does later, and it never ends for it. Runs in the master."""

import logging
import os
import signal
import time
from collections import deque
from typing import TYPE_CHECKING

from app.server.worker import HELD_SIGNALS, ShellWorker

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter

_log = logging.getLogger("gunicorn.error")
# So many workers at most in so many seconds: one that dies at its birth is replaced for ever, but not in a circle that
# takes all there is. The master asks for a missing worker again at least once a second.
MOST_WORKERS = 5
WORKERS_INTERVAL = 2.0
# No exit code: gunicorn ends the service when a worker has one of these.
_NEVER = -1


class Patience:
    """Stand between gunicorn's master and its two ways to make workers; made once, in `on_starting`."""

    def __init__(self, server: "Arbiter") -> None:
        self._server = server
        self._spawn = server.spawn_worker
        self._reload = server.reload
        self._spawned: deque[float] = deque(maxlen=MOST_WORKERS)
        # gunicorn has no hook for any of these.
        server.spawn_worker = self.spawn_worker  # type: ignore[method-assign, assignment]
        server.reload = self.reload  # type: ignore[method-assign]
        server.WORKER_BOOT_ERROR = server.APP_LOAD_ERROR = _NEVER  # type: ignore[misc]
        self.use_own_worker()

    def use_own_worker(self) -> None:
        """Take our worker where gunicorn's own, which it is, was asked for; at the start and at each reload."""
        if issubclass(ShellWorker, self._server.worker_class):
            self._server.worker_class = ShellWorker

    def spawn_worker(self) -> int | None:
        """Make a worker that loses no signal; None when there can't be one now."""
        now = time.monotonic()
        if len(self._spawned) == MOST_WORKERS and now - self._spawned[0] < WORKERS_INTERVAL:
            self._do_without()
            return None
        self._spawned.append(now)
        umask = os.umask(0)
        os.umask(umask)
        # Until it has handlers of its own it would take them with ours, and throw them away.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
        try:
            return self._spawn()
        except (OSError, RuntimeError) as error:  # no process, or no file for the heartbeat
            if self._in_a_worker:
                raise
            os.umask(umask)
            _log.error("No worker can be made: %s. The master tries again.", error)
            self._do_without()
            return None
        finally:
            if not self._in_a_worker:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def reload(self) -> None:
        """Do what HUP asks for; where that fails, go on as before."""
        server = self._server
        config = server.cfg
        try:
            self._reload()
        except (Exception, SystemExit) as error:
            if self._in_a_worker:
                raise
            server.cfg = server.app.cfg = config
            _log.error("The reload failed, and the old settings stay in force: %s", error)

    @property
    def _in_a_worker(self) -> bool:
        """Tell whether this is the child of a fork made here: what is raised there is its way to its end."""
        return os.getpid() != self._server.pid

    def _do_without(self) -> None:
        """Let a reload not wait for those that were to be replaced: they go on."""
        for worker in self._server.WORKERS.values():
            worker.age = self._server.worker_age
