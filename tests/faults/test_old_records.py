"""Records that an old build has written: every field of them counts with the new one."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from flask import Flask

from app.runs.record import record_path, spare_path
from tests.faults.upgrade import CAP, GAINED, Upgrade, kill_old_shim, old_build, upgrade
from tests.kit.counter import go_on, start_counter
from tests.kit.waiting import wait_until

__all__ = ["old_build", "upgrade"]
# Run by the old build: writes records of ended runs, each other than the ones before, and prints how it tells of them.
WRITE_RECORDS = """
import itertools, json, sys
from app.process.control import State
from app.process.run import RecordFile, RunRecord, record_path
from app.process.status import _TROUBLE, describe
from app.process.tree import Identity

folder, told = sys.argv[1], []
trouble = {kind: 100 + place for place, kind in enumerate(_TROUBLE)}
cases = itertools.product((None, "kill", "restart", "replace", "shutdown"), (False, True), (None, -9, 3), (True, False))
for number, (cause, escalated, code, beset) in enumerate(cases):
    run_id = f"2026-01-01_00-00-{number:02}"
    state = State(
        stopped_at="2026-01-01T00:01:00.000000Z", exit_code=code, killed_by=cause, escalated=escalated,
        unknown=None if code else "Not known, says the old build.", output_open=False, ended=True, orders=1,
        trouble=trouble if beset else {},
    )
    record = RunRecord(
        run_id=run_id, command="echo 'ä\\n'", shell="/bin/old-sh", cwd="/old", account="0:0:", env={"A": "b"},
        created_at="2026-01-01T00:00:00.000000Z", started_ns=1, boottime_ns=2, boot_id="old", control="old",
        log_file=f"{folder}/{run_id}.log", log_mode=0o640, log_max_bytes=1, shim=Identity(5, 6), process=Identity(7, 8),
        state=state, beside="9 (user old: sleep)" if beset else "", members=[Identity(7, 8)],
    )
    RecordFile(record_path(record.log_file), record.log_mode).write(record)
    told.append(describe(record, state, []))
print(json.dumps([told, list(trouble.values())]))
"""


def test_every_field_of_an_old_outcome_is_told(make_app: Callable[..., Flask], tmp_path: Path, old_build: Path) -> None:
    """The new build tells of each run what the old one told, the words of `reason` apart, which name the same."""
    folder = tmp_path / "logs"
    folder.mkdir()
    command = [sys.executable, "-c", WRITE_RECORDS, str(folder)]
    done = subprocess.run(command, cwd=old_build, capture_output=True, text=True, check=True)
    told, counts = json.loads(done.stdout)
    client = make_app(log_keep=100).test_client()
    assert len(told) == 60
    reasons = set()
    for old in told:
        new = client.get(f"/status?run_id={old['run_id']}").json
        assert new is not None
        assert {**new, "reason": None} == {**old, **GAINED, "reason": None}
        for words in ("Not known, says the old build.", "9 (user old: sleep)", *(f": {count}" for count in counts)):
            assert (words in (new["reason"] or "")) == (words in (old["reason"] or ""))
        reasons.add((old["reason"], new["reason"]))
    # Two outcomes that the old build told apart are told apart.
    assert len({new for _old, new in reasons}) == len({old for old, _new in reasons}) == len(reasons)


def test_the_cap_and_mode_of_an_old_log_are_kept_to(upgrade: Upgrade) -> None:
    """A log that the old service capped, and let a group read, stays so under the new, which has neither setting."""
    pid = start_counter(upgrade.old, pause_at=100, count=40_000)
    new = upgrade.complete()
    status = new.status()
    go_on(pid)
    wait_until(lambda: new.content("?lines=1") == "40000")
    segments = [path.stat() for path in new.log_dir.glob(f"{status['run_id']}*.log*")]
    assert sum(segment.st_size for segment in segments) <= CAP
    assert [stat.S_IMODE(segment.st_mode) for segment in segments] == [0o640, 0o640]
    numbers = [int(line) for line in new.content().split("\n")]
    assert numbers == list(range(numbers[0], 40_001))


def test_the_mode_of_an_old_record_is_kept(upgrade: Upgrade) -> None:
    """A record that the old service let a group read stays so where the new one, whose setting is another, ends it."""
    pid = start_counter(upgrade.old, pause_at=100)
    shim = upgrade.shim_of(pid)
    new = upgrade.complete()
    kill_old_shim(new, shim)
    assert new.post("/kill").body["survivors"] == []
    record = Path(record_path(new.status()["log_file"]))
    assert json.loads(record.read_bytes())["state"]["ended"] is True
    assert [stat.S_IMODE(Path(path).stat().st_mode) for path in (record, spare_path(str(record)))] == [0o640, 0o640]
