"""What /kill says of the ports that its tree listened on, and a start's own port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from app.exceptions import ConflictError
from app.runs.spec import Spec
from app.supervisor import ports
from app.supervisor.manager import ProcessManager
from tests.kit.actors import keepers_of
from tests.kit.network import free_port, listens
from tests.kit.output import content, printed
from tests.kit.processes import alive, descendants, descriptors_of, send
from tests.kit.requiring import require
from tests.kit.servers import PYTHON, forking, listening_at
from tests.kit.waiting import ended, wait_until

NONE: dict[str, Any] = {"freed": [], "held": []}


def serve(pm: ProcessManager, command: str, name: str = "default") -> dict[str, Any]:
    """Start a server and wait until it says that it listens."""
    status = pm.start(Spec(command, cwd="/"), name=name)
    printed(pm, "listening", name)
    return status


@contextmanager
def stranger(port: int, address: str = "127.0.0.1") -> Iterator[int]:
    """Have a process that is not the service's listen on a port, and return its pid."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family, reuse_port=True) as server:
        child = subprocess.Popen(["/bin/sleep", "1003"], pass_fds=[server.fileno()])
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::"])
@pytest.mark.parametrize("kind", ["SIGTERM", "SIGKILL"])
def test_a_port_is_freed(either: ProcessManager, address: str, kind: str) -> None:
    """The port of a real server is named once it is free, whatever ended it, whoever's process it was."""
    port = free_port()
    serve(either, f"echo listening; exec {PYTHON} -m http.server --bind {address} {port}")
    wait_until(lambda: _listens_at(address, port))
    assert either.kill(kind)["ports"] == {"freed": [port], "held": []}
    with socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET):
        pass


