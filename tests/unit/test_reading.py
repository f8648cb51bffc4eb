"""Records become an answer."""

import json
import os
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.exceptions import BadRequestError, NotFoundError
from app.log.clock import RunClock, format_time
from app.log.record import LINE_LIMIT, Record, encode, encode_lines
from app.log.snapshot import Snapshot, older_segment
from app.reading.reader import LogManager
from app.reading.search import find_first, record_from, start_of_last
from app.shim.log_writer import LogWriter
from tests.kit.output import read_logs
from tests.kit.processes import descriptors_of

EPOCH = 1_700_000_000 * 10**9
SECOND = 10**9


@pytest.fixture
def manager(tmp_path: Path) -> LogManager:
    """Return a manager of an empty directory."""
    return LogManager(tmp_path / "logs")


@pytest.fixture
def log(manager: LogManager) -> Path:
    """Return an empty log."""
    return Path(manager.create_log_file())


def at(second: float) -> str:
    """Return the timestamp of a second of the tests' epoch."""
    return format_time(EPOCH + int(second * SECOND))


def clock_at(second: float) -> RunClock:
    """Return a clock that shows a second of the tests' epoch, give or take the time a test takes."""
    now = RunClock.start()
    return RunClock(EPOCH + int(second * SECOND), now.boottime_ns)


def whole(first: int, timestamp: str, lines: list[str]) -> bytes:
    """Return the records of whole lines."""
    output = "".join(f"{line}\n" for line in lines).encode()
    blocks = encode_lines(first, timestamp, output, 0, len(output))
    return b"".join(records for records, _count in blocks)


def ten_lines() -> bytes:
    """Return the records of lines `line 1` to `line 10`, a second apart."""
    return b"".join(encode(Record(n, at(n), f"line {n}")) for n in range(1, 11))


def numbered(first: int, last: int) -> str:
    """Return the text of some of the ten lines."""
    return "\n".join(f"line {n}" for n in range(first, last + 1))


def test_an_empty_log_is_an_empty_answer(manager: LogManager, log: Path) -> None:
    """A log without records has no lines, in every way of asking."""
    for arguments in ({}, {"lines": 5}, {"seconds": 5}):
        assert read_logs(manager, str(log), **arguments) == {
            "log_file": str(log),
            "total_lines": 0,
            "lines_returned": 0,
            "content": "",
        }


@pytest.mark.parametrize("lines", [None, 0, 10, 11, 10**9])
def test_everything(manager: LogManager, log: Path, lines: int | None) -> None:
    """Neither parameter, lines=0, and any number not below what there is mean everything."""
    log.write_bytes(ten_lines())
    answer = read_logs(manager, str(log), lines=lines)
    assert (answer["total_lines"], answer["lines_returned"], answer["content"]) == (10, 10, numbered(1, 10))


@pytest.mark.parametrize("lines", [1, 2, 9])
def test_the_last_lines(manager: LogManager, log: Path, lines: int) -> None:
    """lines=N gives the last N."""
    log.write_bytes(ten_lines())
    answer = read_logs(manager, str(log), lines=lines)
    assert (answer["total_lines"], answer["lines_returned"]) == (10, lines)
    assert answer["content"] == numbered(11 - lines, 10)


@pytest.mark.parametrize(("seconds", "count"), [(0, 0), (0.5, 1), (3.5, 4), (9.5, 10), (1e300, 10), (float("inf"), 10)])
def test_the_last_seconds(manager: LogManager, log: Path, seconds: float, count: int) -> None:
    """seconds=S gives the lines of the last S seconds of the run's clock, and seconds=0 none."""
    log.write_bytes(ten_lines())
    with manager.open_page(str(log), seconds=seconds, clock=clock_at(10)) as page:
        assert "".join(page.texts()) == numbered(11 - count, 10)
        assert (page.lines_returned, page.total_lines) == (count, 10)


def test_seconds_without_a_clock_are_the_wall_clock_s(manager: LogManager, log: Path) -> None:
    """A run whose clock is not known is read by the wall clock."""
    log.write_bytes(ten_lines() + encode(Record(11, format_time(RunClock.start().started_ns), "now")))
    assert read_logs(manager, str(log), seconds=600)["content"] == "now"


