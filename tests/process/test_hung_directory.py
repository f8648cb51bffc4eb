"""A directory on a file system that does not answer: what was given up is never executed later."""

import ctypes
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.linux import sockets
from app.linux.account import look_up
from app.supervisor import launch
from app.supervisor.launch import LaunchError
from tests.kit.leftovers import ZYGOTE, reap
from tests.kit.processes import descendants, name_of
from tests.kit.records import make_record
from tests.kit.requiring import require

MNT_DETACH = 2
OPTIONS = "fd={},rootmode=40000,user_id=0,group_id=0,allow_other"


@pytest.fixture
def hung() -> Iterator[Path]:
    """Return a directory on a FUSE file system whose server never says a word: whoever goes there waits, killable."""
    require(os.geteuid() == 0 and Path("/dev/fuse").exists(), "root and /dev/fuse, to mount a file system that hangs")
    folder = Path(tempfile.mkdtemp())  # not pytest's, which is closed to other users
    folder.chmod(0o755)
    libc = ctypes.CDLL(None, use_errno=True)
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    mounted = libc.mount(b"hung", os.fsencode(folder), b"fuse", 0, OPTIONS.format(server).encode())
    require(mounted == 0, f"the right to mount a file system: {os.strerror(ctypes.get_errno())}")
    yield folder
    libc.umount2(os.fsencode(folder), MNT_DETACH)
    os.close(server)
    folder.rmdir()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Return a control socket."""
    with sockets.listen(f"llm-shell-test-{os.getpid()}") as listener:
        yield listener


def test_a_start_that_was_given_up_starts_nothing_later(
    hung: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's command whose directory can't be entered in time dies with its shim, before it is executed."""
    monkeypatch.setattr(launch, "START_TIMEOUT", 0.5)
    record = make_record(cwd=str(hung), account=look_up("nobody")[0].pack(), command="sleep 100")
    before = descendants()
    with pytest.raises(LaunchError):
        launch.launch(record, {}, listener, lambda: None)
    left = {pid for pid in descendants().keys() - before.keys() if name_of(pid) != ZYGOTE}
    # The command's own process had not become a program.
    assert set(reap(left)) == {-9}
