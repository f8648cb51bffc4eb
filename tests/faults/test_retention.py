"""A service left running for a year does not fill its disk."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.reading.reader import LogManager
from app.runs.retention import remove_files
from tests.kit.actors import worker_of
from tests.kit.machine import TMPFS_BYTES, tmpfs
from tests.kit.processes import send
from tests.kit.records import record_of_past
from tests.kit.service import Service
from tests.kit.services import Services, services_in
from tests.kit.waiting import wait_until

CAP = 1024 * 1024
LINES = 60_000  # four times the cap as records
FLOOD = 1_000_000
KEEP = 2


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a service with the smallest cap on a log, which keeps few runs."""
    with services_in(tmp_path_factory.mktemp("retention")) as services:
        yield services(settings={"LLM_SHELL_LOG_MAX_BYTES": str(CAP), "LLM_SHELL_LOG_KEEP": str(KEEP)})


def page_of(service: Service, query: str = "") -> tuple[dict[str, Any], list[int]]:
    """Return an answer of /logs and the numbers in it."""
    status, page = service.get(f"/logs{query}")
    assert status == 200, page
    return page, [int(line) for line in page["content"].split()]


def run_ids(service: Service) -> set[str]:
    """Return the runs of which there is any file."""
    return {path.name.split(".")[0] for path in service.log_dir.iterdir() if path.name[0].isdigit()}


def test_a_capped_log_keeps_its_newest_lines(service: Service) -> None:
    """Past its cap a log takes no more than that; what is left ends with the last line, and the answer says so."""
    status = service.start(f"seq {LINES}")
    service.wait_for_exit()
    log = Path(status["log_file"])
    size = sum(path.stat().st_size for path in (log, log.with_suffix(".1.log")))
    assert CAP * 0.49 < size <= CAP
    page, numbers = page_of(service)
    assert (page["truncated"], page["total_lines"], page["lines_returned"]) == (True, LINES, len(numbers))
    assert numbers == list(range(page["first_seq"], LINES + 1))
    page, numbers = page_of(service, "?lines=100")
    assert numbers == list(range(LINES - 99, LINES + 1))
    assert "truncated" not in page


def test_readers_never_see_a_half_rotated_log(service: Service) -> None:
    """While a log is written and rotated, every answer is without a hole and none reaches less far than another."""
    service.start(f"seq {FLOOD}")
    firsts, lasts = set(), [0]
    while lasts[-1] < FLOOD:
        page, numbers = page_of(service)
        if numbers:
            firsts.add(numbers[0])
            lasts.append(numbers[-1])
            assert numbers == list(range(page.get("first_seq", 1), numbers[-1] + 1))
    assert lasts == sorted(lasts)
    assert len(firsts) > 2
    service.wait_for_exit()


