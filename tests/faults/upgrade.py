"""An old build beside this one: its service is stopped, or killed, and this build's follows it on its log directory."""

from __future__ import annotations

import compileall
import io
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_shim_killed import ABANDONED
from tests.kit.actors import Request, worker_of
from tests.kit.places import ROOT
from tests.kit.processes import command_line, parent, send
from tests.kit.requiring import require
from tests.kit.service import Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until

# The last commit whose shims speak the first protocol and whose records are flat: what version 1 left running.
OLD_COMMIT = "d4e0af3160dab1e9a204b69a4065b26dfb8f10ee"
# What the status object has gained since.
GAINED = {"name": "default", "daemons": [], "restarts": 0, "next_start_at": None, "limit": None}
# Bytes of its logs: enough for what all but one of the tests print.
CAP = 1024 * 1024
# As gunicorn ends a moment sooner by SIGINT than by SIGTERM, and there are many services to stop.
STOP = signal.SIGINT


class Upgrade:
    """A service of the old build, and the new one that follows it on the same log directory."""

    def __init__(self, serve: Services, build: Path) -> None:
        self._serve = serve
        self._build = build
        config = str(build / "gunicorn.conf.py")
        self.old = serve(
            command=[sys.executable, "-m", "gunicorn", "--config", config, "--pythonpath", str(build), "wsgi:app"],
            settings={
                "LLM_SHELL_ON_SHUTDOWN": "keep",
                "LLM_SHELL_SHELL": "/bin/sh",
                "LLM_SHELL_LOG_MAX_BYTES": str(CAP),
                "LLM_SHELL_LOG_GROUP_READ": "true",
            },
        )

    def stop(self) -> None:
        """Stop the old service, which keeps its command."""
        assert self.old.stop(STOP) == 0

    def follow(self) -> Service:
        """Start the new service where the old one is gone."""
        assert not self.old.running
        return self._serve(settings={"LLM_SHELL_LOG_DIR": str(self.old.log_dir)})

    def complete(self) -> Service:
        """Stop the old service, which keeps its command, and start the new one."""
        self.stop()
        return self.follow()

    def cut_short(self, call: str, shim: int | None = None) -> None:
        """Have the old service begin an order, and kill its master and worker, and maybe a shim, in the middle."""
        worker = worker_of(self.old)
        request = Request(lambda: self.old.post(call))
        wait_until(lambda: self.old.status()["reason"])
        send(signal.SIGKILL, self.old.pid, worker, *filter(None, [shim]))
        assert request.answer() is None
        self.old.wait()

    def shim_of(self, pid: int) -> int:
        """Return the old build's shim: the parent of its command."""
        shim = parent(pid)
        assert str(self._build) in command_line(shim)
        return shim


@pytest.fixture(scope="session")
def old_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the old build, compiled as ours is; skip where the commit is not to be had."""
    git = shutil.which("git")
    require(git, "git, to check out an old build")
    archive = subprocess.run(
        [str(git), "-C", str(ROOT), "archive", OLD_COMMIT, "app", "gunicorn.conf.py", "wsgi.py"],
        capture_output=True,
        check=False,
    )
    why = archive.stderr.decode(errors="replace").strip()
    require(archive.returncode == 0, f"commit {OLD_COMMIT[:7]}, as a clone with the whole history has it: {why}")
    folder = tmp_path_factory.mktemp("old-build")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    compileall.compile_dir(str(folder / "app"), quiet=1)
    return folder


@pytest.fixture
def upgrade(serve: Services, old_build: Path) -> Iterator[Upgrade]:
    """Return a running service of the old build that is to be upgraded."""
    yield Upgrade(serve, old_build)
    for service in serve.started:
        if service.running:
            service.stop(STOP)


def kill_old_shim(service: Service, shim: int) -> dict[str, Any]:
    """Kill the old build's shim, which has no understudy, and wait until that is told; return the status."""
    send(signal.SIGKILL, shim)
    return wait_until(lambda: now if ABANDONED in ((now := service.status())["reason"] or "") else {}, timeout=2)
