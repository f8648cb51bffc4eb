"""Whatever keeps a worker from coming up ends neither the service nor its command; it is told, and mends itself."""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.actors import reload, worker_of
from tests.kit.counter import assert_whole, start_counter
from tests.kit.machine import limited
from tests.kit.places import ROOT
from tests.kit.processes import alive, send
from tests.kit.service import GUNICORN, Answer, Service
from tests.kit.services import Services
from tests.kit.waiting import wait_until

TOKEN = "a-token-for-a-service-that-is-ill"  # noqa: S105  it opens nothing but a service of these tests
APPLICATION = "from app import create_app\napp = create_app()\n"
# gunicorn's configuration with something that happens in a new worker while a file is there.
CONFIGURATION = """
import os, runpy, signal
from pathlib import Path
globals().update({{k: v for k, v in runpy.run_path({path!r}).items() if not k.startswith("_")}})
usual = post_fork
def post_fork(server, worker):
    usual(server, worker)
    if Path({flag!r}).exists():
        {deed}
"""


def answer(service: Service, status: int, path: str = "/status") -> Answer:
    """Wait until a call is answered so; in between there may be no worker."""

    def answered() -> Answer | None:
        try:
            now = service.get(path, timeout=5.0)
        except OSError:
            return None
        return now if now.status == status else None

    return wait_until(answered, 15.0)


@contextmanager
def away(path: Path) -> Iterator[None]:
    """Move something out of the way for the time."""
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    yield
    if path.is_file():
        path.unlink()
    aside.rename(path)


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """Return the file of an application of this test's own."""
    path = tmp_path / "code" / "away.py"
    path.parent.mkdir()
    path.write_text(APPLICATION)
    return path


def serve_module(serve: Services, module: Path, **settings: str) -> Service:
    """Serve the application of that file."""
    command = [*GUNICORN[:-2], "--pythonpath", f"{ROOT},{module.parent}", "away:app"]
    return serve(command=command, settings=settings)


def test_without_its_application(serve: Services, module: Path) -> None:
    """A worker without its wsgi.py says so with a 500, at its birth as after a reload, and serves once it is back."""
    service = serve_module(serve, module)
    pid = start_counter(service, interval=0.01)
    with away(module):
        send(signal.SIGKILL, worker_of(service))
        told = answer(service, 500)
        assert "No module named 'away'" in told.body["detail"]
        assert answer(service, 500, "/health").body["title"] == "Internal Server Error"
        reload(service)
        assert "No module named 'away'" in answer(service, 500).body["detail"]
        worker = worker_of(service)
    assert answer(service, 200).body["process_pid"] == pid
    assert worker_of(service) == worker
    assert service.post("/kill").body["exit_code"] == -15
    assert_whole(service.content())


def test_an_application_that_ends_the_interpreter(serve: Services, module: Path) -> None:
    """A wsgi.py that says sys.exit() ends neither worker nor command: that, too, is answered, and tried again."""
    service = serve_module(serve, module)
    pid = service.start("exec sleep 1000")["process_pid"]
    with away(module):
        module.write_text("import sys; sys.exit('not today')")
        send(signal.SIGKILL, worker_of(service))
        assert "SystemExit: not today" in answer(service, 500).body["detail"]
    assert answer(service, 200).body["process_pid"] == pid


def test_it_comes_back_without_a_call(serve: Services, module: Path) -> None:
    """Once nothing is in the way any more the worker takes the run over by itself."""
    service = serve_module(serve, module)
    service.start("exec sleep 1000")
    with away(module):
        send(signal.SIGKILL, worker_of(service))
        answer(service, 500)
        assert service.zygotes == set()
    wait_until(lambda: service.zygotes)  # the last thing that a start of the application does
    assert service.post("/kill").status == 200


def test_a_strangers_500_names_no_path(serve: Services, module: Path) -> None:
    """Where there is a token, only its holder reads what is wrong; a page's request does not, where there is none."""
    service = serve_module(serve, module, LLM_SHELL_TOKEN=TOKEN)
    with away(module):
        send(signal.SIGKILL, worker_of(service))
        for headers in ({}, {"Authorization": "Bearer another"}):
            told = answer(service, 500, "/health").body["detail"]
            assert service.get("/status", headers=headers).body["detail"] == told
            assert "away" not in told
        held = service.get("/status", headers={"Authorization": f"Bearer {TOKEN}"})
        assert "No module named 'away'" in held.body["detail"]


