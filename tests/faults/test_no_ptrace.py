"""Root in a container may often not look into other users' processes: commands of RUN_AS end in order all the same."""

from __future__ import annotations

import os
import shutil

from tests.kit.places import PROGRAMS
from tests.kit.requiring import require
from tests.kit.service import GUNICORN
from tests.kit.services import Services

TRIES = 5
DAEMON = f"/usr/bin/env python3 {PROGRAMS / 'daemon.py'}"
WITHOUT = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", *GUNICORN, "wsgi:app")
SETS = "/usr/bin/python3 -c 'import os; os.set_blocking(1, False)'"
SERVER = """sh -c 'trap "sleep 0.1; echo last words; exit" TERM; echo ready; while :; do sleep 0.05; done'"""


def test_readers_wait_for_writers_of_another_user(serve: Services) -> None:
    """Without CAP_SYS_PTRACE it is still known who reads whose pipe, so the last words are in the log."""
    require(os.geteuid() == 0 and shutil.which("setpriv"), "root and setpriv")
    service = serve(command=WITHOUT, settings={"LLM_SHELL_RUN_AS": "nobody"})
    for _ in range(TRIES):
        service.start(f"{SERVER} | cat; echo next", cwd="/")
        service.wait_for_output("ready")
        answer = service.post("/kill").body
        assert (answer["exit_code"], answer["escalated"], answer["survivors"]) == (-15, False, [])
        assert [line for line in service.content().splitlines() if line != "Terminated"] == ["ready", "last words"]


def test_whose_descriptors_can_not_be_read_is_a_leftover(serve: Services) -> None:
    """Without CAP_SYS_PTRACE another user's daemon is still known as one, unless it hides its descriptors."""
    require(os.geteuid() == 0 and shutil.which("setpriv"), "root and setpriv")
    service = serve(command=WITHOUT, settings={"LLM_SHELL_RUN_AS": "nobody"})
    for option in ("", "private"):
        service.start(f"{DAEMON} {option}", cwd="/")
        status = service.wait_for_exit()
        pid = int(service.content())
        told = (status["leftover_pids"], [daemon["pid"] for daemon in status["daemons"]])
        assert told == (([pid], []) if option else ([], [pid]))
    assert service.post("/kill").body["survivors"] == []


def test_a_look_that_is_not_permitted_harms_no_run(serve: Services) -> None:
    """Without CAP_SYS_PTRACE no look at another user's flags is possible; all else goes on."""
    require(os.geteuid() == 0 and shutil.which("setpriv"), "root and setpriv")
    service = serve(command=WITHOUT, settings={"LLM_SHELL_RUN_AS": "nobody"})
    service.start(f"{SETS}; for i in $(seq 1000); do echo $i; done; {SETS}; exit 3", cwd="/")
    status = service.wait_for_exit()
    assert (status["exit_code"], status["reason"]) == (3, None)
    assert service.content().splitlines() == [str(number) for number in range(1, 1001)]
