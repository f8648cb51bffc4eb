"""A service left running for a year does not fill its disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.reading.reader import LogManager
from app.runs.retention import remove_files
from tests.kit.service import Service
from tests.kit.services import services_in
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
