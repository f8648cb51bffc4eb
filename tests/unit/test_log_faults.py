"""What a full disk, a stranger's rm and a cap do to a log."""

import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.exceptions import NotFoundError
from app.log.clock import RunClock
from app.log.record import Record, decode_block, encode
from app.log.snapshot import Snapshot, older_segment
from app.reading.reader import LogManager
from app.shim.log_writer import LogWriter
from tests.unit.logs import records_of, text_of


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return where the log is to be."""
    return tmp_path / "logs" / "run.log"


def writer_on(log: Path, *, max_bytes: int = 0, mode: int = 0o600) -> LogWriter:
    """Return a writer for the log, which goes on after its last record."""
    writer = LogWriter(str(log), RunClock.start(), mode=mode, max_bytes=max_bytes)
    writer.resume()
    return writer


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size`: write(2) is cut short there and fails with EFBIG beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_the_disk_refuses_leaves_a_gap_and_no_torn_record(log: Path) -> None:
    """Lines that don't fit are counted and their numbers stay unused; whole records before and after are intact."""
    writer = writer_on(log)
    writer.feed(b"first\n")
    with file_size_limit(1000):
        writer.feed(b"%s\n" * 50 % (*(b"line",) * 50,))
        assert log.stat().st_size <= 1000
        assert log.read_bytes().endswith(b'"}\n')
        assert len(records_of(log)) > 10
    writer.feed(b"last\n")
    kept = records_of(log)
    assert log.read_bytes().count(b"\n") == len(kept)
    assert [r.seq for r in kept] == [*range(1, len(kept)), 52]
    assert kept[-1].line == "last"
    assert writer.dropped_lines == 52 - len(kept)
    assert writer.failed_writes == 1


def test_every_later_read_tries_again(log: Path) -> None:
    """While the disk stays full each read is tried and counted, and nothing is raised."""
    writer = writer_on(log)
    with file_size_limit(0):
        for _ in range(3):
            writer.feed(b"a\nb\n")
    assert (writer.failed_writes, writer.dropped_lines, writer.seq) == (3, 6, 6)
    writer.feed(b"c\n")
    assert [(r.seq, r.line) for r in records_of(log)] == [(7, "c")]


def test_a_line_lost_in_pieces_is_one_line(log: Path) -> None:
    """However many pieces of a line are lost, it counts once."""
    writer = writer_on(log)
    with file_size_limit(0):
        for _ in range(3):
            writer.feed(b"x")
            writer.flush_due(time.monotonic() + 1)
        writer.feed(b"\ny\n")
    assert (writer.dropped_lines, writer.seq) == (2, 2)


def test_a_log_that_can_not_be_made_yet_is_made_later(tmp_path: Path) -> None:
    """A writer that can't make its file drops and counts, and makes it once it can."""
    log = tmp_path / "logs" / "run.log"
    log.parent.touch()
    writer = writer_on(log)
    writer.feed(b"a\n")
    assert writer.dropped_lines == 1
    log.parent.unlink()
    writer.feed(b"b\n")
    assert [(r.seq, r.line) for r in records_of(log)] == [(2, "b")]


def test_a_link_in_the_logs_place_is_not_followed(log: Path, tmp_path: Path) -> None:
    """A link that somebody put where a log is to be is neither written through nor read through."""
    another = tmp_path / "another"
    another.write_bytes(encode(Record(1, "t", "secret")))
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    log.symlink_to(another)
    writer = writer_on(log)
    writer.feed(b"a\n")
    assert (writer.seq, writer.dropped_lines) == (1, 1)
    assert another.read_bytes() == encode(Record(1, "t", "secret"))
    with pytest.raises(NotFoundError):
        LogManager(log.parent).open_page(str(log))


def test_a_log_truncated_by_a_stranger_goes_on_at_its_new_end(log: Path) -> None:
    """After a truncation the next record is where the log now ends, with no hole before it."""
    writer = writer_on(log)
    writer.feed(b"a\nb\n")
    os.truncate(log, 0)
    writer.feed(b"c\n")
    assert log.read_bytes().startswith(b'{"seq":3,')


def test_a_removed_directory_is_made_anew(log: Path) -> None:
    """When someone removes the log's directory, it and the file come back, private, and the numbers go on."""
    writer = writer_on(log)
    writer.feed(b"a\n")
    shutil.rmtree(log.parent)
    writer.feed(b"b\n")
    assert [(r.seq, r.line) for r in records_of(log)] == [(2, "b")]
    assert (S_IMODE(log.parent.stat().st_mode), S_IMODE(log.stat().st_mode)) == (0o700, 0o600)


def test_a_log_shared_with_its_group_stays_so_when_made_anew(log: Path) -> None:
    """A log that its group may read comes back as one, whatever the umask."""
    old = os.umask(0o077)
    try:
        writer_on(log, mode=0o640).feed(b"a\n")
    finally:
        os.umask(old)
    assert S_IMODE(log.stat().st_mode) == 0o640


