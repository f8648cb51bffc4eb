"""Runs in every process of ours: a run's record, whole on disk at every instant, and the paths of its files."""

import contextlib
import os
from typing import Literal

import msgspec

from app.linux.libc import exchange
from app.linux.proc import Identity, boot_id
from app.log.clock import RunClock
from app.runs.spec import DEFAULT_NAME, Spec

RESERVE = 4096
# A command and an environment as large as may be, escaped character by character, and the members of a large tree.
MAX_RECORD = 64 * 1024 * 1024
# Follows no link and waits for no other end of a FIFO: another program may have put one there.
_IN_PLACE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

# What msgspec raises for other bytes: for invalid UTF-8 a ValueError (UnicodeDecodeError), for deep nesting a
# RecursionError, neither of which is a MsgspecError.
UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
Cause = Literal["kill", "restart", "replace", "shutdown"]
# After a stop with one of these causes nothing is to be started, whatever operation it joined.
OVERTAKING: frozenset[Cause] = frozenset({"kill", "shutdown"})
# On disk and in messages these keep the names that version 1 gave them.
_FIELDS = {"incidents": "trouble", "signalled": "told", "cancellations": "orders"}


class State(msgspec.Struct, tag="state", frozen=True, kw_only=True, omit_defaults=True, rename=_FIELDS):
    """Hold everything about a run that changes, in one value that is replaced as a whole.

    `killed_by` is set with the first signal that found the process alive. `ended` is set when the tree is gone, the
    output is closed and nothing will change any more. `cancellations` counts the requests for the tree's end
    after which nothing is to be started. `incidents` counts what went wrong, by kind.
    """

    stopped_at: str | None = None
    exit_code: int | None = None
    killed_by: Cause | None = None
    escalated: bool = False
    unknown: str | None = None
    output_open: bool = True
    ended: bool = False
    cancellations: int = 0
    incidents: dict[str, int] = {}

    def or_later(self, other: "State") -> "State":
        """Return the other state of the same run where that knows more of its end, else this one."""
        return max(self, other, key=lambda one: (one.ended, one.stopped_at is not None, one.killed_by is not None))


class Intent(msgspec.Struct, frozen=True, omit_defaults=True, rename=_FIELDS):
    """Hold a stop that was begun, written before its first signal so that an understudy can finish it.

    `signalled` are the members to which SIGTERM was sent, or was about to be. `spared` are the daemons among the
    record's members, which the stop leaves alone; None where it ends daemons, too.
    """

    signal: str
    kill_at_ns: int
    cause: Cause
    signalled: list[Identity] = []
    spared: list[Identity] | None = None


class RunRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Hold all that a new supervisor or shim needs to report on a run or to take it over.

    `name` is the process whose run it is. `started_ns`, `boottime_ns` and `boot_id` are the run's clock. `members` are
    the live members of the tree as last reported. `beside` names members of the run before that could not be ended.
    `pipe` is the output's inode, which shows who can write to it.
    """

    run_id: str
    name: str = DEFAULT_NAME
    spec: Spec
    created_at: str
    started_ns: int
    boottime_ns: int
    boot_id: str
    control: str
    log_file: str
    log_mode: int = 0o600
    log_max_bytes: int = 0
    shim: Identity | None = None
    understudy: Identity | None = None
    pipe: int = 0
    process: Identity | None = None
    state: State = State()
    intent: Intent | None = None
    beside: str = ""
    members: list[Identity] = []

    @property
    def clock(self) -> RunClock:
        """Return the clock that the run's timestamps come from."""
        return RunClock(self.started_ns, self.boottime_ns)


class _RecordV1(RunRecord, kw_only=True, omit_defaults=True):
    spec: Spec = Spec("")


def record_path(log_file: str) -> str:
    """Return where the record of a run with this log lies: beside it, under the same stem."""
    return os.path.splitext(log_file)[0] + ".json"


