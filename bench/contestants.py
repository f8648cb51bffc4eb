"""Who else keeps a command's output: each runs a command to its end and proves that every line was kept."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench.service import Service, alive, cpu_seconds, looks, memory_kib, parent, wait_until

CONMON_STUB = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --pid-file ] && pidfile=$2; shift; done
sh -c "$BENCH_COMMAND" &
echo $! > "$pidfile"
"""


class Result(NamedTuple):
    """How long it took, what the keeper's processes used (None: not measured), and how many lines were kept."""

    seconds: float
    cpu: float | None
    peak_kib: int | None
    lines: int


def llm_shell(service: Service, command: str) -> Result:
    """Run through POST /start until the last line can be read."""
    worker = service.worker
    before = cpu_seconds(worker)
    began = time.perf_counter()
    process = service.start(command)["process_pid"]
    shim = parent(process)
    cpu, peak = 0.0, 0
    for _ in looks(0.01):
        if not alive(process) and service.status()["status"] != "running":
            break
        with contextlib.suppress(OSError, IndexError):
            cpu, peak = cpu_seconds(shim), memory_kib(shim, "VmHWM")
    lines = service.total_lines()
    seconds = time.perf_counter() - began
    with contextlib.suppress(OSError, IndexError):  # when the rest of the pipe is drained, the shim goes
        for _ in looks(0.001):
            cpu, peak = cpu_seconds(shim) or cpu, memory_kib(shim, "VmHWM") or peak
    log = Path(service.status()["log_file"])
    for segment in log.parent.glob(f"{log.stem}.*log"):
        segment.unlink()
    return Result(seconds, cpu + cpu_seconds(worker) - before, peak, lines)


def plain_file(folder: Path, command: str) -> Result:
    """Run with the output straight into a file: the limit."""
    began = time.perf_counter()
    subprocess.run(["sh", "-c", f"{command} > {folder / 'plain'}"], check=True)
    return _counted(folder / "plain", time.perf_counter() - began)


def conmon(folder: Path, command: str) -> Result:
    """Run under conmon as it comes: it syncs its log to the disk before it tells of the end."""
    return _conmon(folder, command)


def conmon_without_sync(folder: Path, command: str) -> Result:
    """Run under conmon without its final sync, which nobody else here does."""
    return _conmon(folder, command, "--no-sync-log")


def _conmon(folder: Path, command: str, *options: str) -> Result:
    """Run under conmon to the end."""
    began = time.perf_counter()
    keeper = start_conmon(folder, command, *options)
    cpu, peak = 0.0, 0
    for _ in looks(0.01):
        with contextlib.suppress(OSError, IndexError):
            cpu, peak = cpu_seconds(keeper), memory_kib(keeper, "VmHWM")
        if (folder / "exits" / "bench").exists():
            break
    seconds = time.perf_counter() - began
    # A line that fell across two of its reads is kept in pieces, tagged P but for the last.
    return Result(seconds, cpu, peak, _count(folder / "log", b" stdout F "))


def start_conmon(folder: Path, command: str, *options: str) -> int:
    """Start a command under conmon, with a stub in the place of the container runtime; return conmon's pid."""
    stub = folder / "runtime"
    stub.write_text(CONMON_STUB)
    stub.chmod(0o755)
    (folder / "bundle").mkdir()
    (folder / "exits").mkdir()
    arguments = ["conmon", "--api-version", "1", "-c", "bench", "-u", "bench", "-n", "bench", "-r", str(stub)]
    arguments += ["-b", str(folder / "bundle"), "-p", str(folder / "pid"), "-l", f"k8s-file:{folder / 'log'}"]
    arguments += ["--exit-dir", str(folder / "exits"), "--full-attach", "--log-level", "error", *options]
    arguments += ["--conmon-pidfile", str(folder / "conmon.pid")]
    subprocess.run(arguments, env={**os.environ, "BENCH_COMMAND": command}, check=True)
    return int((folder / "conmon.pid").read_text())


@contextlib.contextmanager
def under_conmon(base: Path, command: str, count: int = 1) -> Iterator[list[int]]:
    """Have a command live as often as asked for, each under a conmon of its own; yield the conmons' pids."""
    folders = [base / f"conmon-{number}" for number in range(count)]
    try:
        for folder in folders:
            folder.mkdir()
        yield [start_conmon(folder, command) for folder in folders]
    finally:
        for folder in folders:
            with contextlib.suppress(OSError):  # it was not started
                os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
                wait_until((folder / "exits" / "bench").exists)


def s6_log(folder: Path, command: str) -> Result:
    """Run into s6-log with timestamps."""
    return _piped(folder, command, f"s6-log T s268435455 n40 {folder / 'dir'}")


def svlogd(folder: Path, command: str) -> Result:
    """Run into svlogd with timestamps."""
    (folder / "dir").mkdir()
    (folder / "dir" / "config").write_text("s0\n")
    return _piped(folder, command, f"svlogd -ttt {folder / 'dir'}")


