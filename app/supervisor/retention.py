"""Runs in the worker: remove the files of old runs, in the background after a start."""

import logging
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from app.exceptions import InternalError
from app.runs.members import ids_of_live_runs, live_keepers
from app.runs.pointer import Pointer
from app.runs.record import RunRecord, load_record
from app.runs.retention import remove_files
from app.supervisor.entry import UNRECORDED, Entry
from app.supervisor.history import History
from app.supervisor.policy import Policy
from app.supervisor.remains import members_of
from app.supervisor.run import Run

logger = logging.getLogger(__name__)
# Ended runs that are kept at most, of all names together: lists and the directory stay quick.
MOST_ENDED = 10_000
PRUNE_DELAY = 0.05
# A start writes its record right after it has made its log, and its process into it once it has that.
START_TIME = 60.0
LiveIds = Callable[[], set[str]]


class Retention:
    """Remove the files of old runs of one log directory, of all its names. Thread-safe.

    `forget` has a name let go of its current run, and returns whether it has: see `ProcessManager.forget`. A run of
    which anything lives is never touched; what can't be removed is tried again after the next start.
    """

    def __init__(self, log_dir: Path, history: History, policy: Policy, forget: Callable[[str, str], bool]) -> None:
        self._log_dir = log_dir
        self._history = history
        self._index = history.index
        self._policy = policy
        self._forget = forget
        self._awaiting = threading.Lock()  # held by a thread that is yet to prune, and will see the runs of others
        self._pruning = threading.Lock()

    def after(self, run: Run) -> None:
        """Remove what is beyond the bounds once this run has begun, in the background: no start waits for it."""
        self._index.add(run.record)  # before: a thread that waits already counts this run, too
        if (self._policy.log_keep or self._policy.log_total_bytes) and self._awaiting.acquire(blocking=False):
            try:
                threading.Thread(target=self._prune_after, args=[run], name="log-retention", daemon=True).start()
            except RuntimeError:  # no thread can be had now: the next start tries again
                self._awaiting.release()

    def _prune_after(self, run: Run) -> None:
        run.wait_until_begun()
        time.sleep(PRUNE_DELAY)  # the answer to the start goes first: both need the interpreter
        with self._pruning:
            self._awaiting.release()
            try:
                self.prune()
            except (InternalError, OSError) as error:  # the next start tries again
                logger.warning("Old runs could not be removed: %s", error)

    def prune(self) -> None:
        """Remove what is beyond the bounds; raises `InternalError` where the index can't be had."""
        self._index.wait_until_built()
        self._settle()
        live_ids = cache(ids_of_live_runs)
        if self._policy.log_keep:
            for entry in self._index.beyond(self._policy.log_keep):
                if not self._is_current(entry):
                    self._remove(entry, live_ids)
        self._bound_all(live_ids)

    def _settle(self) -> None:
        """Find out which runs have ended since the last time; only the few that had not are looked at."""
        for entry in self._index.live():
            record = load_record(self._index.path_of(entry))
            if record is None and not self._has_log(entry) and not self._is_current(entry):
                self._index.discard(entry.run_id)
            if record is not None and not record.state.ended and not self._may_live(entry, record):
                record.state = self._history.state_of(record)
            if record is not None and record.state.ended:
                self._index.settle(entry, record)

    def _bound_all(self, live_ids: LiveIds) -> None:
        """Keep the bounds of all names together: past runs go first, then whole names, whose last run has ended.

        Of these the one that was started last stays, however large its log is.
        """
        ended = self._index.ended()
        runs = len(ended) - MOST_ENDED
        size = self._index.log_bytes() - self._policy.log_total_bytes if self._policy.log_total_bytes else 0
        last_of_names = []
        for entry in ended:
            if runs <= 0 and size <= 0:
                return
            if self._is_current(entry):
                last_of_names.append(entry)
            elif self._remove(entry, live_ids):
                runs, size = runs - 1, size - entry.log_bytes
        newest = self._index.newest()
        for entry in last_of_names:
            if runs <= 0 and size <= 0:
                return
            if entry is not newest and self._forget(entry.name, entry.run_id) and self._remove(entry, live_ids):
                runs, size = runs - 1, size - entry.log_bytes

    def _remove(self, entry: Entry, live_ids: LiveIds) -> bool:
        """Remove a run's files unless anything of it may live; tell whether none is left."""
        if entry.name == UNRECORDED:
            if self._has_record(entry) or self._is_starting(entry) or entry.run_id in live_ids():
                return False
        elif not entry.ended:
            record = load_record(self._index.path_of(entry))
            if (entry.run_id in live_ids()) if record is None else self._may_live(entry, record):
                return False
        if not remove_files(self._log_dir, entry.run_id):
            return False
        self._index.discard(entry.run_id)
        return True

    def _has_record(self, entry: Entry) -> bool:
        """Take in a run whose record can be read after all."""
        record = load_record(self._index.path_of(entry))
        if record is not None:
            self._index.add(record)
        return record is not None

    def _may_live(self, entry: Entry, record: RunRecord) -> bool:
        """Tell whether a run that has not ended is a name's last one, is being started, or has a live process."""
        if self._is_current(entry) or (record.process is None and self._is_starting(entry)):
            return True
        return bool(live_keepers(record)) or bool(members_of(record))

    def _has_log(self, entry: Entry) -> bool:
        return (self._log_dir / f"{entry.run_id}.log").exists()

    def _is_starting(self, entry: Entry) -> bool:
        """Tell whether a run is so young that its record may not be complete yet, in another worker perhaps."""
        try:
            return time.time() - (self._log_dir / f"{entry.run_id}.log").stat().st_mtime < START_TIME
        except OSError:  # no log: no start is under way
            return False

    def _is_current(self, entry: Entry) -> bool:
        """Tell whether this is its name's last run."""
        return Pointer(self._log_dir, entry.name).read() == self._index.path_of(entry)
