"""With /proc mounted hidepid, what the service may not see is not passed over in silence."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from tests.faults.actors import send, shim_of
from tests.faults.machine import wait_until_ended
from tests.faults.test_limits import AS_LONELY_USER, LONELY_USER
from tests.service.conftest import Services
from tests.service.harness import GUNICORN
from tests.support import descendants, require, wait_until

HIDING = ("unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh")


def test_a_hidden_survivor_is_told(serve: Services, tmp_path: Path) -> None:
    """A kill that leaves alive what /proc does not show says so, since it can't name it in `survivors`."""
    require(os.geteuid() == 0 and shutil.which("setpriv") and shutil.which("unshare"), "root, to hide processes")
    logs = tmp_path / "logs"
    logs.mkdir()
    os.chown(logs, LONELY_USER, LONELY_USER)
    hidden = tmp_path / "hidden"
    shutil.copy("/bin/sleep", hidden)
    hidden.chmod(0o4755)  # runs as root: the service's user may not look at it
    # With root's way into files, since the interpreter may lie in root's home.
    rights = [f"--{kind}-caps=+dac_override" for kind in ("inh", "ambient")]
    command = [*HIDING, *AS_LONELY_USER, *rights, *GUNICORN, "wsgi:app"]
    service = serve(command=command, cwd=Path("/"), settings={"LLM_SHELL_LOG_DIR": str(logs)})
    service.start(f"setsid {hidden} 1000 & exec sleep 1000")
    service.log_dir = logs
    shim = shim_of(service.status())
    (survivor,) = wait_until(lambda: [pid for pid, name in descendants(shim).items() if name.startswith("hidden ")])
    answer = service.post("/kill?timeout=0.1").body
    assert (answer["status"], answer["exit_code"], answer["survivors"]) == ("killed", -15, [])
    assert "something of the tree outlived SIGKILL which /proc does not show: 1" in answer["reason"]
    refusal = service.post("/restart?timeout=0")
    assert (refusal.status, "what /proc does not show outlived" in refusal.body["detail"]) == (409, True)
    send(signal.SIGKILL, survivor)
    assert wait_until_ended(service)["status"] == "killed"
