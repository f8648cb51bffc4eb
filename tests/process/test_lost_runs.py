"""Which runs a directory's next manager finds by their shims alone, and which are none of its business."""

import os
import select
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from app.exceptions import NotFoundError
from app.linux import sockets
from app.linux.proc import boot_id
from app.protocol import VERSION, Handshake
from app.runs.names import new_control_name
from app.runs.record import RecordFile, State
from app.service import manage
from app.shim.listener import Listener
from app.supervisor.lost import find_records
from app.supervisor.manager import ProcessManager
from tests.kit.actors import record_of, shim_of
from tests.kit.processes import alive, parent, send
from tests.kit.records import make_record
from tests.kit.waiting import wait_until


@contextmanager
def deaf_shim(log_dir: Path) -> Iterator[None]:
    """Be the shim of the newest run in this directory, one that greets and does nothing else."""
    name, over = new_control_name(log_dir), threading.Event()
    record = make_record(started_ns=2**62, boot_id=boot_id(), control=name, log_file=str(log_dir / "deaf.log"))
    board = Listener(sockets.listen(name), lambda _link, _request: None, lambda: Handshake(VERSION, State()))
    RecordFile(str(log_dir / "deaf.json")).write(record)

    def serve() -> None:
        while not over.is_set():
            select.select([board.fd], [], [], 0.02)
            board.serve()

    server = threading.Thread(target=serve)
    server.start()
    yield
    over.set()
    server.join()
    board.close()


def start_and_forget(log_dir: Path, log_file: str | None = None) -> int:
    """Run a command under a manager that lets go of it, remove what files tell of it, and return its pid."""
    manager = manage(log_dir)
    status = manager.start("exec sleep 100", log_file)
    shim_of(status)  # its first record would make the directory again
    manager.close()
    shutil.rmtree(log_dir)
    return int(status["process_pid"])


def test_the_newest_of_several_is_the_current_run(tmp_path: Path) -> None:
    """Of two runs that live although no file tells so the newer is adopted, and a stop ends both."""
    logs = tmp_path / "logs"
    older, newer = (start_and_forget(logs, str(logs / name)) for name in ("older.log", "newer.log"))
    manager = manage(tmp_path / "logs")
    manager.take_over()
    assert manager.get_status()["process_pid"] == newer
    manager.shut_down(0.0)
    manager.close()
    assert not alive(older)
    assert not alive(newer)


def test_the_pointer_is_made_again(tmp_path: Path) -> None:
    """Once a run was found its pointer names it again: a further manager needs no search."""
    pid = start_and_forget(tmp_path / "logs")
    first, second = manage(tmp_path / "logs"), manage(tmp_path / "logs")
    first.take_over()
    first.close()
    assert second.get_status()["process_pid"] == pid
    second.shut_down(0.0)
    second.close()


def test_a_run_that_keeps_its_record_elsewhere_is_left_alone(tmp_path: Path) -> None:
    """A shim whose record does not appear in this directory belongs to another, of the same path for that shim."""
    pid = start_and_forget(tmp_path / "logs", str(tmp_path / "elsewhere" / "run.log"))
    manager = manage(tmp_path / "logs")
    manager.take_over()
    with pytest.raises(NotFoundError):
        manager.get_status()
    manager.shut_down(0.0)
    manager.close()
    assert alive(pid)
    owner = manage(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "current").symlink_to("run.json")
    owner.take_over()
    owner.shut_down(0.0)
    owner.close()


def test_a_socket_that_nobody_serves_holds_nothing_up(tmp_path: Path) -> None:
    """A listener of such a name whose queue is full is passed over when the time of the search is over."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as waiting,
    ):
        name = f"\0{new_control_name(tmp_path)}"
        listener.bind(name)
        listener.listen(0)
        waiting.connect(name)
        began = time.monotonic()
        assert find_records(tmp_path, 0.2) == []
        assert time.monotonic() - began < 1


def test_one_that_can_t_be_ended_does_not_save_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stop ends what else lives when a lost run's shim does not do as it is told, and the log names that run."""
    monkeypatch.setattr("app.supervisor.connection.REPLY_MARGIN", 0.1)
    monkeypatch.setattr("app.supervisor.run.RECOVERY_TIMEOUT", 0.1)
    pid = start_and_forget(tmp_path / "logs")
    manager = manage(tmp_path / "logs")
    with deaf_shim(tmp_path / "logs"):
        manager.shut_down(0.0)
    manager.close()
    assert not alive(pid)
    assert "could not be ended: The process could not be ended: its shim does not answer" in caplog.text


