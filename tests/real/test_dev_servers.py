"""Development servers and their reloaders: the program behind them cleans up where the reloader lets it."""

from __future__ import annotations

import pytest

from tests.kit.network import free_port, listens
from tests.kit.waiting import wait_until
from tests.real.conftest import needs
from tests.real.trying import Outcome, Trial

FLASK_APP = """
import atexit, os, pathlib, time
import flask

app = flask.Flask(__name__)

def clean_up():
    time.sleep(0.3)
    pathlib.Path("cleaned").touch()
"""
# The reloader loads the application, too: clean up where it is served.
FLASK_RELOADED = (
    FLASK_APP
    + """
if os.environ.get("WERKZEUG_RUN_MAIN"):
    atexit.register(clean_up)
"""
)
# Only with its reloader does Werkzeug make SystemExit of SIGTERM.
FLASK_ALONE = (
    FLASK_APP
    + """
import signal, sys
atexit.register(clean_up)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
"""
)
ASGI_APP = """
import asyncio, pathlib

async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    while True:
        event = (await receive())["type"]
        if event == "lifespan.shutdown":
            await asyncio.sleep(0.3)
            pathlib.Path("cleaned").touch()
        await send({"type": event + ".complete"})
        if event == "lifespan.shutdown":
            return
"""
FAKEROOT_APP = """
import os, pathlib, signal, time

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
pathlib.Path("file").touch()
os.chown("file", 12, 34)
pathlib.Path("ready").touch()
signal.sigwait({signal.SIGTERM})
time.sleep(0.3)
os.chown("file", 56, 78)
assert os.stat("file").st_uid == 56
pathlib.Path("cleaned").touch()
"""


def test_flask_with_its_reloader(trial: Trial) -> None:
    """`flask run --debug` is gone at once; its reloader ends the program by SIGKILL of its own, without a clean-up."""
    outcome = serve_flask(trial, "--debug", FLASK_RELOADED, "Debugger PIN")
    assert not (trial.folder / "cleaned").exists()
    assert outcome.code == (0 if trial.shell == "bash" else -15)


def test_flask_without_its_reloader(trial: Trial) -> None:
    """With `--no-reload` the program cleans up."""
    outcome = serve_flask(trial, "--debug --no-reload", FLASK_ALONE, "Press CTRL+C")
    assert (trial.folder / "cleaned").exists()
    assert outcome.code == (0 if trial.shell == "bash" else -15)


def serve_flask(trial: Trial, options: str, program: str, last: str) -> Outcome:
    """Run a Flask application until it listens and has printed what it prints last, and kill it."""
    needs("flask")
    (trial.folder / "its.py").write_text(program)
    port = free_port()
    trial.start(f"flask --app its run {options} --port {port}")
    wait_until(lambda: listens(port) and last in trial.printed, 30)
    outcome = trial.kill()
    assert outcome.gentle
    assert outcome.seconds < 3
    assert not listens(port)
    return outcome


@pytest.mark.parametrize(("option", "code"), [("--reload", 0), ("--workers 2", 0), ("", -15)])
def test_uvicorn_shuts_its_application_down(trial: Trial, option: str, code: int) -> None:
    """The application's own shutdown runs, with the reloader or other workers in front of it, too."""
    needs("uvicorn")
    (trial.folder / "its.py").write_text(ASGI_APP)
    port = free_port()
    trial.start(f"uvicorn its:app {option} --port {port}")
    wait_until(lambda: "Application startup complete" in trial.printed, 30)

    outcome = trial.kill()

    assert (trial.folder / "cleaned").exists()
    assert outcome.gentle
    assert outcome.seconds < 5
    assert not listens(port)
    assert outcome.code == (code if trial.shell == "bash" else -15)


@pytest.mark.parametrize("front", ["", "exec "])
def test_fakeroot_serves_its_program_to_the_end(trial: Trial, front: str) -> None:
    """A program under fakeroot cleans up, which takes fakeroot's daemon."""
    needs("fakeroot")
    (trial.folder / "its.py").write_text(FAKEROOT_APP)
    trial.start(f"{front}fakeroot python3 its.py")
    trial.file("ready")

    outcome = trial.kill()

    assert (trial.folder / "cleaned").exists(), trial.printed
    assert outcome.gentle
