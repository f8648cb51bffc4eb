"""SIGTERM goes to a tree in order: no next step runs, no last words are lost, and nobody hears it twice."""

import os
import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.runs.spec import Spec
from app.service import manage
from app.supervisor.manager import ProcessManager
from app.supervisor.policy import Policy
from tests.kit.output import content, printed
from tests.kit.places import PROGRAMS
from tests.kit.processes import command_line, descendants, parent, send
from tests.kit.requiring import require
from tests.kit.waiting import wait_until

TRIES = 20
NEXT_STEPS = [
    "timeout 600 sleep 601; echo x > {}",
    "timeout 600 sleep 601 || echo x > {}",
    "timeout 600 true && timeout 600 sleep 601; echo x > {}",
    "sh -c 'timeout 600 sleep 601; echo x > {0}'; echo x > {0}",
    "(setsid -w sleep 601; echo x > {0}) || echo x > {0}",
    "timeout 600 sleep 601 | (cat; echo x > {0}); echo x > {0}",
]


def vary_pids() -> None:
    """Take some pids, so that the next process is not the one after this one."""
    for _ in range(random.randrange(12)):  # noqa: S311  any order will do
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


def exit_codes(pm: ProcessManager, command: str, sleepers: int, kind: str, timeout: float) -> set[int]:
    """Start a command and kill it, again and again; return with which exit codes it ended."""
    codes = set()
    for _ in range(TRIES):
        vary_pids()
        pm.start(Spec(command, cwd="/"))
        wait_until(lambda: sum(command_line(pid).strip() == "sleep 601" for pid in descendants()) == sleepers)
        answer = pm.kill(kind, timeout)
        assert answer["survivors"] == []
        codes.add(answer["exit_code"])
    return codes


@pytest.mark.parametrize("command", NEXT_STEPS)
def test_no_next_step_runs(pm: ProcessManager, tmp_path: Path, command: str) -> None:
    """A shell never goes on because of a kill, and ends by the same signal each time."""
    trace = tmp_path / "trace"
    assert exit_codes(pm, command.format(trace), 1, "SIGTERM", 5.0) == {-signal.SIGTERM}
    assert not trace.exists()


@pytest.mark.parametrize(("kind", "timeout", "code"), [("SIGKILL", 5.0, -9), ("SIGTERM", 0.0, -15)])
def test_no_next_step_runs_without_grace(
    pm: ProcessManager, tmp_path: Path, kind: str, timeout: float, code: int
) -> None:
    """Parents come first also where nobody is given time."""
    trace = tmp_path / "trace"
    assert exit_codes(pm, NEXT_STEPS[0].format(trace), 1, kind, timeout) == {code}
    assert not trace.exists()


def test_no_next_step_runs_after_su(pm: ProcessManager, place: Path) -> None:
    """Nor after another user's shell, which su starts in a session of its own and which takes two seconds to end."""
    require(Path("/bin/su").exists(), "su")
    trace = place / "trace"
    pm.start(Spec(f"su nobody -s /bin/sh -c 'sleep 601; echo x > {trace}.1'; echo x > {trace}", cwd="/"))
    wait_until(lambda: any(command_line(pid).strip() == "sleep 601" for pid in descendants()))
    assert pm.kill()["exit_code"] == -signal.SIGTERM
    assert list(place.iterdir()) == []


def test_bash_goes_no_step_further(tmp_path: Path) -> None:
    """The same with bash, which replaces itself by a last command."""
    manager = manage(tmp_path / "logs", Policy("/bin/bash"))
    trace = tmp_path / "trace"
    try:
        for command in NEXT_STEPS[:2]:
            assert exit_codes(manager, command.format(trace), 1, "SIGTERM", 5.0) == {-signal.SIGTERM}
    finally:
        manager.shut_down(0.0)
        manager.close()
    assert not trace.exists()


@pytest.mark.parametrize("shell", ["/bin/dash", "/bin/bash"])
def test_a_trap_runs_whatever_its_shell_is_starting(tmp_path: Path, shell: str) -> None:
    """A kill while the shell forks its next program ends that, too, so that the trap runs at once."""
    require(Path(shell).exists(), shell)
    manager = manage(tmp_path / "logs", Policy(shell))
    try:
        for number in range(2 * TRIES):
            begun, cleaned = tmp_path / f"begun-{number}", tmp_path / f"cleaned-{number}"
            manager.start(Spec(f"trap 'touch {cleaned}; exit 3' TERM; touch {begun}; sleep 601; touch next", cwd="/"))
            deadline = time.monotonic() + 10
            while not begun.exists() and time.monotonic() < deadline:  # without a rest: the next fork is under way
                pass
            answer = manager.kill("SIGTERM", 2.0)
            assert (answer["exit_code"], answer["escalated"], cleaned.exists()) == (3, False, True)
    finally:
        manager.shut_down(0.0)
        manager.close()


