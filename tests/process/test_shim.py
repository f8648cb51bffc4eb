"""The shim is small, quick and discreet."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from app import protocol
from app.linux import sockets
from app.runs.record import read_record
from app.runs.spec import Spec
from app.service import manage
from app.supervisor.handshake import await_handshake, connect
from app.supervisor.manager import ProcessManager
from tests.kit.output import printed
from tests.kit.places import ROOT
from tests.kit.processes import descriptors_of, parent, send
from tests.kit.waiting import ended


def _modules_after(statement: str) -> set[str]:
    code = f"import sys; sys.path[:0] = {sys.path!r}; {statement}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_the_shim_loads_no_web_framework() -> None:
    """Neither Flask nor marshmallow is loaded by zygote, understudy and shim, nor much else that takes memory."""
    loaded = _modules_after("import app.shim.zygote")
    assert "app.shim.keeper" in loaded
    assert not {"flask", "marshmallow", "werkzeug", "environs", "pathlib", "json", "logging"} & loaded


def test_the_shim_ends_with_its_run(pm: ProcessManager) -> None:
    """Once nothing of the run is left, its shim is gone too."""
    for _ in range(3):
        pm.start("true")
        ended(pm.get_status)


def test_a_stopped_shim_holds_no_successor_up(pm: ProcessManager, tmp_path: Path) -> None:
    """The next supervisor of a run whose shim was stopped has it go on, and takes the run over without a wait."""
    pid = pm.start("exec sleep 100")["process_pid"]
    send(signal.SIGSTOP, parent(parent(pid)), parent(pid))
    heir = manage(tmp_path / "logs")
    began = time.monotonic()
    heir.take_over()
    assert time.monotonic() - began < 2
    assert heir.get_status()["process_pid"] == pid
    heir.close()


def test_the_shim_shows_no_secret(pm: ProcessManager) -> None:
    """Neither the command line nor the environment of a shim holds the command, its environment or the service's."""
    pid = pm.start(Spec("echo ready; sleep 100; : s3cr3t", env={"KEY": "s3cr3t"}))["process_pid"]
    printed(pm, "ready")
    shim = parent(pid)
    assert b"s3cr3t" not in Path(f"/proc/{shim}/cmdline").read_bytes()
    assert b"s3cr3t" not in Path(f"/proc/{shim}/environ").read_bytes()
    pm.kill()


def test_an_operation_of_a_later_version_is_replied_to(pm: ProcessManager) -> None:
    """A shim that does not know an operation says so, and goes on; the caller is told what to do."""
    pm.start("echo ready; exec sleep 100")
    (record,) = [read_record(str(path)) for path in pm.logs.log_dir.glob("*.json")]
    assert record is not None
    connection = connect(record.control, 1.0)
    with connection:
        connection.send(b'{"id":7,"op":{"type":"resize","rows":40}}')
        packets = [protocol.decode_from_shim(sockets.receive(connection)[0]) for _ in range(2)]
    assert isinstance(packets[0], protocol.Handshake)
    assert packets[0].version == protocol.VERSION
    assert packets[1] == protocol.Reply(7, protocol.Unsupported())
    assert pm.kill()["exit_code"] == -15


def test_descriptors_that_come_with_a_packet_are_closed(pm: ProcessManager) -> None:
    """A process of the service's user, the command among them, can't use a shim's descriptors up by sending it more."""
    pid = pm.start("echo ready; exec sleep 100")["process_pid"]
    printed(pm, "ready")
    (record,) = [read_record(str(path)) for path in pm.logs.log_dir.glob("*.json")]
    assert record is not None
    connection = connect(record.control, 1.0)
    with connection, Path("/dev/null").open() as file:
        assert await_handshake(connection, 5.0)
        before = len(descriptors_of(parent(pid)))
        for _ in range(20):
            socket.send_fds(connection, [b'{"id":7,"op":{"type":"resize"}}'], [file.fileno(), file.fileno()])
            assert sockets.receive(connection)[0]
        assert len(descriptors_of(parent(pid))) == before


def test_packets_that_are_no_requests_do_no_harm(pm: ProcessManager) -> None:
    """Whatever bytes a process of the service's user sends, the shim goes on and ends the tree when it is asked to."""
    pm.start("echo ready; exec sleep 100")
    (record,) = [read_record(str(path)) for path in pm.logs.log_dir.glob("*.json")]
    assert record is not None
    odd = [b"\xff", b'{"a":' * 9_000, b'{"\xff":1,"id":1}', b'{"id":1,"op":{"type":"\xff"}}']
    odd += [
        b'{"id":1,"op":{"type":"kill","signal":"SIGTERM","timeout":%b,"cause":"kill"}}' % t for t in (b"1e308", b"-1")
    ]
    connection = connect(record.control, 1.0)
    with connection:
        assert await_handshake(connection, 5.0)
        for packet in odd:
            connection.send(packet)
    assert pm.get_status()["reason"] is None
    killed = pm.kill()
    assert (killed["exit_code"], killed["reason"]) == (-15, "Ended by /kill.")
