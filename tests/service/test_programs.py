"""Real programs through one real gunicorn: what an agent starts in earnest."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.kit.network import free_port, listens
from tests.kit.places import PROGRAMS
from tests.kit.processes import alive, children, descendants
from tests.kit.requiring import require
from tests.kit.service import Service
from tests.kit.services import services_in
from tests.kit.waiting import wait_until

NODE_SERVER = """\
const server = require("http").createServer((request, response) => response.end("served by node"));
server.listen(Number(process.env.PORT), "127.0.0.1", () => console.log("ready on " + process.env.PORT));
"""
FLOOD_SECONDS = 2.0
LOG_MAX_BYTES = 64 * 1024 * 1024  # more than `seq` needs, and far less than `yes` prints
MAX_GROWTH_KIB = 32 * 1024  # what the service may gain while megabytes pass through


@pytest.fixture(scope="module")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return the one service that all these programs run through."""
    with services_in(tmp_path_factory.mktemp("shared")) as services:
        yield services(settings={"LLM_SHELL_LOG_MAX_BYTES": str(LOG_MAX_BYTES)})


def fetch(port: int) -> str:
    """Return the first page of a web server on this machine; "" while there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response.read().decode() if response.status == 200 else ""
    except OSError:
        return ""
    finally:
        connection.close()


def kill(service: Service) -> dict[str, Any]:
    """End the run and return how that went."""
    status, body = service.post("/kill")
    assert status == 200, body
    return dict(body)


def python_web_server(service: Service, folder: Path) -> None:
    """Run `python3 -u -m http.server`: it answers while it runs, and its port is free after /kill."""
    (folder / "index.html").write_text("served by python")
    port = free_port()
    service.start(f"python3 -u -m http.server {port} --bind 127.0.0.1", cwd=str(folder))
    assert wait_until(partial(fetch, port)) == "served by python"
    assert f"port {port}" in service.wait_for_output('"GET / HTTP/1.1" 200')
    assert kill(service)["status"] == "killed"
    assert not listens(port)


def pip_download(service: Service, folder: Path) -> None:
    """Run `pip download`: the package is there, and the log tells how it came."""
    wanted = "iniconfig==2.1.0"
    service.start([sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "-d", folder, wanted])
    outcome = service.wait_for_exit(timeout=60)
    assert outcome["exit_code"] == 0, service.content()
    assert [path.name for path in folder.iterdir()] == ["iniconfig-2.1.0-py3-none-any.whl"]
    assert "Successfully downloaded iniconfig" in service.content()


def failing_tests(service: Service, folder: Path) -> None:
    """Run pytest on a file with a failure: exit code 1, and the log names the failed test."""
    shutil.copy(PROGRAMS / "failing_tests.py", folder / "test_theirs.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_theirs.py"]
    service.start(command, cwd=str(folder), env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    outcome = service.wait_for_exit(timeout=60)
    assert (outcome["status"], outcome["exit_code"]) == ("exited", 1)
    output = service.content()
    assert "FAILED test_theirs.py::test_that_fails" in output
    assert "1 failed, 1 passed" in output


def npm_dev_server(service: Service, folder: Path) -> None:
    """Run a dev server through `npm run dev`: it answers, and npm, its shell and node are all gone after /kill."""
    require(shutil.which("node") and shutil.which("npm"), "Node and npm")
    (folder / "server.js").write_text(NODE_SERVER)
    (folder / "package.json").write_text(json.dumps({"private": True, "scripts": {"dev": "node server.js"}}))
    port = free_port()
    pid = service.start("npm run dev", cwd=str(folder), env={"PORT": str(port)})["process_pid"]
    service.wait_for_output(f"ready on {port}", timeout=30)
    assert fetch(port) == "served by node"
    below = children(pid)
    assert below
    assert kill(service)["survivors"] == []
    assert not [each for each in (pid, *below) if alive(each)]
    assert not listens(port)


def many_lines(service: Service, _folder: Path) -> None:
    """Run `seq 1 200000`: every line is in the log, in order."""
    service.start("seq 1 200000")
    assert service.wait_for_exit()["exit_code"] == 0
    body = service.get("/logs").body
    assert body["total_lines"] == body["lines_returned"] == 200_000
    assert body["content"] == "\n".join(map(str, range(1, 200_001)))


def flood(service: Service, _folder: Path) -> None:
    """Run `yes` for two seconds: it answers meanwhile, memory and log stay bounded, the lines kept have no hole."""
    wait_until(lambda: service.zygotes)
    before = memory(service)
    run = service.start("exec yes")
    ends = time.monotonic() + FLOOD_SECONDS
    grown = 0
    while time.monotonic() < ends:
        began = time.monotonic()
        assert service.content("?lines=3") in {"", "y\ny\ny"}
        assert time.monotonic() - began < 1
        grown = max(grown, memory(service) - before)
    assert kill(service)["signal"] == "SIGTERM"
    assert grown < MAX_GROWTH_KIB

    total = service.get("/logs?lines=1").body["total_lines"]
    assert total > 100_000
    # A capped log has an older segment, `RUN_ID.1.log`, beside its newer one.
    kept = b"".join(path.read_bytes() for path in sorted(service.log_dir.glob(f"{run['run_id']}.*log")))
    assert len(kept) <= LOG_MAX_BYTES
    seqs = array("q", map(seq_of, kept.splitlines()))
    assert len(seqs) > 1000
    assert seqs[-1] == total
    assert all(later - earlier == 1 for earlier, later in pairwise(seqs))


def progress_bar(service: Service, _folder: Path) -> None:
    """Run a progress bar: seen while it grows, and in the end one line with its carriage returns and escapes."""
    pid = service.start(["exec", sys.executable, PROGRAMS / "progress.py"])["process_pid"]
    seen = service.wait_for_output("|##..| 2/4")
    assert "3/4" not in seen
    assert service.get("/status").body["status"] == "running"
    os.kill(pid, signal.SIGUSR1)
    service.wait_for_exit()
    bar = "".join(f"\r\x1b[32m{n * 25:3d}%\x1b[0m |{'#' * n}{'.' * (4 - n)}| {n}/4" for n in range(5))
    body = service.get("/logs").body
    assert body["content"] == f"ready\n{bar}"
    assert body["total_lines"] == 2


def seq_of(record: bytes) -> int:
    """Return the line number of one record of the log."""
    return int(record.removeprefix(b'{"seq":').partition(b",")[0])


def memory(service: Service) -> int:
    """Return what master, worker, zygote, understudies and shims hold in memory, in KiB; shared parts once."""
    ours = [pid for pid, name in descendants(service.pid).items() if name.startswith("llm-")]
    return sum(proportional(pid) for pid in (service.pid, *service.workers, *ours))


def proportional(pid: int) -> int:
    """Return a process's memory, what it shares divided among those who do (proc_pid_smaps(5)); 0 when it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
        return int(fields[fields.index("Pss:") + 1])
    return 0


@pytest.mark.parametrize(
    "drive",
    [
        python_web_server,
        pip_download,
        failing_tests,
        npm_dev_server,
        many_lines,
        flood,
        progress_bar,
    ],
)
def test_real_programs(service: Service, tmp_path: Path, drive: Callable[[Service, Path], None]) -> None:
    """Programs from an agent's day run through the service as they run in a terminal."""
    drive(service, tmp_path)
