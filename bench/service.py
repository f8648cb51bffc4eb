"""A real LLM Shell for the measurements: gunicorn on a free port, called over one kept-alive connection."""

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
ZYGOTE = "llm-zygote"
KEEPERS = ("llm-shell-shim", "llm-understudy")
# Seconds after which a service, that of an older build too, has done all that follows a call.
PAUSE = 2.0


class Service:
    """Call one running service."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def call(self, method: str, path: str, body: object = None) -> bytes:
        """Send a request and return the whole body; anything but success is an error."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            self.connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = self.connection.getresponse()
        except ConnectionError:  # idle for longer than the server keeps a connection
            self.connection.close()
            return self.call(method, path, body)
        data = response.read()
        if response.status >= 300:  # noqa: PLR2004  what is not success
            raise RuntimeError(f"{method} {path}: {response.status} {data.decode()}")
        return data

    def start(self, command: str) -> dict[str, Any]:
        """Start a command in place of whatever lives."""
        status: dict[str, Any] = json.loads(self.call("POST", "/start", {"command": command, "replace": True}))
        return status

    def status(self) -> dict[str, Any]:
        """Return the status object."""
        status: dict[str, Any] = json.loads(self.call("GET", "/status"))
        return status

    def total_lines(self) -> int:
        """Return the number of lines that can be read."""
        return int(json.loads(self.call("GET", "/logs?lines=1"))["total_lines"])

    def at_rest(self) -> list[int]:
        """Return the service's processes, without its command's, once it has nothing more to do."""
        time.sleep(PAUSE)  # no event tells that nothing more will begin
        return tree(self.pid, [self.status()["process_pid"]])

    @property
    def worker(self) -> int:
        """Return the worker's pid."""
        return next(pid for pid in children(self.pid) if "shim" not in name(pid))


@contextlib.contextmanager
def serving(folder: Path, application: str = "wsgi:app", root: Path = ROOT, **settings: str) -> Iterator[Service]:
    """Run a service in this folder; another application gets the same gunicorn settings without the service's hooks.

    `root` is the checkout whose code it is.
    """
    output = (folder / "gunicorn.log").open("w+")
    settings = {"LLM_SHELL_PORT": "0", "LLM_SHELL_LOG_DIR": str(folder / "logs"), **settings}
    arguments = ["--config", str(root / "gunicorn.conf.py")] if application == "wsgi:app" else PLAIN_SETTINGS
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *arguments, "--pythonpath", str(root), application],
        cwd=folder,
        env=environment(root) | settings,
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    try:
        yield Service(process.pid, _port_of(process, Path(output.name)))
    finally:
        process.terminate()
        process.wait(30)
        output.close()


def environment(root: Path = ROOT) -> dict[str, str]:
    """Return the variables for a process with the code of this checkout, none of them a setting of the service."""
    usual = {name: value for name, value in os.environ.items() if not name.startswith("LLM_SHELL_")}
    return usual | {"PYTHONPATH": str(root)}


def looks(interval: float, timeout: float = 120.0) -> Iterator[None]:
    """Yield every `interval` seconds, for a look at what no event tells; raises `TimeoutError` in the end."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        yield
        time.sleep(interval)
    raise TimeoutError(f"not within {timeout} s")


def wait_until(happened: Callable[[], object], timeout: float = 120.0) -> None:
    """Wait for a condition, asking a hundred times a second; raises `TimeoutError`."""
    for _ in looks(0.01, timeout):
        if happened():
            return


PLAIN_SETTINGS = ["--config", os.devnull, "--bind", "127.0.0.1:0", "--worker-class", "gthread", "--threads", "16"]
PLAIN_SETTINGS += ["--workers", "1", "--no-control-socket"]


def _port_of(process: "subprocess.Popen[bytes]", output: Path) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = re.search(r"Listening at: http://[^:]+:(\d+)", output.read_text())
        if found and "Booting worker" in output.read_text():
            port = int(found[1])
            with contextlib.suppress(OSError):
                Service(process.pid, port).call("GET", "/health")  # the worker still boots while the master listens
                return port
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError(f"the service did not come up:\n{output.read_text()}")


def children(pid: int) -> list[int]:
    """Return the pids whose parent this is."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if int(_stat(int(entry.name))[1]) == pid:
                    found.append(int(entry.name))
    return found


def tree(pid: int, without: Collection[int] = ()) -> list[int]:
    """Return a process and all below it, but for those processes and what is below them."""
    return [pid, *(one for child in children(pid) if child not in without for one in tree(child, without))]


def keepers(process: int) -> list[int]:
    """Return the processes that a build has for one run: the shim, which is its command's parent, and an understudy."""
    pid = parent(process)
    found = [pid]
    while name(pid := parent(pid)) in KEEPERS:
        found.append(pid)
    return found


def name(pid: int) -> str:
    """Return the short name of a process, empty when it has gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def alive(pid: int) -> bool:
    """Tell whether a process has not ended yet."""
    with contextlib.suppress(OSError):
        return _stat(pid)[0] != "Z"
    return False


def parent(pid: int) -> int:
    """Return the parent's pid."""
    return int(_stat(pid)[1])


def cpu_seconds(pid: int) -> float:
    """Return user plus system time of a process so far."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_ns(*pids: int) -> int:
    """Return the same of all threads of these, in nanoseconds: a tick is a tenth of what a slow writer's shim takes.

    Documentation/scheduler/sched-stats.rst; the file of a process is that of its first thread alone.
    """
    files = (task / "schedstat" for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int(file.read_text().split()[0]) for file in files)


def pss_mb(*pids: int) -> float:
    """Return the memory of these, a page that several processes share divided among them (proc_pid_smaps(5))."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text().split() for pid in pids]
    return sum(int(fields[fields.index("Pss:") + 1]) for fields in rollups) / 1024


def memory_kib(pid: int, field: str) -> int:
    """Return VmRSS, VmHWM or the like in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
