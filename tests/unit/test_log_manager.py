"""A log directory and the files made in it."""

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from stat import S_IMODE

import pytest

from app.exceptions import InternalError
from app.log.snapshot import older_segment
from app.reading.reader import LogManager


def mode(path: str | Path) -> int:
    """Return a file's permission bits."""
    return S_IMODE(Path(path).stat().st_mode)


@pytest.fixture
def manager(tmp_path: Path) -> LogManager:
    """Return a manager of an empty directory."""
    return LogManager(tmp_path / "logs")


def test_a_log_is_named_after_its_second_in_utc(manager: LogManager) -> None:
    """A new log is an empty file with an absolute path and a name like 2026-11-22_06-08-00.log."""
    path = Path(manager.create_log_file())
    assert path.is_absolute()
    assert path.parent == manager.log_dir
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.log", path.name)
    assert path.read_bytes() == b""


def test_no_log_is_shared(manager: LogManager) -> None:
    """However many logs are made within a second, each has a file of its own."""
    paths = [manager.create_log_file() for _ in range(20)]
    assert len(set(paths)) == 20
    assert all(re.fullmatch(r"[\d-]{10}_[\d-]{8}(_\d+)?\.log", Path(path).name) for path in paths)


def test_no_name_is_given_again(manager: LogManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that are gone, or that another manager began, keep their numbers, also when the clock is set back."""
    given, at = [], time.gmtime
    for second, others in [(100, ["_2"]), (200, []), (200, []), (100, []), (100, ["_7"]), (201, [])]:
        now = at(second)
        monkeypatch.setattr(time, "gmtime", lambda now=now: now)
        for end in others:
            (manager.log_dir / f"{time.strftime('%Y-%m-%d_%H-%M-%S', now)}{end}.log").touch()
        given.append(Path(manager.create_log_file()).stem[len("1970-01-01_00-") :])
    assert given == ["01-40_3", "03-20", "03-20_2", "01-40_4", "01-40_8", "03-21"]


def test_a_new_name_costs_the_same_however_many_there_are(manager: LogManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the manager knows the newest name it looks through the directory no more."""
    manager.create_log_file()
    monkeypatch.setattr(os, "listdir", None)
    assert len({manager.create_log_file() for _ in range(3)}) == 3


@pytest.mark.parametrize("taken", ["test.log", "test.json", "test.1.log"])
def test_a_name_is_taken_by_any_file_of_a_run(manager: LogManager, taken: str) -> None:
    """A caller's log file gets _2 where the name's log, older segment or run record exists, and _3 after that."""
    (manager.log_dir / taken).write_text("history")
    wanted = manager.log_dir / "test.log"
    assert manager.claim_log_file(wanted) == str(manager.log_dir / "test_2.log")
    assert manager.claim_log_file(str(wanted)) == str(manager.log_dir / "test_3.log")
    assert (manager.log_dir / taken).read_text() == "history"


def test_a_relative_log_file_is_made_absolute(
    manager: LogManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller's relative path is one in the working directory, whose missing directories are made."""
    monkeypatch.chdir(tmp_path)
    assert manager.claim_log_file("elsewhere/deep/test.log") == str(tmp_path / "elsewhere" / "deep" / "test.log")


@pytest.mark.parametrize(("group_read", "directory", "file"), [(False, 0o700, 0o600), (True, 0o750, 0o640)])
def test_logs_are_private(tmp_path: Path, group_read: bool, directory: int, file: int) -> None:
    """Directory and logs are for their owner alone, or their group's to read, whatever was there and the umask."""
    (tmp_path / "logs").mkdir(mode=0o755)
    old = os.umask(0o077)
    try:
        manager = LogManager(tmp_path / "logs", group_read=group_read)
        assert mode(manager.create_log_file()) == file
    finally:
        os.umask(old)
    assert mode(manager.log_dir) == directory


def test_the_directory_is_the_working_directory_s_logs_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an argument logs are in ./logs, which is made and stays the same when the working directory changes."""
    monkeypatch.chdir(tmp_path)
    manager = LogManager()
    monkeypatch.chdir("/")
    assert manager.log_dir == tmp_path / "logs"
    assert manager.log_dir.is_dir()


def test_a_removed_directory_is_made_anew(manager: LogManager) -> None:
    """A directory that someone removed is made again, private, for the next log."""
    shutil.rmtree(manager.log_dir)
    assert Path(manager.create_log_file()).exists()
    assert mode(manager.log_dir) == 0o700


@pytest.mark.parametrize("below", [".", "deep/er"])
def test_a_file_in_the_directory_s_place(tmp_path: Path, below: str) -> None:
    """Where a file is in the place of the directory, or of one above it, the fault names the setting and that file."""
    (tmp_path / "logs").touch()
    with pytest.raises(InternalError) as caught:
        LogManager(tmp_path / "logs" / below)
    assert caught.value.detail == (
        f"LLM_SHELL_LOG_DIR: {tmp_path}/logs is a file, not a directory. Move it away, or name another directory."
    )


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda place: place.symlink_to("nothing"), "logs is a dangling link, not a directory. Move it away"),
        (os.mkfifo, "logs is something else, not a directory. Move it away"),
        (lambda place: place.symlink_to("logs"), "logs is a dangling link, not a directory. Move it away"),
    ],
    ids=["link to nothing", "pipe", "link to itself"],
)
def test_what_else_can_be_in_the_directory_s_place(tmp_path: Path, make: Callable[[Path], None], told: str) -> None:
    """The same for links and special files."""
    make(tmp_path / "logs")
    with pytest.raises(InternalError) as caught:
        LogManager(tmp_path / "logs")
    assert caught.value.detail.startswith(f"LLM_SHELL_LOG_DIR: {tmp_path}/{told}")


def test_a_directory_that_may_not_be_made() -> None:
    """Where the system forbids it, the fault names the setting and says what to name."""
    with pytest.raises(InternalError) as caught:
        LogManager("/sys/logs")  # where root, too, makes none (sysfs(5))
    assert caught.value.detail.startswith("LLM_SHELL_LOG_DIR: /sys/logs can't be made or used: ")
    assert caught.value.detail.endswith(". Name a directory that the service may write to.")


def test_a_log_that_can_not_be_made_is_told_in_the_system_s_words(manager: LogManager) -> None:
    """A name that the file system refuses is a fault that names the reason."""
    with pytest.raises(InternalError, match=r"^LLM_SHELL_LOG_DIR: .* can't be made or used: File name too long\.$"):
        manager.claim_log_file(manager.log_dir / f"{'x' * 300}.log")


@pytest.mark.parametrize(
    ("log", "older"), [("a/run.log", "a/run.1.log"), ("run", "run.1"), ("a.b/x.txt", "a.b/x.1.txt")]
)
def test_the_older_segment_is_beside_the_log(log: str, older: str) -> None:
    """The older segment's name is the log's with .1 before the extension."""
    assert older_segment(log) == older
