"""Runs in the worker: an index in memory of all runs that are kept, by the time of their start and by their name."""

import bisect
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

from app.exceptions import InternalError
from app.log.snapshot import Snapshot, size_of
from app.runs.names import files_of_runs, is_run_id
from app.runs.record import RunRecord, has_record, read_record
from app.supervisor.entry import NOT_COUNTED, UNRECORDED, Entry, end_of, new_entry, settle, start_of, take_out

# An overlapping worker (HUP) may end a start that was asked of it before this worker listed the directory: such a start
# ends a tree (5 s), waits for leftovers (2 s), or does neither, and is over by then.
RESCAN_AFTER = 10.0
# Seconds that a call waits for the index: ten thousand records are read in two.
BUILD_TIMEOUT = 30.0
_CHUNK = 32


class RunIndex:
    """Know all runs of a log directory without reading it at each call. Thread-safe.

    Built once, in a thread of its own (`prepare`), from the records on disk; from then on `add` keeps it current. Runs
    of which there are files and no readable record are kept apart, for retention alone.
    """

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._prefix = f"{log_dir}/"  # a Path would keep each part of it in the interpreter's table of strings
        self._changing = threading.Lock()
        self._entries: dict[str, Entry] = {}
        # Oldest start first; of the ended ones oldest end first. A list of ten thousand takes an insertion in
        # microseconds.
        self._by_start: list[Entry] = []
        self._by_name: dict[str, list[Entry]] = {}
        self._by_end: list[Entry] = []
        self._live: dict[str, Entry] = {}
        self._bytes = 0
        self._preparing = threading.Lock()
        self._build: Future[None] | None = None
        self._closed = threading.Event()

    def prepare(self) -> Future[None] | None:
        """Begin to build the index unless that was begun, and return the build; None where no thread can be had."""
        with self._preparing:
            if self._build is None or (self._build.done() and self._build.exception()):
                build: Future[None] = Future()
                try:
                    threading.Thread(target=self._fulfil, args=[build], name="run-index", daemon=True).start()
                except RuntimeError:  # CPython's only sign of EAGAIN from pthread_create(3)
                    return None
                self._build = build
            return self._build

    def wait_until_built(self) -> None:
        """Wait for the index; where no thread can be had, build it in this one.

        Raises what the build has met, such as `OSError`, and `InternalError` where it takes too long.
        """
        build = self.prepare()
        if build is None:
            self._scan()
            return
        try:
            build.result(BUILD_TIMEOUT)
        except TimeoutError as error:
            raise InternalError("The records of past runs are still being read: call again in a moment.") from error

    def close(self) -> None:
        """Stop building."""
        self._closed.set()

    def add(self, record: RunRecord) -> None:
        """Take in a run that was started or loaded; one whose files lie elsewhere is no run of this directory."""
        if Path(record.log_file).parent == self._log_dir and is_run_id(record.run_id):
            self._add(record.run_id, record)

    def discard(self, run_id: str) -> None:
        """Forget a run, if it is known."""
        with self._changing:
            entry = self._entries.pop(run_id, None)
            if entry is None:
                return
            if entry.name != UNRECORDED:
                take_out(self._by_start, entry, start_of)
            take_out(self._by_name[entry.name], entry, start_of)
            if not self._by_name[entry.name]:
                del self._by_name[entry.name]
            if entry.ended:
                take_out(self._by_end, entry, end_of)
                self._bytes -= entry.log_bytes
            else:
                del self._live[run_id]

    def find(self, run_id: str) -> Entry | None:
        """Return a run that has a record; None when none is kept."""
        self.wait_until_built()
        entry = self._entries.get(run_id)
        return entry if entry is not None and entry.name != UNRECORDED and self._is_kept(entry) else None

    def walk(self, name: str | None, before: Entry | None) -> Iterator[Entry]:
        """Yield the runs with a record, of this name or of all, newest start first, from the one before `before` on.

        Runs that come or go meanwhile don't disturb it.
        """
        self.wait_until_built()
        key = None if before is None else start_of(before)
        while chunk := self._older(name, key):
            for entry in chunk:
                if self._is_kept(entry):
                    yield entry
            key = start_of(chunk[-1])

    def newest_of(self, name: str) -> str | None:
        """Return the record's path of a name's newest run that came to have a process; None when none is kept."""
        for entry in self.walk(name, None):
            record = read_record(self.path_of(entry))
            if record is not None and (record.process is not None or record.state.ended):
                return self.path_of(entry)
        return None

    def names(self) -> dict[str, Entry]:
        """Return each name's newest run."""
        self.wait_until_built()
        with self._changing:
            return {name: runs[-1] for name, runs in self._by_name.items() if name != UNRECORDED}

    def beyond(self, keep: int) -> list[Entry]:
        """Return all but the newest `keep` runs of each name, oldest start first.

        What counts as one name is decided here alone. Those without a record count as one, too.
        """
        with self._changing:
            return [run for runs in self._by_name.values() if len(runs) > keep for run in runs[: len(runs) - keep]]

    def ended(self) -> list[Entry]:
        """Return the runs that have ended, oldest end first."""
        with self._changing:
            return self._by_end.copy()

    def live(self) -> list[Entry]:
        """Return the runs of which it is not known that they have ended."""
        with self._changing:
            return list(self._live.values())

    def newest(self) -> Entry | None:
        """Return the run that was started last."""
        with self._changing:
            return self._by_start[-1] if self._by_start else None

    def log_bytes(self) -> int:
        """Return the size of all logs, of live runs as it is now."""
        return self._bytes + sum(size_of(self._log_of(entry)) for entry in self.live())

    def settle(self, entry: Entry, record: RunRecord) -> None:
        """Keep the outcome of a run that has ended, as its record tells it."""
        size = size_of(self._log_of(entry))
        with self._changing:
            if self._live.pop(entry.run_id, None) is entry:
                settle(entry, record, size)
                self._count(entry)

    def measure(self, entry: Entry) -> tuple[int | None, int]:
        """Return a run's lines, None when its log is gone, and the bytes of its log; read anew only where it changed.

        A log is appended to, or removed: one of the same size is the same.
        """
        size = size_of(self._log_of(entry))
        if not entry.ended:
            return self._lines_of(entry), size
        if size != entry.log_bytes or entry.total_lines == NOT_COUNTED:
            lines = self._lines_of(entry)
            with self._changing:
                if self._entries.get(entry.run_id) is entry:
                    self._bytes += size - entry.log_bytes
                entry.total_lines, entry.log_bytes = lines, size
        return entry.total_lines, entry.log_bytes

    def path_of(self, run: Entry | str) -> str:
        """Return the path of a run's record, by its entry or its id."""
        return f"{self._prefix}{run if isinstance(run, str) else run.run_id}.json"

    def _fulfil(self, build: Future[None]) -> None:
        """Scan the directory, and once more after a moment, for runs that an overlapping worker has started."""
        try:
            self._scan()
        except Exception as error:  # noqa: BLE001  raised by the calls that wait for it, of which the next tries again
            build.set_exception(error)
            return
        build.set_result(None)
        if not self._closed.wait(RESCAN_AFTER):
            with contextlib.suppress(OSError):  # as above; what is missing then is found by the next worker
                self._scan()

    def _scan(self) -> None:
        """Take in all runs on disk that are not known, the newest by name first, and drop those without files."""
        known = set(self._entries)
        found = files_of_runs(self._log_dir)
        for run_id in known.difference(run_id for _second, _number, run_id in found):
            self.discard(run_id)
        for _second, _number, run_id in sorted(found, reverse=True):
            entry = self._entries.get(run_id)
            if entry is None or entry.name == UNRECORDED:
                self._add(run_id, read_record(f"{self._prefix}{run_id}.json"))
            if self._closed.is_set():
                return

    def _add(self, run_id: str, record: RunRecord | None) -> None:
        new = new_entry(run_id, record, size_of(f"{self._prefix}{run_id}.log"))
        former = self._entries.get(run_id)
        if former is not None and former.name == UNRECORDED:
            self.discard(run_id)
        with self._changing:
            if run_id not in self._entries:
                self._insert(new)

    def _insert(self, entry: Entry) -> None:
        self._entries[entry.run_id] = entry
        if entry.name != UNRECORDED:
            bisect.insort(self._by_start, entry, key=start_of)
        bisect.insort(self._by_name.setdefault(entry.name, []), entry, key=start_of)
        if entry.ended:
            self._count(entry)
        else:
            self._live[entry.run_id] = entry

    def _count(self, entry: Entry) -> None:
        bisect.insort(self._by_end, entry, key=end_of)
        self._bytes += entry.log_bytes

    def _older(self, name: str | None, key: tuple[str, str] | None) -> list[Entry]:
        """Return the next runs before this key, newest first."""
        with self._changing:
            runs = self._by_start if name is None else self._by_name.get(name, [])
            end = len(runs) if key is None else bisect.bisect_left(runs, key, key=start_of)
            return runs[max(0, end - _CHUNK) : end][::-1]

    def _is_kept(self, entry: Entry) -> bool:
        """Tell whether an ended run still has a record; drop it where somebody has removed that.

        A live run may get its record back: its shim makes what was removed anew.
        """
        if not entry.ended or has_record(self.path_of(entry)):
            return True
        self.discard(entry.run_id)
        if Path(self._log_of(entry)).exists():
            self._add(entry.run_id, None)
        return False

    def _log_of(self, entry: Entry) -> str:
        return f"{self._prefix}{entry.run_id}.log"

    def _lines_of(self, entry: Entry) -> int | None:
        try:
            with Snapshot.open(self._log_of(entry)) as snapshot:
                last = snapshot.last_record()
        except OSError:  # removed, or not to be read: how many there were is not known
            return None
        return last.seq if last is not None else 0