@pytest.mark.parametrize("spelling", ["link", "logs/../logs", "link/../logs"])
def test_a_directory_may_be_spelt_otherwise(tmp_path: Path, spelling: str) -> None:
    """A run is found by a manager that names the same directory by a symbolic link or a detour."""
    pid = start_and_forget(tmp_path / "logs")
    (tmp_path / "logs").mkdir()
    (tmp_path / "link").symlink_to("logs")
    manager = manage(tmp_path / spelling)
    manager.take_over()
    assert manager.get_status()["process_pid"] == pid
    manager.shut_down(0.0)
    manager.close()


def test_a_stopped_shim_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run whose understudy and shim were stopped is found at once, and the log tells that they were continued."""
    pid = start_and_forget(tmp_path / "logs")
    shim = parent(pid)
    understudy = parent(shim)
    send(signal.SIGSTOP, understudy, shim)
    manager = manage(tmp_path / "logs")
    began = time.monotonic()
    manager.take_over()
    assert time.monotonic() - began < 2
    assert manager.get_status()["process_pid"] == pid
    assert f"The process {understudy} (llm-understudy) had been stopped" in caplog.text
    manager.shut_down(0.0)
    manager.close()


def test_a_silent_shim_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that listens under our user's rights and never greets is named in the log, and hides no other run."""
    pid = start_and_forget(tmp_path / "logs")
    with sockets.listen(new_control_name(tmp_path / "logs")):
        assert len(find_records(tmp_path / "logs", 3.0)) == 1
    assert f"The shim {os.getpid()}, which listens on @llm-shell-" in caplog.text
    manager = manage(tmp_path / "logs")
    manager.take_over()
    assert manager.get_status()["process_pid"] == pid
    manager.shut_down(0.0)
    manager.close()


@pytest.mark.parametrize("forged", ["\n @{}", "\n0: 00000002 00000000 00010000 0005 01 1 @{}"])
@pytest.mark.parametrize("number", ["", "0" * 32, "x" * 32])
def test_a_name_with_a_newline_hides_no_run(tmp_path: Path, forged: str, number: str) -> None:
    """Whatever lines the name of a stranger's socket adds to the kernel's table, a run is found and nothing else."""
    pid = start_and_forget(tmp_path / "logs")
    prefix = new_control_name(tmp_path / "logs")[:-32]
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind("\0x" + forged.format(prefix + number))
        manager = manage(tmp_path / "logs")
        manager.take_over()
        assert manager.get_status()["process_pid"] == pid
        manager.shut_down(0.0)
        manager.close()


def test_a_name_fits_whatever_the_directory(tmp_path: Path) -> None:
    """The name of a control socket is within unix(7)'s 107 bytes for the longest of paths."""
    assert len(new_control_name(tmp_path / "/".join(["x" * 255] * 15))) <= 107


def test_a_past_run_with_a_daemon_does_not_become_the_current_one(pm: ProcessManager) -> None:
    """The next worker tells of a name's last run, which has ended, and not of the one before, whose daemon lives."""
    past = pm.start("setsid -f sleep 1000 > /dev/null 2>&1; exit 0")
    daemon = wait_until(lambda: pm.get_status()["daemons"])[0]["pid"]
    last = pm.start("exit 3")
    wait_until(lambda: record_of(last).state.ended)
    pm.close()
    with closing(manage(pm.logs.log_dir)) as following:
        following.take_over()
        assert following.get_status()["run_id"] == last["run_id"]
        assert following.get_status(past["run_id"])["daemons"][0]["pid"] == daemon
        assert following.kill(run_id=past["run_id"])["survivors"] == []
    assert not alive(daemon)
