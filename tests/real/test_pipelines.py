"""A server's last words reach the log, whatever reads its output on the way there."""

from __future__ import annotations

import pytest

from tests.kit.waiting import wait_until
from tests.real.conftest import shell_named
from tests.real.trying import Outcome, Trial, make_executable

READERS = {
    "tee": "{} | tee copy",
    "cat": "{} | cat",
    "two": "{} | tee copy | cat",
    "sed": "{} | sed -u s/x/x/",
    "shell": "{} | while read line; do echo $line; done",
    "substitution": "bash -c '{} > >(tee copy)'",
    "both": "bash -c '{} |& tee >(cat > copy)'",
}


@pytest.mark.parametrize("reader", READERS)
def test_last_words_get_through_a_pipeline(trial: Trial, reader: str) -> None:
    """The reader of a server's output ends after the server, so that its last words are in the log."""
    server = trial.listener()
    trial.start(READERS[reader].format(server.command))
    wait_until(lambda: trial.printed == "ready")

    outcome = trial.kill()

    assert trial.printed == "ready\nlast words"
    assert server.cleaned
    assert outcome.ours(server) == 1
    assert_over_at_once(outcome)


def test_a_server_in_the_back_of_a_pipeline(trial: Trial) -> None:
    """A server that reads a pipe ends when its writer has, within the grace and in its own way."""
    server = trial.listener()
    trial.start(f"tail -f /dev/null | {server.command}")

    outcome = trial.kill()

    assert server.cleaned
    assert outcome.ours(server) <= 1
    assert_over_at_once(outcome)


def test_bash_that_sends_its_own_output_through_tee(trial: Trial) -> None:
    """A script with `exec > >(tee …) 2>&1` and a trap says its last words and removes its lock file."""
    bash = shell_named("bash")
    script = make_executable(
        trial.folder / "serve",
        [
            f"#!{bash}",
            "exec > >(tee copy) 2>&1",
            "touch lock",
            "trap 'sleep 0.3; echo last words; rm lock; exit 5' TERM",
            "echo ready",
            "while :; do sleep 0.1; done",
        ],
    )
    trial.start(f"exec {script}")
    wait_until(lambda: "ready" in trial.printed)

    outcome = trial.kill()

    # Before them bash may tell that its child in front was terminated.
    assert trial.printed.splitlines()[-1] == "last words"
    assert (trial.folder / "copy").read_text().splitlines()[-1] == "last words"
    assert not (trial.folder / "lock").exists()
    assert outcome.code == 5
    assert_over_at_once(outcome)


def assert_over_at_once(outcome: Outcome) -> None:
    """Check that nobody waited for the end of the grace."""
    assert outcome.gentle
    assert outcome.seconds < 3
