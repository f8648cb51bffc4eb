"""With /proc mounted hidepid, what the service may not see is not passed over in silence."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.kit.actors import shim_of
from tests.kit.machine import AS_LONELY_USER, LONELY_USER
from tests.kit.processes import descendants, send
from tests.kit.requiring import require
from tests.kit.service import GUNICORN, Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until

HIDING = ("unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh")


@pytest.fixture
def service(serve: Services, tmp_path: Path) -> Service:
    """Return a service of a user without privileges to which /proc shows that user's processes alone."""
    require(os.geteuid() == 0 and shutil.which("setpriv") and shutil.which("unshare"), "root, to hide processes")
    logs = tmp_path / "logs"
    logs.mkdir()
    os.chown(logs, LONELY_USER, LONELY_USER)
    # With root's way into files, since the interpreter may lie in root's home.
    rights = [f"--{kind}-caps=+dac_override" for kind in ("inh", "ambient")]
    command = [*HIDING, *AS_LONELY_USER, *rights, *GUNICORN, "wsgi:app"]
    service = serve(command=command, cwd=Path("/"), settings={"LLM_SHELL_LOG_DIR": str(logs)})
    service.log_dir = logs
    return service


def start_hidden(service: Service, hidden: str) -> int:
    """Start a command beside which runs what /proc hides, by the name `hidden`; return the pid of that."""
    service.start(f"setsid {hidden} 1000 & exec sleep 1000")
    shim = shim_of(service.status())
    return wait_until(lambda: [pid for pid, name in descendants(shim).items() if name.startswith("hidden ")])[0]


def copy_with_roots_rights(program: str, path: Path) -> Path:
    """Return a copy of a program that runs as root, whoever starts it."""
    shutil.copy(str(shutil.which(program)), path)
    path.chmod(0o4755)
    return path


def test_a_hidden_survivor_is_told(service: Service, tmp_path: Path) -> None:
    """A kill that leaves alive what /proc does not show says so, since it can't name it in `survivors`."""
    root = copy_with_roots_rights("setpriv", tmp_path / "root")
    shutil.copy("/bin/sleep", tmp_path / "hidden")
    survivor = start_hidden(service, f"{root} --reuid=0 {tmp_path / 'hidden'}")
    answer = service.post("/kill?timeout=0.1").body
    assert (answer["status"], answer["exit_code"], answer["survivors"]) == ("killed", -15, [])
    assert "a process which /proc does not show outlived SIGKILL: 1" in answer["reason"]
    refusal = service.post("/restart?timeout=0")
    assert (refusal.status, "processes that /proc does not show outlived" in refusal.body["detail"]) == (409, True)
    send(signal.SIGKILL, survivor)
    assert service.wait_for_exit()["status"] == "killed"


def test_what_is_hidden_but_may_be_signalled_is_ended(service: Service, tmp_path: Path) -> None:
    """The kernel names the shim's own children to it, also those that /proc does not show."""
    start_hidden(service, str(copy_with_roots_rights("sleep", tmp_path / "hidden")))
    answer = service.post("/kill?timeout=0.1").body
    assert (answer["survivors"], answer["reason"]) == ([], "Ended by /kill. SIGKILL followed.")
    assert service.wait_for_exit()["status"] == "killed"
