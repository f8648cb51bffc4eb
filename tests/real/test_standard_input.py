"""Programs that watch: some take the end of their standard input for an order to end."""

from __future__ import annotations

from tests.kit.waiting import wait_until
from tests.real.conftest import needs
from tests.real.trying import Trial


def test_esbuild_ends_with_its_standard_input(trial: Trial) -> None:
    """`esbuild --watch` finds its input at its end, says so, and has exited with 0, before it has built anything."""
    start(trial, "--watch")
    assert (trial.ended()["status"], trial.ended()["exit_code"]) == ("exited", 0)
    assert "stdin was closed" in trial.printed
    assert '"stdin": "open"' in trial.ended()["reason"]


def test_esbuild_may_watch_forever(trial: Trial) -> None:
    """With `--watch=forever` it goes on, builds again at each change, and ends by a kill."""
    start(trial, "--watch=forever")
    trial.file("out.js")
    (trial.folder / "in.js").write_text("console.log('second')\n")
    built = trial.folder / "out.js"
    wait_until(lambda: "second" in built.read_text(), 30)

    outcome = trial.kill()

    assert outcome.answer["status"] == "killed"
    assert outcome.gentle
    assert outcome.seconds < 3


def test_esbuild_watches_where_its_standard_input_is_open(trial: Trial) -> None:
    """With an input that never ends `--watch` alone goes on, too, and ends by a kill."""
    start(trial, "--watch", "open")
    built = trial.file("out.js")
    (trial.folder / "in.js").write_text("console.log('second')\n")
    wait_until(lambda: "second" in built.read_text(), 30)

    assert trial.kill().gentle


def start(trial: Trial, option: str, stdin: str = "empty") -> None:
    """Start a build that watches."""
    needs("esbuild")
    (trial.folder / "in.js").write_text("console.log('first')\n")
    trial.start(f"exec esbuild in.js --outfile=out.js {option}", stdin=stdin)
