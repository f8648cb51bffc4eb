"""A kill takes no longer than it says, whatever a tree does to make its look dear."""

import resource
import sys
import time
from pathlib import Path

import pytest

from app.runs.spec import Spec
from app.supervisor.manager import ProcessManager
from tests.kit.output import printed
from tests.kit.requiring import require


def timed_kill(pm: ProcessManager, kind: str, grace: float) -> float:
    """Kill a tree that must leave nobody, and return how long that took."""
    began = time.monotonic()
    answer = pm.kill(kind, grace)
    assert answer["survivors"] == []
    return time.monotonic() - began


RING = """
import os, subprocess
r, w = os.pipe()
os.dup2(r, 0)
for fd in (0, r, w):
    os.set_inheritable(fd, True)
for _ in range(120):
    subprocess.Popen(["sleep", "1000"], close_fds=False)
os.set_inheritable(r, False)
os.set_inheritable(w, False)
os.dup2(os.open("/dev/null", 0), 0)
os.execvp("bash", ["bash", "-c", "echo ready; sleep 1000; sleep 1001"])
"""


@pytest.mark.parametrize(("kind", "grace"), [("SIGTERM", 2.0), ("SIGKILL", 0.0)])
def test_a_ring_of_many_readers_ends_in_time(pm: ProcessManager, tmp_path: Path, kind: str, grace: float) -> None:
    """Whoever could wait for whom, finding that out takes no time that a kill would notice."""
    (tmp_path / "ring.py").write_text(RING)
    pm.start(Spec(f"exec {sys.executable} ring.py", cwd=str(tmp_path)))
    printed(pm, "ready")
    assert timed_kill(pm, kind, grace) < grace + 2


DESCRIPTORS = 5000
HOARD = f"""
import os, resource, signal
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
r, w = os.pipe()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for number in range(60):
    if os.fork() == 0:
        os.dup2(r, 0)
        for _ in range({DESCRIPTORS}):
            os.dup(r)
        os.write(w, b"x")
        os.close(w)
        while True:
            signal.pause()
while number >= 0:
    number -= len(os.read(r, 1))
signal.signal(signal.SIGTERM, signal.SIG_DFL)
os.execvp("sh", ["sh", "-c", "echo ready; sleep 1000; true"])
"""


def test_a_hoard_of_descriptors_ends_in_time(pm: ProcessManager, tmp_path: Path) -> None:
    """However many descriptors a tree holds, a look spends little on them, and the grace ends when it should."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    require(hard > DESCRIPTORS + 100, f"a hard limit of more than {DESCRIPTORS} descriptors")
    (tmp_path / "hoard.py").write_text(HOARD)
    pm.start(Spec(f"exec {sys.executable} hoard.py", cwd=str(tmp_path)))
    printed(pm, "ready")
    assert timed_kill(pm, "SIGTERM", 1.0) < 1 + 2 + 1