def test_a_name_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run never gets the name of one that was removed within the same second, be the second ever so long."""
    now = time.gmtime()
    monkeypatch.setattr(time, "gmtime", lambda: now)
    logs = LogManager(tmp_path)
    names = [logs.create_log_file()]
    for _ in range(3):
        names.append(logs.create_log_file())
        remove_files(tmp_path, Path(names[-2]).stem)
    assert len(set(names)) == 4
    assert [str(path) for path in tmp_path.iterdir()] == names[-1:]


def test_only_the_newest_runs_are_kept(service: Service) -> None:
    """Of the runs before the newest ones no file is left, and those kept can still be read."""
    started = []
    for number in range(KEEP + 2):
        started.append(service.start(f"echo {number}")["run_id"])
        service.wait_for_exit()
    wait_until(lambda: run_ids(service) == set(started[-KEEP:]))
    assert [service.content(f"?run_id={run_id}") for run_id in started[-KEEP:]] == ["2", "3"]
    assert service.get(f"/logs?run_id={started[0]}").status == 404


def test_all_logs_together_are_bounded(serve: Services) -> None:
    """Beyond the bytes for all logs the runs that ended first go, as the list says, too; the last one never."""
    settings = {"LLM_SHELL_LOG_MAX_BYTES": str(CAP), "LLM_SHELL_LOG_TOTAL_BYTES": str(CAP)}
    service = serve(settings=settings)
    started = []
    for _ in range(4):  # each log takes four tenths of what all may
        started.append(service.start("seq 6500")["run_id"])
        service.wait_for_exit()
    started.append(service.start("seq 15000")["run_id"])
    wait_until(lambda: not run_ids(service).intersection(started[:2]))
    service.wait_for_exit()
    started.append(service.start("true")["run_id"])
    wait_until(lambda: run_ids(service) == set(started[4:]))
    assert [run["run_id"] for run in service.get("/runs").body["runs"]] == started[:3:-1]


def is_replaced(service: Service, old: list[int]) -> bool:
    """Tell whether one new worker is there instead of these."""
    return len(now := service.workers) == 1 and now != old


def test_past_runs_survive_every_worker(serve: Services) -> None:
    """A worker that takes over from one that was killed or reloaded lists what that one listed, and prunes it."""
    logs = serve.folder / "logs"
    logs.mkdir()
    past = [record_of_past(logs, second).run_id for second in range(30)]
    service = serve(settings={"LLM_SHELL_LOG_KEEP": "10", "LLM_SHELL_LOG_DIR": str(logs)})
    first = service.start("exec sleep 1000")["run_id"]
    wait_until(lambda: run_ids(service) == {first, *past[-9:]})
    told = service.get("/runs").body
    assert [run["run_id"] for run in told["runs"]] == [first, *past[:-10:-1]]
    for number, process in ((signal.SIGKILL, worker_of(service)), (signal.SIGHUP, service.pid)):
        old = service.workers
        os.kill(process, number)
        wait_until(partial(is_replaced, service, old), 30)
        assert service.get("/runs").body == told
    second = service.start("true", replace=True)["run_id"]
    wait_until(lambda: run_ids(service) == {first, second, *past[-8:]})


def test_a_full_disk_gets_its_space_back(tmp_path: Path) -> None:
    """On a disk that is full retention removes what it may, and the next run has its log and its record."""
    with tmpfs(tmp_path / "disk") as disk, services_in(tmp_path / "service") as services:
        (disk / "logs").mkdir()
        past = [record_of_past(disk / "logs", second, lines=100).run_id for second in range(8)]
        service = services(settings={"LLM_SHELL_LOG_DIR": str(disk / "logs"), "LLM_SHELL_LOG_KEEP": "2"})
        ballast = disk / "ballast"
        with suppress(OSError):
            ballast.write_bytes(bytes(TMPFS_BYTES))  # as much of it as there is room for
        os.truncate(ballast, ballast.stat().st_size - 64 * 1024)
        last = service.start("seq 2000")["run_id"]
        wait_until(lambda: run_ids(service) == {past[-1], last})
        service.wait_for_exit()
        assert service.start("echo here")["run_id"] != last
        service.wait_for_exit()
        assert service.content() == "here"


def test_names_keep_their_own_runs_and_those_that_live(service: Service) -> None:
    """Many starts of one name take nothing from another, nor a run of which a daemon lives until that ends."""
    other = service.start("echo here", name="retained")["run_id"]
    command = "setsid sleep 1000 < /dev/null > /dev/null 2>&1 & echo $!"
    first = service.start(command, name="web")["run_id"]
    daemon = wait_until(lambda: service.get("/status?name=web").body["daemons"])[0]["pid"]
    newer = [service.start("true", name="web", replace=True)["run_id"] for _ in range(KEEP + 2)]
    expected = {other, first, *newer[-KEEP:]}
    wait_until(lambda: run_ids(service).intersection({other, first, *newer}) == expected)
    listed = [run["run_id"] for run in service.get("/runs?name=web").body["runs"]]
    assert listed == [*newer[: -KEEP - 1 : -1], first]
    assert service.content(f"?run_id={first}") == str(daemon)
    send(signal.SIGKILL, daemon)
    wait_until(lambda: not service.get(f"/status?run_id={first}").body["daemons"])
    last = service.start("true", name="web", replace=True)["run_id"]
    wait_until(lambda: run_ids(service).intersection({other, first, *newer, last}) == {other, newer[-1], last})