def test_a_closed_writer_opens_its_log_again(log: Path) -> None:
    """A writer can be closed between two reads without losing anything."""
    writer = writer_on(log)
    writer.feed(b"a\n")
    writer.close()
    writer.feed(b"b\n")
    assert text_of(log) == "a\nb"


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1), st.integers(2, 3000))
def test_a_capped_log_keeps_its_newest_part(
    tmp_path_factory: pytest.TempPathFactory, reads: list[bytes], max_bytes: int
) -> None:
    """With any cap and any output, what is kept is the end of the output, and each segment respects its half."""
    log = tmp_path_factory.mktemp("run") / "run.log"
    writer = writer_on(log, max_bytes=max_bytes)
    for data in reads:
        writer.feed(data)
    writer.finish()
    writer.close()
    text = b"".join(reads).removesuffix(b"\n").decode("utf-8", "backslashreplace")
    page = LogManager(log.parent).open_page(str(log))
    kept = "".join(page.texts())
    assert text.endswith(kept)
    assert page.total_lines == writer.seq == text.count("\n") + 1
    assert page.truncated == (kept.count("\n") < text.count("\n"))
    for segment in (log, Path(older_segment(str(log)))):
        if segment.exists():
            assert segment.stat().st_size <= max_bytes // 2 or len(records_of(segment)) == 1


def test_a_capped_log_keeps_at_least_its_newest_half(log: Path) -> None:
    """After many rotations the log is between half its cap, less one record, and its cap."""
    writer = writer_on(log, max_bytes=10_000)
    for number in range(2000):
        writer.feed(b"line %d\n" % number)
    kept = records_of(Path(older_segment(str(log)))) + records_of(log)
    size = sum(len(encode(r)) for r in kept)
    assert 4800 <= size <= 10_000
    assert [r.seq for r in kept] == list(range(2001 - len(kept), 2001))


def test_a_line_in_pieces_may_cross_segments(log: Path) -> None:
    """A line whose pieces lie in both segments is read as one."""
    writer = writer_on(log, max_bytes=2000)
    for number in range(12):
        writer.feed(b"piece %d " % number)
        writer.flush_due(time.monotonic() + 1)
    writer.finish()
    assert records_of(Path(older_segment(str(log))))
    assert text_of(log) == "".join(f"piece {n} " for n in range(12))


def test_a_failed_rotation_loses_nothing(log: Path) -> None:
    """Where no fresh segment can be made the old one grows on, and the rotation comes later."""
    writer = writer_on(log, max_bytes=1000)
    obstacle = Path(f"{log}.new")
    obstacle.mkdir(parents=True)
    for number in range(20):
        writer.feed(b"line %d\n" % number)
    assert [r.seq for r in records_of(log)] == list(range(1, 21))
    assert writer.dropped_lines == 0
    assert not Path(older_segment(str(log))).exists()
    obstacle.rmdir()
    writer.feed(b"after\n")
    assert [r.line for r in records_of(log)] == ["after"]
    assert not obstacle.exists()


def test_a_rotation_that_can_not_finish_keeps_the_log(log: Path) -> None:
    """Where the older segment's name is taken by a directory, output goes on into the old file."""
    Path(older_segment(str(log))).mkdir(parents=True)
    writer = writer_on(log, max_bytes=1000)
    for number in range(20):
        writer.feed(b"line %d\n" % number)
    assert [r.seq for r in records_of(log)] == list(range(1, 21))
    assert sorted(path.name for path in log.parent.iterdir()) == ["run.1.log", "run.log"]


def test_a_rotation_cut_short_is_done_again(log: Path) -> None:
    """A writer that died between a rotation's two renames leaves a log that the next one reads and rotates."""
    writer_on(log).feed(b"a\nb\n")
    older = Path(older_segment(str(log)))
    older.hardlink_to(log)
    assert text_of(log) == "a\nb"
    writer_on(log, max_bytes=300).feed(b"c\nd\n")
    assert text_of(log) == "a\nb\nc\nd"
    assert sorted(path.name for path in log.parent.iterdir()) == ["run.1.log", "run.log"]


def test_a_new_writer_goes_on_after_a_rotation(log: Path) -> None:
    """A writer that finds a fresh, empty segment takes the numbers on from the older one."""
    writer_on(log).feed(b"a\nb\n")
    log.rename(older_segment(str(log)))
    log.touch()
    writer_on(log).feed(b"c\n")
    assert [r.seq for r in records_of(log)] == [3]


def test_a_reader_keeps_what_it_opened(log: Path) -> None:
    """A snapshot reads the same bytes after rotations have replaced both of its files."""
    writer = writer_on(log, max_bytes=1000)
    writer.feed(b"".join(b"%d\n" % n for n in range(20)))
    with Snapshot.open(str(log)) as snapshot:
        before = snapshot.read(0, snapshot.size)
        writer.feed(b"".join(b"%d\n" % n for n in range(20, 80)))
        assert snapshot.read(0, snapshot.size) == before
    assert len(decode_block(before)) > 5