@pytest.mark.parametrize(
    "arguments", [{"lines": 1, "seconds": 1}, {"lines": -1}, {"seconds": -0.1}, {"seconds": float("nan")}]
)
def test_a_request_that_makes_no_sense_is_refused(manager: LogManager, log: Path, arguments: dict[str, Any]) -> None:
    """Both parameters at once, and numbers below 0, are the caller's fault and said to be."""
    with pytest.raises(BadRequestError) as refusal:
        manager.open_page(str(log), **arguments)
    assert refusal.value.errors


@pytest.mark.parametrize("name", ["gone.log", "gone/gone.log"])
def test_a_missing_log_is_not_found(manager: LogManager, name: str) -> None:
    """A log file that is gone is NotFoundError, and says which."""
    with pytest.raises(NotFoundError, match="gone"):
        manager.open_page(str(manager.log_dir / name))


def test_pieces_are_joined_and_count_once(manager: LogManager, log: Path) -> None:
    """The pieces of one line are one line of content, the unfinished last one included."""
    log.write_bytes(
        encode(Record(1, at(1), "whole"))
        + encode(Record(2, at(2), "a", 1, partial=True))
        + encode(Record(2, at(3), "b", 2))
        + encode(Record(3, at(4), "c", 1, partial=True))
    )
    everything = read_logs(manager, str(log))
    assert (everything["total_lines"], everything["lines_returned"], everything["content"]) == (3, 3, "whole\nab\nc")
    assert read_logs(manager, str(log), lines=2)["content"] == "ab\nc"


def test_a_line_is_as_young_as_its_last_piece(manager: LogManager, log: Path) -> None:
    """A line whose last piece is recent is given whole, from its first piece on."""
    log.write_bytes(
        encode(Record(1, at(1), "old"))
        + encode(Record(2, at(2), "a", 1, partial=True))
        + encode(Record(2, at(9), "b", 2))
        + encode(Record(3, at(10), "c"))
    )
    with manager.open_page(str(log), seconds=5, clock=clock_at(10)) as page:
        assert "".join(page.texts()) == "ab\nc"


def test_lines_that_could_not_be_written_are_not_counted(manager: LogManager, log: Path) -> None:
    """lines=N gives the last N lines that exist, across the gap that a full disk left."""
    log.write_bytes(encode(Record(1, at(1), "a")) + encode(Record(900, at(2), "b")) + encode(Record(901, at(3), "c")))
    answer = read_logs(manager, str(log), lines=3)
    assert (answer["total_lines"], answer["lines_returned"], answer["content"]) == (901, 3, "a\nb\nc")


def test_a_torn_last_record_is_left_out(manager: LogManager, log: Path) -> None:
    """A record that is not all there yet is not there yet."""
    log.write_bytes(ten_lines()[:-20])
    answer = read_logs(manager, str(log), lines=2)
    assert (answer["total_lines"], answer["content"]) == (9, numbered(8, 9))


def test_a_last_record_without_a_newline_is_read(manager: LogManager, log: Path) -> None:
    """A whole record at the end counts even where its newline is missing."""
    log.write_bytes(ten_lines()[:-1])
    assert read_logs(manager, str(log))["content"] == numbered(1, 10)


def test_a_record_in_another_json_style_is_read(manager: LogManager, log: Path) -> None:
    """White space, other key orders and escaped text are all the same to a reader."""
    log.write_text(json.dumps({"line": "é\t", "timestamp": at(1), "seq": 1}, indent=None) + "\r\n")
    assert read_logs(manager, str(log))["content"] == "é\t"


def test_a_page_is_the_log_as_it_was_opened(manager: LogManager, log: Path) -> None:
    """What is appended after a page was opened is not in it."""
    log.write_bytes(ten_lines())
    with manager.open_page(str(log)) as page:
        with log.open("ab") as file:
            file.write(encode(Record(11, at(11), "late")))
        assert "".join(page.texts()) == numbered(1, 10)
        assert page.total_lines == 10


def test_a_page_outlives_its_file(manager: LogManager, log: Path) -> None:
    """A page that was opened can be read to its end though the log is removed."""
    log.write_bytes(ten_lines())
    with manager.open_page(str(log)) as page:
        log.unlink()
        assert "".join(page.texts()) == numbered(1, 10)