LAST_WORDS = [f"last words {number}" for number in range(1000)]
SERVER = f"{sys.executable} {PROGRAMS / 'last_words.py'}"


@pytest.mark.parametrize(
    "command",
    [
        "{server} | cat",
        "{server} | tee {copy}",
        "{server} 2>&1 | cat | tee {copy}",
        "{server} | (cat; echo next)",
        "{server} | while read l; do echo $l; done",
        # bash makes the reader the server's own child.
        "exec bash -c '{server} > >(tee {copy})'",
        "exec bash -c '{server} > >(while read -r line; do echo $line; done)'",
    ],
)
def test_readers_have_the_last_words(pm: ProcessManager, tmp_path: Path, command: str) -> None:
    """What a server says after its signal passes through the reader of its output, beside it or below it."""
    for _ in range(5):
        pm.start(command.format(server=SERVER, copy=tmp_path / "copy"))
        printed(pm, "ready")
        answer = pm.kill()
        assert (answer["escalated"], answer["survivors"]) == (False, [])
        assert content(pm).splitlines() == ["ready", "SIGTERM", *LAST_WORDS]


def test_a_script_that_logs_through_tee_cleans_up(pm: ProcessManager, tmp_path: Path) -> None:
    """A script whose output goes to a tee of its own runs its trap, says its last words and removes its lock file."""
    script = tmp_path / "script"
    script.write_text(
        f"exec > >(tee {tmp_path}/log) 2>&1\ntouch {tmp_path}/lock\n"
        f"trap 'echo cleaning; sleep 0.1; rm {tmp_path}/lock; echo cleaned; exit 3' TERM\n"
        "echo ready\nsleep 601\necho next"
    )
    for _ in range(5):
        pm.start(f"exec bash {script}")
        printed(pm, "ready")
        answer = pm.kill()
        assert (answer["exit_code"], answer["escalated"]) == (3, False)
        # bash itself says "Terminated" of its sleep.
        assert content(pm).splitlines() == ["ready", "Terminated", "cleaning", "cleaned"]
        assert (tmp_path / "log").read_text().endswith("cleaning\ncleaned\n")
        assert not (tmp_path / "lock").exists()


def test_a_trap_runs_at_once(pm: ProcessManager) -> None:
    """A shell that waits for a command in the foreground runs its trap now, since the command gets the signal, too."""
    pm.start("""exec bash -c 'trap "echo trapped; exit 4" TERM; echo ready; sleep 601; echo next'""")
    wait_until(lambda: any(command_line(pid).strip() == "sleep 601" for pid in descendants()))
    began = time.monotonic()
    assert pm.kill()["exit_code"] == 4
    assert time.monotonic() - began < 2
    assert content(pm).splitlines() == ["ready", "Terminated", "trapped"]  # the second of sleep, by bash


def test_a_trap_that_forwards(pm: ProcessManager) -> None:
    """A script that passes the signal on and waits ends with its own exit code."""
    pm.start(f"{SERVER} & trap 'kill -TERM $!; wait $!; echo waited; exit 5' TERM; wait; echo next")
    printed(pm, "ready")
    answer = pm.kill()
    assert (answer["exit_code"], answer["escalated"]) == (5, False)
    assert content(pm).endswith("last words 999\nwaited")


def test_xargs_starts_nothing_more(pm: ProcessManager, tmp_path: Path) -> None:
    """Neither xargs nor what it runs goes on, and its children are told when it has ended."""
    pm.start(f"seq 100 | xargs -P 4 -I N sh -c 'echo N; sleep 601; touch {tmp_path}/N'; echo next")
    wait_until(lambda: len(content(pm).splitlines()) == 4)
    answer = pm.kill()
    assert (answer["escalated"], answer["survivors"]) == (False, [])
    assert len(content(pm).splitlines()) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


@pytest.mark.parametrize(("prefix", "code"), [("exec ", 7), ("", -signal.SIGTERM)])
def test_a_pool_shuts_down_by_itself(pm: ProcessManager, prefix: str, code: int) -> None:
    """A program that forwards to its workers is trusted with that: each hears SIGTERM once, from it, and finishes."""
    pm.start(f"{prefix}{sys.executable} {PROGRAMS / 'pool.py'}; true")
    printed(pm, "ready")
    answer = pm.kill("SIGTERM", 10.0)
    assert (answer["exit_code"], answer["escalated"], answer["survivors"]) == (code, False, [])
    assert sorted(content(pm).splitlines()[1:]) == [
        "pool SIGTERM",
        *(f"worker {number} {what}" for number in range(3) for what in ("SIGTERM from the pool", "finished")),
    ]