def test_a_file_in_the_log_directorys_place(serve: Services) -> None:
    """A worker that finds no log directory where one must be says so, and serves the run once it is back."""
    service = serve()
    pid = start_counter(service, pause_at=100, count=200)
    with away(service.log_dir):
        service.log_dir.write_text("in the way")
        send(signal.SIGKILL, worker_of(service))
        assert str(service.log_dir) in answer(service, 500).body["detail"]
        assert alive(pid)
    assert answer(service, 200).body["process_pid"] == pid
    os.kill(pid, signal.SIGUSR1)
    wait_until(lambda: service.status()["exit_code"] == 0)
    assert_whole(service.content(), 200)


def test_a_limit_of_ten_descriptors(serve: Services) -> None:
    """A worker raises a limit that is too low for it, and a reload for which the master has too few files is told."""
    service = serve()
    pid = service.start("exec sleep 1000")["process_pid"]
    with limited(service.pid, resource.RLIMIT_NOFILE, 10):
        send(signal.SIGKILL, worker_of(service))
        assert answer(service, 200).body["process_pid"] == pid
    with limited(service.pid, resource.RLIMIT_NOFILE, 4):
        os.kill(service.pid, signal.SIGHUP)
        wait_until(lambda: "The reload failed" in service.text)
        assert answer(service, 200).body["process_pid"] == pid
        send(signal.SIGKILL, worker_of(service))
        wait_until(lambda: "No worker can be made: Too many open files" in service.text.replace("[Errno 24] ", ""))
        assert service.running
    assert answer(service, 200).body["process_pid"] == pid
    reload(service)
    assert service.post("/kill").status == 200


def serve_configured(serve: Services, tmp_path: Path, deed: str) -> tuple[Service, Path]:
    """Serve with a worker that does something at its birth while a file, returned too, is there."""
    flag = tmp_path / "flag"
    path = tmp_path / "gunicorn.conf.py"
    path.write_text(CONFIGURATION.format(path=str(ROOT / "gunicorn.conf.py"), flag=str(flag), deed=deed))
    return serve(command=[*GUNICORN[:3], "--config", str(path), "--pythonpath", str(ROOT), "wsgi:app"]), flag


def test_a_worker_that_dies_at_its_birth(serve: Services, tmp_path: Path) -> None:
    """The master makes another for as long as it takes, a few a second at most, and ends at once when told to."""
    service, flag = serve_configured(serve, tmp_path, "raise RuntimeError('not today')")
    pid = service.start("exec sleep 1000")["process_pid"]
    flag.touch()
    send(signal.SIGKILL, worker_of(service))
    wait_until(lambda: service.text.count("not today\n") >= 12, 20.0)
    times = re.findall(r"\[([^]]+)\] \[\d+\] \[INFO\] Booting worker", service.text)
    assert max(map(times.count, times)) <= 6
    assert alive(pid)
    flag.unlink()
    assert answer(service, 200).body["process_pid"] == pid
    flag.touch()
    send(signal.SIGKILL, worker_of(service))
    wait_until(lambda: service.text.count("not today\n") >= 24, 20.0)
    assert service.stop() == 0
    assert not alive(pid)


def test_a_sigterm_at_a_workers_birth_is_not_lost(serve: Services, tmp_path: Path) -> None:
    """A worker that is told to end between its fork and its own handlers does so, and another takes its place."""
    service, flag = serve_configured(
        serve, tmp_path, f"Path({str(tmp_path / 'flag')!r}).unlink(); os.kill(os.getpid(), signal.SIGTERM)"
    )
    first = worker_of(service)
    flag.touch()
    send(signal.SIGKILL, first)
    wait_until(lambda: len(set(re.findall(r"Booting worker with pid: (\d+)", service.text))) == 3)
    assert re.search(r"Worker exiting", service.text)
    assert answer(service, 404).status == 404


def test_a_worker_that_may_open_too_few_files(serve: Services, tmp_path: Path) -> None:
    """It tells whoever calls, and waits for more or for the order to end, whichever comes first."""
    deed = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (14, 14))"
    service, flag = serve_configured(serve, tmp_path, deed)
    pid = service.start("exec sleep 1000")["process_pid"]
    flag.touch()
    send(signal.SIGKILL, worker_of(service))
    assert "too few files" in answer(service, 500).body["detail"]
    flag.unlink()
    os.kill(worker_of(service), signal.SIGTERM)
    assert answer(service, 200).body["process_pid"] == pid