def supervisord(folder: Path, command: str) -> Result:
    """Run under supervisord, which adds no timestamps.

    Standard error is left out: supervisord's children inherit an ignored SIGPIPE, and `yes` complains there.
    """
    done = folder / "done"
    (folder / "conf").write_text(
        f"[supervisord]\nlogfile={folder / 'main'}\npidfile={folder / 'pid'}\nnodaemon=true\nuser=root\n"
        f"[program:bench]\ncommand=sh -c {shlex.quote(f'{command}; touch {done}')}\nautorestart=false\n"
        f"startsecs=0\nstdout_logfile={folder / 'log'}\nstdout_logfile_maxbytes=0\n"
    )
    tool = _tool("supervisord", [sys.executable, "-m", "pip", "install", "--quiet", "supervisor==4.3.0"])
    began = time.perf_counter()
    with subprocess.Popen(
        [str(tool), "-c", str(folder / "conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            seconds = _wait_for_quiet(folder / "log", done) - began
        finally:
            process.terminate()
    return _counted(folder / "log", seconds)


def pm2(folder: Path, command: str) -> Result:
    """Run under pm2 with timestamps."""
    done = folder / "done"
    script = folder / "run.sh"
    script.write_text(f"{command}\ntouch {done}\n")
    home = {**os.environ, "PM2_HOME": str(folder / "home")}
    tool = _npm_tool("pm2", "pm2@6.0.13")
    arguments = ["start", script, "--interpreter", "sh", "--time", "--no-autorestart", "--output", folder / "log"]
    subprocess.run([tool, "ping"], env=home, check=True, stdout=subprocess.DEVNULL)
    try:
        began = time.perf_counter()
        subprocess.run([str(tool), *map(str, arguments)], env=home, check=True, stdout=subprocess.DEVNULL)
        return _counted(folder / "log", _wait_for_quiet(folder / "log", done) - began)
    finally:
        subprocess.run([tool, "kill"], env=home, check=False, stdout=subprocess.DEVNULL)


PEERS: dict[str, Callable[[Path, str], Result]] = {
    "plain file": plain_file,
    "conmon": conmon,
    "conmon --no-sync-log": conmon_without_sync,
    "s6-log T": s6_log,
    "svlogd -ttt": svlogd,
    "supervisord": supervisord,
    "pm2 --time": pm2,
}
PACKAGES = {"conmon": "conmon", "s6-log": "s6", "svlogd": "runit", "wrk": "wrk"}


def install() -> set[str]:
    """Install the peers from Debian's packages where that may be done; return the names of those that are not there."""
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-qq"], check=False, stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "install", "-y", "-qq", *missing], check=False, stdout=subprocess.DEVNULL)
    absent = {
        "conmon": "conmon",
        "conmon --no-sync-log": "conmon",
        "s6-log T": "s6-log",
        "svlogd -ttt": "svlogd",
        "pm2 --time": "npm",
    }
    return {peer for peer, program in absent.items() if not shutil.which(program)}


def _piped(folder: Path, command: str, logger: str) -> Result:
    began = time.perf_counter()
    subprocess.run(["sh", "-c", f"{command} | {logger}"], check=True)
    seconds = time.perf_counter() - began
    lines = sum(_count(path) for path in (folder / "dir").iterdir() if path.name[0] in "@_c" and path.name != "config")
    return Result(seconds, None, None, lines)


def _wait_for_quiet(log: Path, done: Path) -> float:
    """Wait until the command has ended and its log has not grown for a second; return when it last grew."""
    size, grown = -1, time.perf_counter()
    for _ in looks(0.01):
        if done.exists() and time.perf_counter() - grown >= 1:
            break
        now = log.stat().st_size if log.exists() else 0
        if now != size:
            size, grown = now, time.perf_counter()
    return grown


def _counted(log: Path, seconds: float, cpu: float | None = None, peak: int | None = None) -> Result:
    return Result(seconds, cpu, peak, _count(log))


def _count(path: Path, mark: bytes = b"\n") -> int:
    total, rest = 0, b""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total += (rest + block).count(mark)
            rest = block[len(block) - len(mark) + 1 :]
    return total


def _tool(program: str, install_command: list[str]) -> Path:
    """Return a program of a virtual environment that the bench keeps for its peers."""
    home = Path(tempfile.gettempdir()) / "llm-shell-bench-peers"
    if not (home / "bin" / program).exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([home / "bin" / "python", *install_command[1:]], check=True)
    return home / "bin" / program


def _npm_tool(program: str, package: str) -> Path:
    home = Path(tempfile.gettempdir()) / "llm-shell-bench-npm"
    path = home / "node_modules" / ".bin" / program
    if not path.exists():
        subprocess.run(["npm", "install", "--silent", "--prefix", home, package], check=True)
    return path
