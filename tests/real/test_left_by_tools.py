"""What real tools leave behind: a daemon is in nobody's way and ends with the service; a leftover is, and is named."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.exceptions import ConflictError
from app.runs.spec import Spec
from app.supervisor.process import LEFTOVER_TIMEOUT
from tests.kit.processes import alive, command_line
from tests.kit.service import Service
from tests.kit.services import services_in
from tests.kit.waiting import wait_until
from tests.real import leavers
from tests.real.conftest import needs, shell_named
from tests.real.leavers import Leaver
from tests.real.trying import START_TIMEOUT, Trial, make_executable

DAEMONS = {
    "git commit -S": leavers.SIGNED_COMMIT,
    "ssh": leavers.CONTROL_PERSIST,
    "adb": leavers.ADB,
    "watchman": leavers.WATCHMAN,
}
STAYING = (leavers.SIGNED_COMMIT, leavers.SSH_AGENT, leavers.REDIS, leavers.ADB, leavers.WATCHMAN)
LEFTOVERS = {"biome": leavers.BIOME, "npm start &": leavers.NPM, "Xvfb &": leavers.XVFB}
CHROMIUM = (
    "chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"
    " --disable-background-networking --user-data-dir=profile --remote-debugging-port=0 about:blank"
)


@pytest.fixture
def shell() -> str:
    """Return the one shell under which these run: what they leave is the same under any."""
    return shell_named("bash")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Return a directory with a short path, since a socket's has at most 107 bytes (unix(7)), which all may enter."""
    with tempfile.TemporaryDirectory(prefix="llm-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def environment(trial: Trial, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Return what a leaver's command needs to know: for ssh a server is up."""
    with ExitStack() as cleanup:
        uses_ssh = "ssh" in request.node.callspec.id
        yield cleanup.enter_context(leavers.sshd(trial.folder)) if uses_ssh else {}


def leave(service: Service, leaver: Leaver, folder: Path) -> list[int]:
    """Have a service run a leaver in a directory of its own, and return the pids of the daemons that it leaves."""
    folder.mkdir()
    service.start(leaver.command, cwd=str(folder), env=leaver.ready_in(folder))
    status = wait_until(lambda: (now := service.status())["daemons"] and not now["leftover_pids"] and now)
    assert status["exit_code"] == 0
    return [one["pid"] for one in status["daemons"]]


def daemons(trial: Trial, word: str) -> list[int]:
    """Wait until all that is left are daemons, one of them with this word in its command line; return their pids."""

    def found() -> list[int]:
        status = trial.pm.get_status()
        pids = [one["pid"] for one in status["daemons"]]
        return pids if not status["leftover_pids"] and any(word in command_line(pid) for pid in pids) else []

    return wait_until(found)


def start_at_once(trial: Trial, command: str) -> None:
    """Start a command that must neither be refused nor wait for anything, and wait for its end."""
    began = time.monotonic()
    trial.start(command)
    assert time.monotonic() - began < LEFTOVER_TIMEOUT / 2
    assert trial.ended()["exit_code"] == 0, trial.printed


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_is_in_no_start_s_way(trial: Trial, name: str, environment: dict[str, str]) -> None:
    """It is named, the next start comes at once and ends none of it, and the service's stop ends it by SIGTERM."""
    leaver = DAEMONS[name]
    leaver.run(trial, environment)
    left = daemons(trial, leaver.word)
    start_at_once(trial, "true")
    assert all(map(alive, left))
    trial.pm.shut_down(5.0)
    assert not any(map(alive, left))


@pytest.mark.parametrize("name", LEFTOVERS)
def test_a_leftover_is_named(trial: Trial, name: str) -> None:
    """It is no daemon, the next start is refused and names it, and `replace` ends it."""
    leaver = LEFTOVERS[name]
    leaver.run(trial)
    status = trial.pm.get_status()
    left = status["leftover_pids"]
    assert status["daemons"] == []
    assert any(leaver.word in command_line(pid) for pid in left)
    with pytest.raises(ConflictError, match=leaver.word.split()[0]):
        trial.start("true")
    trial.pm.start(Spec("true", cwd="/"), if_running="replace")
    assert not any(map(alive, left))


def test_gc_is_in_no_start_s_way(trial: Trial) -> None:
    """A commit that trips git's background gc is no reason to refuse or delay a start, and gc goes on to its end."""
    needs("git")
    many = "for i in $(seq 1000); do echo $i > $i; done; git add . && git commit -q -m many"
    # What gc does takes a moment more with a hook of the user's, which it runs.
    hook = "[ ! -e .git/gc.pid ] || sleep 1"
    trial.start(f"{leavers.GIT} && git config gc.auto 1")
    assert trial.ended()["exit_code"] == 0
    make_executable(trial.folder / ".git" / "hooks" / "reference-transaction", ["#!/bin/sh", hook])
    trial.start(many)
    assert trial.ended()["exit_code"] == 0, trial.printed
    left = daemons(trial, "gc")
    start_at_once(trial, "true")
    assert any(map(alive, left))
    wait_until(lambda: not any(map(alive, left)), START_TIMEOUT)
    start_at_once(trial, "git count-objects")
    assert trial.printed == "0 objects, 0 kilobytes"


def test_psql_finds_the_database_of_the_run_before(trial: Trial) -> None:
    """After `pg_ctl start -l`, a run of its own asks the database, and the service's stop ends it by SIGTERM."""
    leaver = leavers.postgres()
    leaver.run(trial)
    left = daemons(trial, leaver.word)
    start_at_once(trial, f"{leavers.AS_POSTGRES}psql -h $PWD/data -d postgres -Atc 'select 6 * 7'")
    assert trial.printed == "42"
    trial.pm.shut_down(5.0)
    assert not any(map(alive, left))
    assert "database system is shut down" in (trial.folder / "data" / "log").read_text()


def test_the_next_build_finds_bazel_s_server(trial: Trial) -> None:
    """The second `bazel build` is not refused and starts no server of its own."""
    leavers.BAZEL.run(trial)
    assert "Starting local Bazel server" in trial.printed
    left = daemons(trial, leavers.BAZEL.word)
    leavers.BAZEL.run(trial)
    assert "Starting local Bazel server" not in trial.printed
    assert all(map(alive, left))


def test_an_abandoned_browser_is_a_leftover(trial: Trial) -> None:
    """When the script that started it is killed, the browser is named with all of its helpers, and /kill ends it."""
    needs("chromium")
    trial.start(f"{CHROMIUM} & while [ ! -e profile/DevToolsActivePort ]; do sleep 0.05; done; kill -KILL $$")
    assert trial.ended()["signal"] == "SIGKILL"
    status = trial.pm.get_status()
    assert any("chromium" in command_line(pid) for pid in status["leftover_pids"])
    assert status["daemons"] == []
    answer = trial.pm.kill("SIGTERM", 10.0)
    assert (answer["survivors"], answer["escalated"]) == ([], False)


def test_a_detached_browser_is_a_daemon(trial: Trial) -> None:
    """In a session of its own with pipes for its output, as drivers start it, an abandoned browser is a daemon."""
    needs("chromium")
    script = [
        "import os, pathlib, signal, subprocess, time",
        f"words = {CHROMIUM.split()!r}",
        "subprocess.Popen(words, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)",
        "while not pathlib.Path('profile/DevToolsActivePort').exists(): time.sleep(0.05)",
        "os.kill(os.getpid(), signal.SIGKILL)",
    ]
    (trial.folder / "browse.py").write_text("\n".join(script))
    trial.start(f"{sys.executable} browse.py")
    assert trial.ended()["signal"] == "SIGKILL"
    left = daemons(trial, "chromium")
    start_at_once(trial, "true")
    assert all(map(alive, left))
    trial.pm.shut_down(10.0)
    assert not any(map(alive, left))


def test_the_service_s_stop_ends_all_daemons(tmp_path: Path) -> None:
    """Daemons of one start after the other live on side by side until the service stops, which ends each of them."""
    with services_in(tmp_path) as services:
        service = services()
        folders = [tmp_path / str(number) for number in range(len(STAYING))]
        left = [pid for leaver, folder in zip(STAYING, folders, strict=True) for pid in leave(service, leaver, folder)]
        assert len(left) >= len(STAYING)
        assert all(map(alive, left))
        assert service.stop(signal.SIGTERM) == 0
        assert not any(map(alive, left))