def test_a_page_over_a_log_truncated_meanwhile_ends_early(manager: LogManager, log: Path) -> None:
    """A stranger's truncation while a page is read ends it, without an exception."""
    log.write_bytes(ten_lines())
    with manager.open_page(str(log)) as page:
        os.truncate(log, len(ten_lines()) // 2)
        assert numbered(1, 10).startswith("".join(page.texts()))


def test_chunks_are_the_inside_of_a_json_string(manager: LogManager, log: Path) -> None:
    """chunks() joins to valid JSON between two quotes, and is text of every kind."""
    lines = ['"', "\\", "\x00\x1b[0m\x7f", "é😀\u2028", "", "\\xff"]
    log.write_bytes(whole(1, at(1), lines))
    with manager.open_page(str(log)) as page:
        assert json.loads(b'"' + b"".join(page.chunks()) + b'"') == "\n".join(lines)
        assert page.lines_returned == len(lines)


def opened(log: Path) -> bool:
    """Tell whether this process has the log open."""
    return str(log) in descriptors_of(os.getpid()).values()


def test_a_reader_that_goes_away_gives_its_files_back(manager: LogManager, log: Path) -> None:
    """Closing a page, closing its begun chunks, or reading to the end closes the log."""
    log.write_bytes(ten_lines() * 20_000)
    for leave in ("close", "abandon", "exhaust"):
        page = manager.open_page(str(log))
        chunks = page.chunks()
        assert next(chunks)
        assert opened(log)
        if leave == "close":
            page.close()
        elif leave == "abandon":
            chunks.close()
        else:
            assert sum(map(len, chunks)) > 0
        assert not opened(log)


def test_a_refused_page_leaves_nothing_open(manager: LogManager, log: Path) -> None:
    """A page that could not be made has no file open."""
    with pytest.raises(AttributeError):
        manager.open_page(str(log), seconds=1, clock="noon")  # type: ignore[arg-type]
    assert not opened(log)


def test_many_threads_read_while_one_writes(manager: LogManager, log: Path) -> None:
    """Readers beside a writer that rotates see consecutive lines, whole, each time."""
    done = threading.Event()
    faults: list[str] = []

    def read() -> None:
        while not done.is_set():
            text = read_logs(manager, str(log))["content"]
            numbers = [int(line) for line in text.split("\n") if line]
            if numbers != list(range(numbers[0], numbers[0] + len(numbers)) if numbers else []):
                faults.append(text)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    writer = LogWriter(str(log), RunClock.start(), max_bytes=20_000)
    for start in range(1, 20_000, 10):
        writer.feed(b"".join(b"%d\n" % n for n in range(start, start + 10)))
    done.set()
    for reader in readers:
        reader.join(60)
    assert faults == []
    assert read_logs(manager, str(log), lines=1)["content"] == "20000"


def test_two_segments_are_one_log(manager: LogManager, log: Path) -> None:
    """The older segment's lines come first, in every way of asking."""
    records = ten_lines().splitlines(keepends=True)
    Path(older_segment(str(log))).write_bytes(b"".join(records[:6]))
    log.write_bytes(b"".join(records[6:]))
    assert read_logs(manager, str(log))["content"] == numbered(1, 10)
    assert read_logs(manager, str(log), lines=6)["content"] == numbered(5, 10)
    with manager.open_page(str(log), seconds=7.5, clock=clock_at(10)) as page:
        assert "".join(page.texts()) == numbered(3, 10)
        assert not page.truncated


@pytest.mark.parametrize(
    ("arguments", "truncated"),
    [
        ({}, True),
        ({"lines": 0}, True),
        ({"lines": 6}, True),
        ({"lines": 5}, False),
        ({"lines": 1}, False),
        ({"seconds": 1000}, True),
        ({"seconds": 3.5}, False),
        ({"seconds": 0}, False),
    ],
)
def test_a_read_past_what_is_kept_says_so(
    manager: LogManager, log: Path, arguments: dict[str, Any], truncated: bool
) -> None:
    """A page is truncated exactly when lines before the first one kept were asked for."""
    log.write_bytes(b"".join(ten_lines().splitlines(keepends=True)[5:]))
    with manager.open_page(str(log), **arguments, clock=clock_at(10)) as page:
        assert page.truncated == truncated
        assert (page.first_seq, page.total_lines) == (6, 10)


def test_a_line_whose_beginning_is_gone_is_truncated(manager: LogManager, log: Path) -> None:
    """A page that begins with a later piece of its first line says that something is missing."""
    log.write_bytes(encode(Record(1, at(1), "b", 2)) + encode(Record(2, at(2), "c")))
    for lines, truncated in ((0, True), (2, True), (1, False)):
        with manager.open_page(str(log), lines=lines) as page:
            assert page.truncated == truncated


garbage = st.sampled_from(
    [
        b"\n",
        b"\0" * 3000 + b"\n",
        b"{}\n",
        b"\xff\xfe\n",
        b'{"seq":1}\n',
        b'{"seq":5,"timestamp":"t","line":"\n',
        b"x" * 9000 + b"\n",
    ]
)
lines_of_log = st.lists(
    st.tuples(
        st.integers(1, 3),  # how far seq moves on
        st.lists(st.text('aé\n"\\'.replace("\n", "")) | st.just("long" * 4000), min_size=1, max_size=3),  # pieces
        st.integers(0, 3),  # seconds since the line before
        st.lists(garbage, max_size=2),
    ),
    max_size=25,
)


@given(lines_of_log, st.integers(0, 30), st.integers(0, 80), st.integers(0, 60))
def test_every_question_gets_the_answer_of_reading_it_all(
    tmp_path_factory: pytest.TempPathFactory,
    script: list[tuple[int, list[str], int, list[bytes]]],
    lines: int,
    seconds: int,
    split: int,
) -> None:
    """With gaps, pieces, garbage and a rotation anywhere, seeking finds what a plain pass over the log finds."""
    log = tmp_path_factory.mktemp("run") / "run.log"
    raw: list[bytes] = []
    seq, second = 0, 0
    model: list[tuple[int, str]] = []
    for step, pieces, pause, noise in script:
        seq += step
        for part, text in enumerate(pieces, 1):
            second += pause
            alone = len(pieces) == 1
            raw += encode(Record(seq, at(second), text, 0 if alone else part, part < len(pieces))), *noise
        model.append((second, "".join(pieces)))
    Path(older_segment(str(log))).write_bytes(b"".join(raw[:split]))
    log.write_bytes(b"".join(raw[split:]))
    manager = LogManager(log.parent)

    last = read_logs(manager, str(log), lines=lines)
    wanted = [text for _, text in model][-lines:]
    assert (last["content"], last["lines_returned"], last["total_lines"]) == ("\n".join(wanted), len(wanted), seq)
    with manager.open_page(str(log), seconds=seconds + 0.5, clock=clock_at(second)) as page:
        assert "".join(page.texts()) == "\n".join(text for at_, text in model if at_ > second - seconds - 0.5)


def big_log(path: Path, size: int) -> int:
    """Write a log of about `size` bytes; return how many lines it has."""
    block, seq = 10_000, 0
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(whole(seq + 1, at(seq // block), ["x" * 100] * block))
            seq += block
    return seq


def test_a_record_is_found_from_any_byte(log: Path) -> None:
    """From an offset within a record the next one is found, from its first byte the record itself."""
    first, second = encode(Record(1, at(1), "a")), encode(Record(2, at(2), "b"))
    log.write_bytes(first + second)
    with Snapshot.open(str(log)) as snapshot:
        for offset in range(len(first) + len(second) + 1):
            found = record_from(snapshot, offset)
            expected = 1 if offset == 0 else 2 if offset <= len(first) else None
            assert (found[2].seq if found else None) == expected


class CountingSnapshot(Snapshot):
    """Count the bytes that are read."""

    count = 0

    def read(self, start: int, end: int) -> bytes:
        """Read and count."""
        data = super().read(start, end)
        self.count += len(data)
        return data


def test_reading_the_end_costs_what_it_returns(log: Path) -> None:
    """The last lines and the last seconds of a log of 64 MB are found by reading less than 1 MB."""
    total = big_log(log, 64_000_000)
    with CountingSnapshot.open(str(log)) as snapshot:
        assert isinstance(snapshot, CountingSnapshot)
        start = start_of_last(snapshot, 100)
        assert start is not None
        found = record_from(snapshot, start)
        assert found is not None
        assert (found[0], found[2].seq) == (start, total - 99)
        find_first(snapshot, lambda record: record.timestamp >= at(30))
        assert 0 < snapshot.count < 1_000_000


@pytest.mark.parametrize("damage", [b"", b"\n", b'{"seq":30000,"timestamp":"t","line":"torn\n', b"x" * 9000 + b"\n"])
@pytest.mark.parametrize(
    ("lines", "first"), [(29_999, 2), (30_000, 1), (30_001, 1), (10**30, 1), (25_000, 5_001), (9, 29_992)]
)
def test_many_lines_are_the_last_ones_whatever_lies_between(
    manager: LogManager, log: Path, damage: bytes, lines: int, first: int
) -> None:
    """Far more lines than one look at the end finds are counted right, across gaps, garbage and backslashes."""
    text = ["x" * 100, "backslash \\", 'quote "']
    log.write_bytes(
        whole(1, at(1), text * 5_000)
        + damage
        + encode(Record(15_001, at(2), "a", 1, partial=True))
        + damage
        + encode(Record(15_001, at(2), "b", 2))
        + whole(15_002, at(3), ["x" * 100] * 14_999)
    )
    answer = read_logs(manager, str(log), lines=lines)
    returned = min(lines, 30_000)
    assert (answer["lines_returned"], answer["content"].count("\n") + 1) == (returned, returned)
    with manager.open_page(str(log), lines=lines) as page:
        texts = "".join(page.texts()).split("\n")
    everything = [*text * 5_000, "ab", *["x" * 100] * 14_999]
    assert texts == everything[first - 1 :]


@pytest.mark.parametrize(
    ("kept_from", "lines", "truncated"),
    [
        (1, 30_000, False),
        (1, 29_999, False),
        (1, 99_999, False),
        (7, 29_993, False),
        (7, 29_994, False),
        (7, 29_995, True),
    ],
)
def test_many_lines_of_a_log_past_its_cap_say_what_is_missing(
    manager: LogManager, log: Path, kept_from: int, lines: int, truncated: bool
) -> None:
    """A page of many lines is truncated exactly when more were asked for than are kept."""
    log.write_bytes(whole(kept_from, at(1), ["x" * 100] * (30_000 - kept_from + 1)))
    with manager.open_page(str(log), lines=lines) as page:
        assert page.truncated == truncated
        assert "".join(page.texts()).count("\n") + 1 == page.lines_returned == min(lines, 30_000 - kept_from + 1)


def test_a_page_is_opened_without_counting_many_lines(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the page itself is read, little more than 1 MiB of the log is; to return all lines, none are counted."""
    total = big_log(log, 16_000_000)
    manager = LogManager(log.parent)
    read: list[int] = []
    plain = Snapshot.read

    def counted(snapshot: Snapshot, start: int, end: int) -> bytes:
        data = plain(snapshot, start, end)
        read.append(len(data))
        return data

    monkeypatch.setattr(Snapshot, "read", counted)
    for lines in (total - 1, total, total + 1, 10**30):
        read.clear()
        with manager.open_page(str(log), lines=lines) as page:
            assert sum(read) < 1_500_000
            assert page.size_hint > 1_000_000
            assert not page.truncated
            assert (sum(read) < 1_500_000) == (lines >= total)


@pytest.fixture
def traced() -> Iterator[None]:
    """Follow the memory that Python allocates."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
def test_reading_takes_bounded_memory(manager: LogManager, log: Path) -> None:
    """A log of 30 MB, a file of NUL bytes, and lines of the greatest length are read in less than 8 MB."""
    big_log(log, 30_000_000)
    worst = Path(manager.create_log_file())
    with worst.open("wb") as file:
        for part in range(1, 40):
            file.write(encode(Record(1, at(1), "\x00" * LINE_LIMIT, part, partial=True)))
    zeros = Path(manager.create_log_file())
    os.truncate(zeros, 50_000_000)
    for path in (log, worst, zeros):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with manager.open_page(str(path)) as page:
            for chunk in page.chunks():
                assert len(chunk) <= 2 * 1024 * 1024
        read_logs(manager, str(path), lines=1)
        assert tracemalloc.get_traced_memory()[1] - before < 8_000_000