def _listens_at(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def test_several_ports_each_once(pm: ProcessManager) -> None:
    """The ports of several processes are named in ascending order, one that is listened on at two addresses once."""
    first, second, third = sorted(free_port() for _ in range(3))
    both = listening_at(f"127.0.0.1:{third}", f"::1:{third}", f"127.0.0.1:{first}")
    pm.start(f"{listening_at(f'127.0.0.1:{second}')} & {both}")
    wait_until(lambda: content(pm).count("listening") == 2)
    assert pm.kill()["ports"] == {"freed": [first, second, third], "held": []}


def test_the_oldest_members_of_a_tree_of_any_size(pm: ProcessManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a kill no more members are looked at than a look may cost, the oldest of them."""
    first, second = free_port(), free_port()
    later = f"(sleep 0.1; exec {listening_at(f'127.0.0.1:{second}')})"
    pm.start(f"{later} & exec {listening_at(f'127.0.0.1:{first}')}")
    wait_until(lambda: content(pm).count("listening") == 2)
    monkeypatch.setattr(ports, "MAX_MEMBERS", 1)
    assert pm.kill()["ports"]["freed"] == [first]


def test_a_tree_without_ports(pm: ProcessManager) -> None:
    """A tree that never listened has neither."""
    pm.start("exec sleep 1000")
    assert pm.kill()["ports"] == NONE


def test_a_port_that_another_process_holds(pm: ProcessManager) -> None:
    """One on which something else listens, too, is named with that process's pid and command line."""
    port = free_port()
    share = (
        "import socket, time; s = socket.socket(); s.setsockopt(1, 15, 1); "
        f"s.bind(('127.0.0.1', {port})); s.listen(); print('listening', flush=True); time.sleep(1000)"
    )
    with stranger(port) as pid:
        serve(pm, f'{PYTHON} -c "{share}"')
        held = [{"port": port, "pid": pid, "command_line": "/bin/sleep 1003"}]
        assert pm.kill()["ports"] == {"freed": [], "held": held}


def test_a_socket_that_has_left_the_tree(pm: ProcessManager) -> None:
    """A port whose socket was passed on to a process outside of the tree is held by that."""
    require(os.geteuid() == 0, "root, to take another process's socket")
    port = free_port()
    with stranger(port) as pid:
        inherited = next(fd for fd, target in descriptors_of(pid).items() if target.startswith("socket:"))
        take = (
            "import os, ctypes, time; libc = ctypes.CDLL(None); "
            f"libc.syscall(438, os.pidfd_open({pid}), {inherited}, 0); print('listening', flush=True); time.sleep(1000)"
        )
        serve(pm, f'{PYTHON} -c "{take}"')
        assert pm.kill()["ports"]["held"] == [{"port": port, "pid": pid, "command_line": "/bin/sleep 1003"}]


def test_joined_kills_all_say(pm: ProcessManager) -> None:
    """A kill that joins another names the ports, too, also those that were free when it came."""
    port, other = free_port(), free_port()
    deaf = listening_at("deaf", f"127.0.0.1:{port}")
    serve(pm, f"{listening_at(f'127.0.0.1:{other}')} & {deaf}")
    wait_until(lambda: content(pm).count("listening") == 2)
    answers: list[dict[str, Any]] = []
    first = threading.Thread(target=lambda: answers.append(pm.kill(timeout=60)))
    first.start()
    wait_until(lambda: not listens(other))
    answers.append(pm.kill("SIGKILL"))
    first.join()
    assert [answer["ports"] for answer in answers] == [{"freed": sorted([port, other]), "held": []}] * 2


def test_a_kill_that_joins_a_restart_says(pm: ProcessManager) -> None:
    """So does one that cancels a restart which had begun to end the tree."""
    port, other = free_port(), free_port()
    serve(pm, f"{listening_at(f'127.0.0.1:{other}')} & {listening_at('deaf', f'127.0.0.1:{port}')}")
    wait_until(lambda: content(pm).count("listening") == 2)
    refused: list[ConflictError] = []

    def restart() -> None:
        try:
            pm.restart(60)
        except ConflictError as error:
            refused.append(error)

    restarting = threading.Thread(target=restart)
    restarting.start()
    wait_until(lambda: not listens(other))
    assert pm.kill("SIGKILL")["ports"] == {"freed": sorted([port, other]), "held": []}
    restarting.join()
    assert len(refused) == 1


def test_leftovers_of_an_ended_process(pm: ProcessManager) -> None:
    """A server that outlived its shell is of the tree: its port is named when it is ended."""
    port = free_port()
    pm.start(f"{listening_at(f'127.0.0.1:{port}')} & exit 3")
    ended(pm.get_status)
    printed(pm, "listening")
    answer = pm.kill()
    assert (answer["status"], answer["ports"]) == ("exited", {"freed": [port], "held": []})


@pytest.mark.usefixtures("orphans_reaped")
def test_a_run_without_keepers(pm: ProcessManager) -> None:
    """With shim and understudy killed it is said all the same."""
    port = free_port()
    serve(pm, listening_at(f"127.0.0.1:{port}"))
    current = pm._get("default").current()
    assert current is not None
    record = current.record
    assert record.understudy is not None
    assert record.shim is not None
    send(signal.SIGKILL, record.understudy.pid, record.shim.pid)
    wait_until(lambda: current.abandoned)
    assert pm.kill()["ports"] == {"freed": [port], "held": []}


def test_another_network_namespace(pm: ProcessManager) -> None:
    """A port in a network namespace of the tree's own is named, and is no matter of one with its number outside."""
    require(os.geteuid() == 0 and shutil.which("unshare"), "root and unshare, for a network of its own")
    port = free_port()
    with stranger(port):
        serve(pm, f"exec unshare -n {listening_at(f'0.0.0.0:{port}')}")
        assert pm.kill()["ports"] == {"freed": [port], "held": []}


def test_node(pm: ProcessManager) -> None:
    """A server of node listens on both families by one socket, whose port is freed."""
    require(node := shutil.which("node"), "node")
    port = free_port()
    script = f"require('http').createServer().listen({port}, () => console.log('listening'))"
    serve(pm, f'exec {node} -e "{script}"')
    assert pm.kill()["ports"] == {"freed": [port], "held": []}


def test_kill_all_says_of_each(pm: ProcessManager) -> None:
    """With several names each one's own ports are told."""
    one, two = free_port(), free_port()
    serve(pm, listening_at(f"127.0.0.1:{one}"), name="one")
    serve(pm, listening_at(f"127.0.0.1:{two}"), name="two")
    told = {answer["name"]: answer["ports"] for answer in pm.kill_all()["killed"]}
    assert told == {"one": {"freed": [one], "held": []}, "two": {"freed": [two], "held": []}}


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_a_start_on_a_port_that_is_taken(pm: ProcessManager, address: str) -> None:
    """It is refused, whatever the address, with who listens there; nothing is started."""
    port = free_port()
    with (
        stranger(port, address) as pid,
        pytest.raises(ConflictError, match=rf"Port {port} is taken: {pid} \(/bin/sleep") as caught,
    ):
        pm.start(Spec("true", port=port))
    assert caught.value.extra == {
        "port": port,
        "pid": pid,
        "command_line": "/bin/sleep 1003",
        "name": None,
        "run_id": None,
    }
    assert pm.start(Spec("true", port=port))["status"] == "running"


def test_a_start_on_a_port_of_another_name(either: ProcessManager) -> None:
    """The refusal names the process of ours whose tree listens there, and how to end that."""
    port = free_port()
    status = serve(either, f"{listening_at(f'127.0.0.1:{port}')}; true", name="web")
    with pytest.raises(ConflictError, match=r"of the process 'web',.*/kill\?name=web") as caught:
        either.start(Spec("true", cwd="/", port=port))
    told = caught.value.extra
    assert (told["name"], told["run_id"], alive(int(str(told["pid"])))) == ("web", status["run_id"], True)
    assert str(told["command_line"]).endswith("…")


@pytest.mark.parametrize("name", ["db", "other"])
def test_a_start_on_a_port_of_a_past_run_s_daemon(either: ProcessManager, name: str) -> None:
    """The refusal names the run that the daemon is of, by its id: by name nothing ends it any more."""
    port = free_port()
    past = serve(either, f"setsid -f {listening_at(f'127.0.0.1:{port}')} > /dev/null 2>&1; echo listening", name="db")
    wait_until(lambda: listens(port))
    ended(partial(either.get_status, name="db"))
    either.start(Spec("true", cwd="/"), name="db")
    ended(partial(either.get_status, name="db"))
    with pytest.raises(ConflictError, match=f"of the process 'db',.*/kill.run_id={past['run_id']}") as caught:
        either.start(Spec("true", cwd="/", port=port), name=name)
    assert (caught.value.extra["name"], caught.value.extra["run_id"]) == ("db", past["run_id"])
    assert either.kill(run_id=past["run_id"])["ports"]["freed"] == [port]
    assert either.start(Spec("true", cwd="/", port=port), name=name)["status"] == "running"


@pytest.mark.usefixtures("orphans_reaped")
def test_a_start_on_a_port_of_a_run_without_keepers(pm: ProcessManager) -> None:
    """Where shim and understudy are both dead the refusal still knows whose the listener is."""
    port = free_port()
    status = serve(pm, f"{listening_at(f'127.0.0.1:{port}')}; true", name="web")
    for keeper in keepers_of(status):
        send(signal.SIGKILL, keeper)
    with pytest.raises(ConflictError, match="of the process 'web',"):
        pm.start(Spec("true", port=port))


def test_a_port_that_another_name_has_asked_for(pm: ProcessManager) -> None:
    """It is taken before anything listens on it."""
    port = free_port()
    with pytest.raises(ConflictError, match="the process 'web' was started for it"):
        pm._get("default").start(Spec("true", port=port), ports_asked={port: ("web", None)})
    assert pm._get("default").current() is None


def give_way(pm: ProcessManager, how: str, spec: Spec) -> None:
    """End the current run and start another in its place, in one of two ways."""
    if how == "restart":
        pm.restart()
    else:
        pm.start(spec, if_running="replace")


@pytest.mark.parametrize("how", ["replace", "restart"])
def test_a_replacement_takes_its_own_port(pm: ProcessManager, how: str) -> None:
    """The old run's own listener does not count: it is ended first, and the new run has the port."""
    port = free_port()
    spec = Spec(listening_at(f"127.0.0.1:{port}"), port=port)
    pm.start(spec)
    printed(pm, "listening")
    give_way(pm, how, spec)
    printed(pm, "listening")
    assert listens(port)


@pytest.mark.parametrize("how", ["replace", "restart"])
def test_a_replacement_on_the_port_of_a_stranger_ends_nothing(pm: ProcessManager, how: str) -> None:
    """Where another process listens on the port the old run goes on, and the refusal says who it is."""
    port = free_port()
    old = pm.start(Spec("exec sleep 1000", port=port))
    with stranger(port) as pid, pytest.raises(ConflictError, match=f"{pid} ./bin/sleep 1003.") as caught:
        give_way(pm, how, Spec("true", port=port))
    assert caught.value.extra["pid"] == pid
    assert pm.get_status()["run_id"] == old["run_id"]
    assert alive(old["process_pid"])


@pytest.mark.parametrize("how", ["replace", "restart"])
def test_a_port_that_is_taken_meanwhile(pm: ProcessManager, how: str) -> None:
    """Where a stranger takes the port while the old run is being ended, the refusal says that this was ended."""
    port = free_port()
    old = pm.start(Spec("trap 'echo ending; sleep 1; exit' TERM; echo ready; sleep 1000 & wait", port=port))
    printed(pm, "ready")
    refused: list[ConflictError] = []

    def operate() -> None:
        try:
            give_way(pm, how, Spec("true", port=port))
        except ConflictError as error:
            refused.append(error)

    operating = threading.Thread(target=operate)
    operating.start()
    wait_until(lambda: "ending" in content(pm))
    with stranger(port) as pid:
        operating.join()
    assert [error.extra["pid"] for error in refused] == [pid]
    assert "ended, but" in refused[0].detail
    assert (pm.get_status()["run_id"], pm.get_status()["status"]) == (old["run_id"], "killed")


def test_forks_count_as_the_first(pm: ProcessManager) -> None:
    """Of a socket that a server's forks have, too, the refusal names the server."""
    port = free_port()
    pm.start(forking(port, 3), name="web")
    first = int(printed(pm, "listening", "web").split()[1])
    assert len(descendants()) >= 4
    with pytest.raises(ConflictError) as caught:
        pm.start(Spec("true", port=port))
    assert caught.value.extra["pid"] == first
