"""A service that was started in a terminal ends with it; for any other, SIGHUP is the order to reload."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from io import FileIO
from pathlib import Path

import pytest

from tests.kit.actors import reload
from tests.kit.places import ROOT
from tests.kit.processes import alive, children, command_line, descendants
from tests.kit.service import Service
from tests.kit.services import WSGI_APP, Services
from tests.kit.waiting import wait_until

# A session's leader without a terminal gets the one that it opens first (tty(4)). The signal may have been ignored by
# whoever runs the tests, in the background or with nohup.
LEADER = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.dup2(os.open(sys.argv[1], os.O_RDWR), 0)
os.execvp(sys.argv[2], sys.argv[2:])
"""
WATCHER = """
import signal, sys
from app.server import terminal
terminal.LOOK_INTERVAL = 0.05
here = terminal.Terminal()
here.watch()
heard = []
signal.signal(signal.SIGHUP, lambda *_: heard.append(here.hung_up()))
print("ready", flush=True)
while not heard:
    signal.pause()
while signal.getitimer(signal.ITIMER_REAL)[0]:
    signal.pause()
print(heard[0], here.hung_up(), flush=True)
"""


# Takes the interpreter a while to free, when the handlers are the system's own again.
SLOW_END = "\nkept = [str(number) for number in range(300_000)]\n"


@contextmanager
def terminal() -> Iterator[tuple[FileIO, str]]:
    """Open a terminal: return its master, whose end closes it, and the path of its other side."""
    master, slave = os.openpty()
    with ExitStack() as cleanup:
        screen = cleanup.enter_context(closing(FileIO(master, "r+")))
        cleanup.callback(os.close, slave)
        yield screen, os.ttyname(slave)


def tree_of(service: Service) -> set[int]:
    """Start a command with a child in a session of its own, and return the pids of both."""
    pid = service.start("setsid sleep 300 & echo child $!; exec sleep 300")["process_pid"]
    child = int(service.wait_for_output("child").split()[1])
    return {pid, child}


def in_terminal(serve: Services, path: str, *wrapper: str) -> Service:
    """Start a service that leads the session of this terminal, and return it when it answers."""
    return serve(command=[sys.executable, "-c", LEADER, path, *wrapper, *WSGI_APP])


def test_a_closed_terminal_ends_service_and_tree(serve: Services) -> None:
    """Closing the terminal stops the service as SIGTERM does: the tree is gone when the master is, and that is said."""
    with terminal() as (screen, path):
        service = in_terminal(serve, path)
        tree = tree_of(service)
        screen.close()
        assert service.wait() == 0
    assert not [pid for pid in tree if alive(pid)]
    assert "The terminal in which the service was started was closed." in service.text


def test_a_reload_in_a_terminal(serve: Services) -> None:
    """SIGHUP from elsewhere, while the terminal is open, is the order to reload."""
    with terminal() as (_screen, path):
        service = in_terminal(serve, path)
        pids = tree_of(service)
        reload(service)
        assert service.status()["process_pid"] in pids
        assert service.stop() == 0


@pytest.mark.parametrize("wrapper", ["nohup", "setsid --wait"])
def test_a_service_that_is_to_outlive_its_terminal(serve: Services, wrapper: str) -> None:
    """nohup and setsid keep a service, its worker and its command from the terminal's end, and SIGHUP still reloads."""
    with terminal() as (screen, path):
        service = in_terminal(serve, path, *wrapper.split())
        pids = tree_of(service)
        screen.close()
    master = wait_until(lambda: master_of(service))
    os.kill(master, signal.SIGHUP)
    wait_until(lambda: "Handling signal: hup" in service.text)
    wait_until(service.answers)
    assert service.status()["process_pid"] in pids
    os.kill(master, signal.SIGTERM)
    service.wait()
    wait_until(lambda: not alive(master), 15)
    assert not [pid for pid in pids if alive(pid)]


def master_of(service: Service) -> int:
    """Return the pid of gunicorn's master where the service's process is what started that, or has ended."""
    own = "".join(f"{word} " for word in WSGI_APP)
    found = [pid for pid in descendants() if command_line(pid) == own]
    masters = [pid for pid in found if any(child in found for child in children(pid))]
    return masters[0] if service.port and masters else 0


@pytest.mark.parametrize("job", ["%s", "%s &"], ids=["in front", "in the background"])
def test_a_job_of_a_shell(serve: Services, job: str) -> None:
    """Where a shell leads the session, the end of its terminal ends the service among its jobs."""
    with terminal() as (screen, path):
        shell = ["bash", "--norc", "--noprofile", "-i"]
        service = serve.launch(command=[sys.executable, "-c", LEADER, path, *shell])
        screen.write(f"{job % shlex.join(WSGI_APP)}\n".encode())
        service.wait_until_healthy()
        tree = tree_of(service)
        master = master_of(service)
        screen.close()
        service.wait()
    wait_until(lambda: not alive(master), 15)
    assert not [pid for pid in tree if alive(pid)]


def test_no_look_at_the_terminal_in_the_interpreter_s_end(serve: Services, tmp_path: Path) -> None:
    """The timer of the looks at the terminal does not outlive its handler, or it would kill a service that ends."""
    script = tmp_path / "ends.py"
    script.write_text(WATCHER.partition("heard = ")[0].replace("0.05", "0.0005") + SLOW_END)
    with terminal() as (_screen, path):
        command = [sys.executable, "-c", LEADER, path, sys.executable, str(script)]
        assert serve.launch(command=command, settings={"PYTHONPATH": str(ROOT)}).wait() == 0


def test_a_terminal_that_was_lost_before(serve: Services, tmp_path: Path) -> None:
    """A hang-up is one while it is news: a signal long after the loss of the terminal is the order to reload again."""
    script = tmp_path / "watcher.py"
    script.write_text(WATCHER)
    settings = {"PYTHONPATH": str(ROOT)}
    with terminal() as (screen, path):
        service = serve.launch(
            command=[sys.executable, "-c", LEADER, path, sys.executable, str(script)], settings=settings
        )
        wait_until(lambda: "ready" in service.text)
        screen.close()
        assert service.wait() == 0
    assert service.text.split() == ["ready", "True", "False"]