def spare_path(path: str) -> str:
    """Return where a record's spare lies."""
    return f"{path}.spare"


def has_record(path: str) -> bool:
    """Tell whether there is a record at this path, or its last version but one."""
    return os.path.exists(path) or os.path.exists(spare_path(path))


def read_record(path: str) -> RunRecord | None:
    """Read a run record, or its last version but one where it is damaged; None when neither can be read."""
    for name in (path, spare_path(path)):
        with contextlib.suppress(OSError, *UNDECODABLE), open(name, "rb", opener=_open_in_place) as file:
            # No more than there is: read() reserves what it is asked for.
            return decode_record(file.read(min(os.fstat(file.fileno()).st_size, MAX_RECORD)))
    return None


def load_record(path: str) -> RunRecord | None:
    """Read a record as `read_record` does, with the path of the log that lies beside it.

    Both may have been moved here, or restored from a backup. The shim of a run that may live writes to the old place.
    """
    record = read_record(path)
    if record is not None and (record.state.ended or record.boot_id != boot_id()):
        record.log_file = os.path.join(os.path.dirname(path), os.path.basename(record.log_file))
    return record


def encode_record(record: RunRecord) -> bytes:
    """Turn a record into JSON."""
    return msgspec.json.encode(record)


def decode_record(data: bytes) -> RunRecord:
    """Read a record from JSON, also one of version 1, which held the spec's fields itself.

    Raises one of `UNDECODABLE` for anything else.
    """
    try:
        return msgspec.json.decode(data, type=RunRecord)
    except msgspec.ValidationError:
        old = msgspec.json.decode(data, type=_RecordV1)
        old.spec = msgspec.json.decode(data, type=Spec)
        return old


def _open_in_place(path: str, flags: int) -> int:
    return os.open(path, flags | _IN_PLACE)


class RecordFile:
    """Keep one run record on disk, always whole, also when the disk is full.

    Two files of the same size lie side by side, padded with white space that JSON ignores. A new version overwrites the
    spare in place, which needs no new block, and `RENAME_EXCHANGE` (renameat2(2)) swaps the two in one step.
    """

    def __init__(self, path: str, mode: int = 0o600) -> None:
        self.path = path
        self._spare = spare_path(path)
        self._mode = mode

    def write(self, record: RunRecord) -> None:
        """Replace the record on disk; raises `OSError` when neither way of doing so works."""
        try:
            filled = self.fill_spare(record)
        except OSError:  # gone, or another kind of file: both are made anew
            filled = False
        if not (filled and exchange(self._spare, self.path)):
            self._create(encode_record(record))

    def replace(self, record: RunRecord) -> None:
        """Write the record only where there is one: what is missing was removed on purpose. Raises `OSError`."""
        if os.path.exists(self.path):
            self.write(record)

    def fill_spare(self, record: RunRecord) -> bool:
        """Overwrite the spare; False when the record is too long for it.

        After the run's last write this makes the two the same, should one be lost. Makes no file: one that is missing
        then was removed on purpose. Raises `OSError` where there is none.
        """
        data = encode_record(record)
        fd = os.open(self._spare, os.O_WRONLY | _IN_PLACE)
        try:
            capacity = os.fstat(fd).st_size
            if len(data) > capacity:
                return False
            _write_all(fd, data.ljust(capacity - 1) + b"\n")
            return True
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Remove the record, its spare and what a write left unfinished, as far as they are there."""
        for path in (self.path, self._spare, f"{self.path}.new"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _create(self, data: bytes) -> None:
        """Write record and spare anew, each beside its place and then renamed onto it."""
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        capacity = (len(data) // RESERVE + 2) * RESERVE
        padded = data.ljust(capacity - 1) + b"\n"
        fresh = f"{self.path}.new"
        for target in (self.path, self._spare):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._mode)
            try:
                _write_all(fd, padded)
            finally:
                os.close(fd)
            os.rename(fresh, target)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