def test_in_the_last_second_everybody_is_told(pm: ProcessManager) -> None:
    """A worker whose pool does not care gets the signal before the grace ends."""
    pm.start(f"exec {sys.executable} {PROGRAMS / 'pool.py'} idle")
    printed(pm, "ready")
    began = time.monotonic()
    answer = pm.kill("SIGTERM", 2.0)
    assert 1.5 <= time.monotonic() - began < 2.9
    assert (answer["escalated"], answer["survivors"]) == (True, [])
    assert content(pm).count("from somebody else") == 3


def test_a_stopped_worker_is_told_and_goes_on(pm: ProcessManager) -> None:
    """A stopped member below a shell acts on its signal at once."""
    pm.start(f"{SERVER} & wait")
    printed(pm, "ready")
    pid = next(pid for pid in descendants() if "last_words" in command_line(pid) and "sh -c" not in command_line(pid))
    send(signal.SIGSTOP, pid)
    answer = pm.kill()
    assert (answer["exit_code"], answer["escalated"]) == (-15, False)
    assert content(pm).endswith("last words 999")


def test_a_tree_that_forks_while_it_ends(pm: ProcessManager) -> None:
    """SIGTERM ends a tree that moves from pid to pid, if need be with SIGKILL's help."""
    for _ in range(3):
        pm.start(f"{sys.executable} {PROGRAMS / 'forker.py'} & wait; echo next; sleep 601")
        printed(pm, "next")
        answer = pm.kill("SIGTERM", 5.0)
        assert (answer["exit_code"], answer["survivors"]) == (-15, [])


def test_an_understudy_that_takes_over_tells_nobody_twice(pm: ProcessManager) -> None:
    """A shim killed in the middle of a grace leaves an understudy, which goes on and knows who had the signal."""
    pid = pm.start(f"exec {SERVER} 3")["process_pid"]
    printed(pm, "ready")
    with ThreadPoolExecutor(1) as caller:
        answer = caller.submit(pm.kill, "SIGTERM", 20.0)
        printed(pm, "SIGTERM")
        os.kill(parent(pid), signal.SIGKILL)
        assert answer.result()["escalated"] is False
    assert content(pm).splitlines() == ["ready", "SIGTERM", *LAST_WORDS]


DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    for fd in (0, 1, 2):
        os.dup2(os.open("/dev/null", os.O_RDWR), fd)
    os.mkfifo("pipe")
    listening = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    os.rename("pipe", "listens")
    signal.pause()
os.wait()
def clean_up(*_):
    time.sleep(0.3)
    os.open("listens", os.O_WRONLY | os.O_NONBLOCK)  # ENXIO where nobody listens any more
    print("cleaned up", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, clean_up)
while not os.path.exists("listens"):
    time.sleep(0.01)
print("ready", flush=True)
while True:
    signal.pause()
"""


def test_a_daemon_serves_who_cleans_up(pm: ProcessManager, tmp_path: Path) -> None:
    """A program that needs a daemon of its own for its clean-up has it until the end; then the daemon ends, too."""
    (tmp_path / "program.py").write_text(DAEMON)
    pm.start(Spec(f"{sys.executable} program.py; true", cwd=str(tmp_path)))
    printed(pm, "ready")
    answer = pm.kill("SIGTERM", 10.0)
    assert "cleaned up" in content(pm)
    assert (answer["escalated"], answer["survivors"]) == (False, [])


NAMED = """mkfifo g; tee h < g &
bash -c 'trap "sleep .3; echo last; exit 0" TERM; echo hi; while :; do sleep .05; done' > g; echo x"""


@pytest.mark.parametrize("command", [NAMED, NAMED.replace("echo hi", "rm g; echo hi")])
def test_the_reader_of_a_named_pipe_has_the_last_words(pm: ProcessManager, tmp_path: Path, command: str) -> None:
    """A FIFO of the file system is a pipe like any other, also when its name has been removed."""
    pm.start(Spec(command, cwd=str(tmp_path)))
    printed(pm, "hi")
    answer = pm.kill("SIGTERM", 5.0)
    assert (answer["escalated"], answer["survivors"]) == (False, [])
    assert (tmp_path / "h").read_text() == "hi\nlast\n"
