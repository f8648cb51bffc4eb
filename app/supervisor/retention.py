"""Runs in the worker: remove the files of the oldest runs, in the background, whatever process they are of."""

import threading
import time

from app.reading.reader import LogManager
from app.runs.record import record_path
from app.supervisor.history import may_live
from app.supervisor.run import Run

PRUNE_DELAY = 0.05


class Retention:
    """Keep as many runs of one log directory as the policy says. Thread-safe.

    `in_use` are the ids of current runs and of those that are being started, of which no file is removed.
    """

    def __init__(self, logs: LogManager, keep: int) -> None:
        self.in_use: set[str] = set()
        self._logs = logs
        self._keep = keep
        self._awaiting = threading.Lock()  # held by a thread that is yet to prune, and will see the runs of others
        self._pruning = threading.Lock()

    def prune_after(self, run: Run) -> None:
        """Remove the files of the oldest runs once this one has begun; no start waits for it."""
        if self._keep and self._awaiting.acquire(blocking=False):
            try:
                threading.Thread(target=self._prune, args=[run], name="log-retention", daemon=True).start()
            except RuntimeError:  # no thread can be had now: the next start tries again
                self._awaiting.release()

    def _prune(self, run: Run) -> None:
        run.wait_until_begun()
        time.sleep(PRUNE_DELAY)  # the answer to the start goes first: both need the interpreter
        with self._pruning:
            self._awaiting.release()
            self._logs.prune(self._keep, self._is_in_use)

    def _is_in_use(self, run_id: str) -> bool:
        """Tell whether a run is a current one, is being started, or lives on beside these."""
        return run_id in self.in_use or may_live(record_path(str(self._logs.log_dir / f"{run_id}.log")))
