"""A full disk costs lines of the log and nothing else."""

from __future__ import annotations

import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kit.actors import record_of, shim_of, worker_of
from tests.kit.machine import limited, lines_lost, log_records, tmpfs
from tests.kit.processes import send
from tests.kit.service import Service
from tests.kit.services import lent, services_in
from tests.kit.waiting import wait_until

# As records, several times what the file system takes: the last of these lines are lost for certain.
FLOOD = 40_000
AFTER = 100


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a small file system."""
    with tmpfs(tmp_path_factory.mktemp("small") / "disk") as folder:
        yield folder


@pytest.fixture(scope="module")
def service_on_disk(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a service that logs to the small file system; it is gone before that is unmounted."""
    with services_in(tmp_path_factory.mktemp("on-disk")) as services:
        yield services(settings={"LLM_SHELL_LOG_DIR": str(disk / "logs")})


@pytest.fixture
def full_disk_service(service_on_disk: Service, disk: Path) -> Iterator[Service]:
    """Return the service when half of its disk is taken by a file that may be removed; clear the disk afterwards."""
    ballast_on(disk).write_bytes(bytes(512 * 1024))
    with lent(service_on_disk) as service:
        yield service
    for path in (*disk.iterdir(), *service.log_dir.iterdir()):
        if not path.is_dir():
            path.unlink()


def ballast_on(disk: Path) -> Path:
    """Return the file whose removal makes space."""
    return disk / "ballast"


def start_flood(service: Service, go: Path, last_words: str = "exit 0") -> None:
    """Start a command that prints more than the disk takes; it goes on when the file `go` is made."""
    service.start(
        f"echo ready; seq {FLOOD}; until [ -e {go} ]; do sleep 0.02; done; "
        f"seq {FLOOD + 1} {FLOOD + AFTER}; {last_words}"
    )
    wait_until(lambda: accounted_for(service) == FLOOD + 1)
    assert lines_lost(service.status()) > AFTER


def accounted_for(service: Service) -> int:
    """Return how many lines of the run are in its log or told to be lost."""
    return int(service.get("/logs").body["lines_returned"]) + lines_lost(service.status())


def fill(disk: Path) -> None:
    """Take what space is left."""
    with (disk / "filling").open("ab", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    assert shutil.disk_usage(disk).free == 0


def test_capture_resumes_when_space_returns(full_disk_service: Service, disk: Path, tmp_path: Path) -> None:
    """A process whose log has no space is not held up; seq shows the gap, and later lines are whole again."""
    go = tmp_path / "go"
    start_flood(full_disk_service, go)
    assert full_disk_service.status()["status"] == "running"
    ballast_on(disk).unlink()
    go.touch()
    status = full_disk_service.wait_for_exit()
    assert (status["status"], status["exit_code"]) == ("exited", 0)
    records = log_records(status)
    kept = len(records) - AFTER
    assert 1000 < kept < FLOOD
    # "ready" is line 1, so the number n is line n + 1.
    assert [record["seq"] for record in records] == [*range(1, kept + 1), *range(FLOOD + 2, FLOOD + AFTER + 2)]
    assert all(record["line"] == str(record["seq"] - 1) for record in records[1:])
    assert lines_lost(status) == FLOOD + 1 - kept


def test_the_exit_code_is_recorded_on_a_full_disk(full_disk_service: Service, tmp_path: Path) -> None:
    """A process that ends while the disk is full leaves its exit code in the record, for the next worker to tell."""
    go = tmp_path / "go"
    start_flood(full_disk_service, go, "exit 7")
    go.touch()
    told = full_disk_service.wait_for_exit()
    assert (told["status"], told["exit_code"]) == ("exited", 7)
    assert record_of(told).state.exit_code == 7
    send(signal.SIGKILL, worker_of(full_disk_service))
    worker_of(full_disk_service)
    assert full_disk_service.status() == told


def test_every_call_is_answered_on_a_full_disk(full_disk_service: Service, tmp_path: Path) -> None:
    """With the disk full, reading, health and /kill work as ever."""
    start_flood(full_disk_service, tmp_path / "go")
    assert full_disk_service.get("/health").status == 200
    status, page = full_disk_service.get("/logs?lines=2")
    assert (status, page["lines_returned"]) == (200, 2)
    assert full_disk_service.get("/logs?seconds=60").status == 200
    status, killed = full_disk_service.post("/kill")
    assert (status, killed["status"], killed["exit_code"], killed["survivors"]) == (200, "killed", -15, [])


def test_a_start_on_a_full_disk_is_refused_and_leaves_nothing(full_disk_service: Service, disk: Path) -> None:
    """A run that can't be recorded is a 500 in the system's words; the last run stays, and with space it works."""
    full_disk_service.start("exit 3")
    before = full_disk_service.wait_for_exit()
    files = sorted((disk / "logs").iterdir())
    fill(disk)
    status, problem = full_disk_service.post("/start", {"command": "echo never"})
    assert (status, problem["title"]) == (500, "Internal Server Error")
    assert "No space left on device" in problem["detail"]
    assert sorted((disk / "logs").iterdir()) == files
    assert full_disk_service.status() == before
    ballast_on(disk).unlink()
    full_disk_service.start("echo again")
    assert full_disk_service.wait_for_exit()["exit_code"] == 0
    assert full_disk_service.content() == "again"


def test_a_file_size_limit_is_a_full_disk(service: Service, tmp_path: Path) -> None:
    """What RLIMIT_FSIZE refuses is lost and told like what a disk refuses, and the writer of the log survives it."""
    go = tmp_path / "go"
    status = service.start(
        f"seq 10; until [ -e {go} ]; do sleep 0.02; done; seq 11 20; "
        f"until [ -e {go}2 ]; do sleep 0.02; done; seq 21 30; exit 7"
    )
    service.wait_for_output("10")
    with limited(shim_of(status), resource.RLIMIT_FSIZE, Path(status["log_file"]).stat().st_size):
        go.touch()
        wait_until(lambda: lines_lost(service.status()) == 10)
    Path(f"{go}2").touch()
    ended = service.wait_for_exit()
    assert ended["exit_code"] == 7
    assert service.content().split() == [str(number) for number in (*range(1, 11), *range(21, 31))]
    assert [record["seq"] for record in log_records(ended)] == [*range(1, 11), *range(21, 31)]
