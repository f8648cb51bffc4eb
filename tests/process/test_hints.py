"""What is said of a run that ended itself agrees with what its shell and pkill really do."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.runs.spec import Spec
from app.service import manage
from app.supervisor.manager import ProcessManager
from app.supervisor.policy import Policy
from tests.kit.requiring import require
from tests.kit.waiting import ended

HINT = "Its own `"
# `{}` is a text that no other process has on its command line: nothing else can be signalled. Some of these end the
# shell that runs them, others don't, as that is replaced, or not matched.
TEXTS = [
    "pkill -f {}; echo next",
    "pkill -f {}",
    "cd /; pkill -f {}",
    "cd / && pkill -f {}",
    "false || pkill -f {}",
    "A=1 pkill -f {}",
    "pkill -f {} || true",
    "pkill -f {} >/dev/null 2>&1",
    "pkill -f {} | cat",
    "true | pkill -f {}",
    "if pkill -f {}; then echo next; fi",
    "{{ pkill -f {}; }}",
    "! pkill -f {}",
    "pkill -9 -f {}; echo next",
    "pkill --signal HUP -f {}; echo next",
    "pkill -f '[{}]{}'; echo next",
    "pkill -f '[x]{}'; echo x{}",
    "pkill -f '^/bin.*{}'; echo next",
    "kill $(pgrep -f {})",
    "kill -9 `pgrep -f {}`; echo next",
    "pgrep -f {} | xargs kill; echo next",
    "pgrep -f {} | xargs -r kill -9",
    "# pkill, don't ask\npkill -f {}\necho next",
    "echo 'pkill -f {}'; echo next",
    "ps ax | grep {} | grep -v grep | awk '{{print $1}}' | xargs -r kill; echo next",
]


@pytest.fixture(params=["bash", "dash"])
def shell_pm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProcessManager]:
    """Return a process manager whose commands run in this shell."""
    path = shutil.which(request.param)
    require(path and shutil.which("pkill") and shutil.which("xargs"), "the shell, pkill and xargs")
    manager = manage(tmp_path / "logs", Policy(shell=str(path)))
    yield manager
    manager.shut_down(0.0)
    manager.close()


def test_a_hint_is_given_exactly_where_a_signal_of_its_own_ended_the_shell(shell_pm: ProcessManager) -> None:
    """Of every form that ends its shell the call is named; of one that does not nothing is said."""
    told = {}
    for text in TEXTS:
        token = uuid.uuid4().hex
        shell_pm.start(Spec(text.format(*[token] * 2), cwd="/"))
        status = ended(shell_pm.get_status)
        told[text] = (status["exit_code"] < 0, (status["reason"] or "").startswith(HINT))
    assert {text for text, (signalled, hinted) in told.items() if signalled != hinted} == set()
    assert {signalled for signalled, _ in told.values()} == {True, False}


def test_a_signal_of_another_s_is_no_hint(shell_pm: ProcessManager) -> None:
    """A text that only mentions what would have ended it, and is ended otherwise, is not spoken of."""
    shell_pm.start(Spec("echo 'pkill -f vite'; kill -TERM $$; sleep 1000", cwd="/"))
    status = ended(shell_pm.get_status)
    assert (status["exit_code"], status["reason"]) == (-15, None)


def test_a_past_run_is_told_why_too(shell_pm: ProcessManager) -> None:
    """The hint is read from the record, for as long as that is kept."""
    token = uuid.uuid4().hex
    run_id = shell_pm.start(Spec(f"pkill -f {token}; echo next", cwd="/"))["run_id"]
    first = ended(shell_pm.get_status)["reason"]
    shell_pm.start(Spec("true", cwd="/"))
    ended(shell_pm.get_status)
    assert shell_pm.get_status(run_id)["reason"] == first
    assert token in first
