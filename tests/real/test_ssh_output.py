"""ssh to a real sshd, which makes the output non-blocking for all others: what they print after it is whole."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.machine import log_records
from tests.kit.requiring import require
from tests.kit.waiting import wait_until
from tests.real.trying import Trial

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")
LINES = 300_000
OPTIONS = "-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes"


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[str]:
    """Return the command that runs another one through an sshd of this test's own, as this user."""
    require(SSHD and Path("/run/sshd").is_dir(), "openssh-server")
    for name in ("host", "user"):
        made = ["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(made, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = [f"Port={port}", "ListenAddress=127.0.0.1", f"HostKey={tmp_path}/host", f"PidFile={tmp_path}/pid"]
    settings += [f"AuthorizedKeysFile={tmp_path}/user.pub", "StrictModes=no", "UsePAM=no", "PermitRootLogin=yes"]
    words = [str(SSHD), "-D", "-e", "-f", "/dev/null", *(word for setting in settings for word in ("-o", setting))]
    with (tmp_path / "sshd.log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as server:
        try:
            wait_until(lambda: "listening" in (tmp_path / "sshd.log").read_text())
            yield f"ssh {OPTIONS} -i {tmp_path}/user -p {port} 127.0.0.1"
        finally:
            server.terminate()


@pytest.mark.parametrize("_number", range(3))
def test_a_flood_beside_ssh_is_whole(trial: Trial, ssh: str, _number: int) -> None:
    """Once ssh has printed something, it makes no other program of the command lose output."""
    beside = f"{ssh} 'echo up; touch {trial.folder}/up; sleep 3' & until [ -e up ]; do sleep 0.01; done; sleep 0.5"
    trial.start(f"{beside}; seq 1 {LINES}; echo rc=$?")
    trial.ended(60)
    wait_until(lambda: not trial.pm.get_status()["output_open"])
    lines = [record["line"] for record in log_records(trial.pm.get_status())]
    assert lines == ["up", *map(str, range(1, LINES + 1)), "rc=0"]
