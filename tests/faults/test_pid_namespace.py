"""A service that is process 1 of a pid namespace gets every orphan: a stranger's is neither named nor killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.kit.processes import alive, children, descendants, parent, send, status_fields
from tests.kit.requiring import require
from tests.kit.service import Service
from tests.kit.services import WSGI_APP, Services
from tests.kit.waiting import wait_until

COMMAND = "setsid sleep 1000 & env -i setsid sleep 1000 & echo ready; exec sleep 1000"


def namespace() -> list[str]:
    """Return the command that makes a process number 1 of a pid namespace of its own."""
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        alone[1:1] = ["--user", "--map-root-user"]
    able = (
        shutil.which("unshare") and subprocess.run([*alone, "true"], check=False, capture_output=True).returncode == 0
    )
    require(able and shutil.which("nsenter"), "the right to make a pid namespace, and nsenter (both of util-linux)")
    return alone


@pytest.fixture
def service(serve: Services) -> Iterator[Service]:
    """Return a service that is process 1."""
    service = serve(command=[*namespace(), *WSGI_APP])
    yield service
    if service.running:
        [master] = children(service.pid)
        os.kill(master, signal.SIGTERM)
        assert service.wait() == 0


def master_of(service: Service) -> int:
    """Return the pid, outside, of process 1."""
    [master] = children(service.pid)
    assert inner(master) == 1
    return master


def inner(pid: int) -> int:
    """Return the pid that a process has in its own namespace (proc_pid_status(5))."""
    return int(status_fields(pid)["NSpid"].split()[-1])


def orphan_of_a_stranger(master: int) -> int:
    """Start a process in the namespace from outside, orphan it, and return its pid outside when it is process 1's."""
    into = ["nsenter", f"--target={master}", "--pid", "--mount", *([] if os.geteuid() == 0 else ["--user"])]
    # Its streams are its own, or the end of the shell would not be seen.
    subprocess.run([*into, "/bin/sh", "-c", "setsid sleep 1000 > /dev/null 2>&1 & true"], check=True)
    [orphan] = wait_until(lambda: named("sleep", master))
    assert parent(orphan) == master
    return orphan


def named(name: str, master: int) -> list[int]:
    """Return the descendants of process 1 with this name."""
    return [pid for pid, text in descendants(master).items() if text.startswith(f"{name} ") and alive(pid)]


def told(answer: dict[str, Any]) -> str:
    """Return all that an answer says of processes beside the run's own."""
    return " ".join(str(answer.get(field)) for field in ("leftover_pids", "survivors", "reason", "detail"))


@pytest.mark.parametrize(
    "victims",
    [["llm-shell-shim"], ["llm-understudy"], ["llm-shell-shim", "llm-understudy"], ["llm-zygote", "llm-shell-shim"]],
    ids=" ".join,
)
def test_an_orphan_of_a_stranger_is_left_alone(service: Service, victims: Sequence[str]) -> None:
    """Whatever was killed of a run's keepers, /kill ends what is the run's, and says nothing of the orphan."""
    master = master_of(service)
    orphan = orphan_of_a_stranger(master)
    number = str(inner(orphan))
    service.start(COMMAND)
    service.wait_for_output("ready")
    sleepers = wait_until(lambda: pids if len(pids := named("sleep", master)) == 4 else [])
    for victim in victims:
        send(signal.SIGKILL, *named(victim, master))
    assert number not in told(service.status())
    answer = service.post("/kill").body
    assert number not in told(answer)
    assert answer["survivors"] == []
    left = [pid for pid in sleepers if pid != orphan and alive(pid)]
    assert not [pid for pid in left if str(inner(pid)) not in told(answer)]
    assert alive(orphan)
    refused = service.post("/kill")
    assert refused.status == 400
    assert number not in told(refused.body)
    service.start("true", replace=True)
    assert alive(orphan)


def test_a_lost_run_s_end_leaves_no_zombie(service: Service, tmp_path: Path) -> None:
    """What comes to process 1 of a run whose keepers and worker were killed is reaped when it ends."""
    master = master_of(service)
    service.start(COMMAND, cwd=str(tmp_path))
    service.wait_for_output("ready")
    sleepers = wait_until(lambda: pids if len(pids := named("sleep", master)) == 3 else [])
    keepers = [*named("llm-shell-shim", master), *named("llm-understudy", master), *named("llm-zygote", master)]
    send(signal.SIGKILL, *keepers, *children(master)[:1])
    wait_until(service.answers, 20)
    assert service.post("/kill").body["survivors"] == []
    wait_until(lambda: not {*sleepers, *keepers} & descendants(master).keys())
