"""The run record is whole on disk at every instant, whatever happens to the disk."""

import errno
import json
import os
import resource
import signal
from pathlib import Path

import pytest

from app.linux.proc import Identity
from app.runs.record import Intent, RecordFile, State, encode_record, read_record, spare_path
from tests.kit.records import make_record


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """A record comes back as it was written, its identities included."""
    path = str(tmp_path / "run.json")
    record = make_record(process=Identity(42, 4242), env={"A": "1"}, state=State(stopped_at="then", exit_code=-15))
    RecordFile(path).write(record)
    assert read_record(path) == record


def test_the_file_is_the_owner_s_alone(tmp_path: Path) -> None:
    """Record and spare have mode 0600 whatever the umask: they hold the caller's environment."""
    old = os.umask(0)
    try:
        RecordFile(str(tmp_path / "run.json")).write(make_record())
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_second_write_takes_no_new_block(tmp_path: Path) -> None:
    """A change is written although the disk takes not one byte more, and the former version stays beside it."""
    path = str(tmp_path / "run.json")
    file = RecordFile(path)
    file.write(make_record())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(path).stat().st_size, limits[1]))
    try:
        file.write(make_record(state=State(exit_code=3, stopped_at="then", ended=True)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    found = read_record(path)
    assert found is not None
    assert found.state.exit_code == 3
    assert Path(spare_path(path)).stat().st_size == Path(path).stat().st_size


def test_a_write_that_fails_leaves_the_record_as_it_was(tmp_path: Path) -> None:
    """When nothing can be written the old record stays whole, and the error says why."""
    path = str(tmp_path / "run.json")
    file = RecordFile(path)
    file.write(make_record())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            file.write(make_record(command="another"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    found = read_record(path)
    assert found is not None
    assert found.spec.command == "echo привет"


def test_a_record_that_outgrows_its_place_is_written_anew(tmp_path: Path) -> None:
    """A record larger than the space set aside for it is written all the same."""
    path = str(tmp_path / "run.json")
    file = RecordFile(path)
    file.write(make_record())
    grown = make_record(members=[Identity(pid, pid) for pid in range(5000)])
    file.write(grown)
    file.write(grown)
    assert read_record(path) == grown


def test_a_removed_directory_is_made_anew(tmp_path: Path) -> None:
    """The record is written although somebody removed the directory."""
    path = str(tmp_path / "logs" / "run.json")
    RecordFile(path).write(make_record())
    for file in (tmp_path / "logs").iterdir():
        file.unlink()
    (tmp_path / "logs").rmdir()
    RecordFile(path).write(make_record())
    assert read_record(path) == make_record()


@pytest.mark.parametrize("garbage", [b"", b"{", b"null", b"[]", b"\0" * 100, b'{"run_id": 1}', b"\xff\xfe"])
def test_a_broken_record_is_read_from_its_spare(tmp_path: Path, garbage: bytes) -> None:
    """A record that somebody broke is read from the version before it; with that broken too there is none."""
    path = str(tmp_path / "run.json")
    RecordFile(path).write(make_record())
    Path(path).write_bytes(garbage)
    assert read_record(path) == make_record()
    Path(spare_path(path)).write_bytes(garbage)
    assert read_record(path) is None


@pytest.mark.parametrize("name", ["run.json", "run.json.spare", "run.json.new"])
@pytest.mark.parametrize("grown", [False, True])
def test_a_link_in_place_of_a_file_is_replaced(tmp_path: Path, name: str, *, grown: bool) -> None:
    """Whatever file a planted link leads to is left as it is, and the record is written."""
    (tmp_path / "logs").mkdir()
    path = str(tmp_path / "logs" / "run.json")
    victim = tmp_path / "victim"
    victim.write_bytes(b"v" * 65536)
    RecordFile(path).write(make_record())
    planted = tmp_path / "logs" / name
    planted.unlink(missing_ok=True)
    planted.symlink_to(victim)
    record = make_record(process=Identity(7, 7), members=[Identity(pid, pid) for pid in range(5000 if grown else 0)])
    RecordFile(path).write(record)
    RecordFile(path).write(record)
    assert read_record(path) == record
    assert victim.read_bytes() == b"v" * 65536


def test_a_fifo_in_place_of_a_file_holds_nobody_up(tmp_path: Path) -> None:
    """A FIFO that nobody reads is replaced by the record instead of being waited for."""
    path = str(tmp_path / "run.json")
    RecordFile(path).write(make_record())
    Path(spare_path(path)).unlink()
    os.mkfifo(spare_path(path))
    RecordFile(path).write(make_record(process=Identity(7, 7)))
    found = read_record(path)
    assert found is not None
    assert found.process == Identity(7, 7)


def test_a_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """A field that is not known any more, or not yet, is passed over."""
    path = tmp_path / "run.json"
    record = make_record(state=State(stopped_at="then", exit_code=6, ended=True))
    path.write_bytes(encode_record(record).replace(b"{", b'{"witnessed":true,"of_the_future":[1],', 1))
    assert read_record(str(path)) == record


def test_fields_of_version_1_keep_their_names() -> None:
    """What a shim of version 1 wrote, or may still have to read, is called on disk what it was called then."""
    intent = Intent("SIGTERM", 5, "kill", [Identity(7, 8)])
    written = json.loads(encode_record(make_record(intent=intent, state=State(incidents={"takeovers": 1}))))
    assert written["intent"] == {"signal": "SIGTERM", "kill_at_ns": 5, "cause": "kill", "told": [[7, 8]]}
    assert written["state"]["trouble"] == {"takeovers": 1}
