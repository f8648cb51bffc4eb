"""Why a run ended so soon is said in one sentence where it is sure, and not at all elsewhere."""

from __future__ import annotations

import time

import pytest

from app.log.clock import format_time, parse_time
from app.runs.record import Cause, State
from app.supervisor.hints import MAX_TEXT, hint_of
from app.supervisor.status import describe
from tests.kit.records import make_record

BASH, DASH = "/bin/bash", "/bin/dash"
BEGIN = "2026-11-22T06:08:00.000000Z"


def state(code: int | None, after: float = 0.2, killed_by: Cause | None = None) -> State:
    """Return the state of a run that ended with this code, so many seconds after its start."""
    stopped_at = format_time(parse_time(BEGIN) + int(after * 1e9))
    return State(stopped_at=stopped_at, exit_code=code, killed_by=killed_by)


def hint(text: str, code: int | None, shell: str = BASH, *, after: float = 0.2) -> str | None:
    """Return what is said of a text that ended with this code, so many seconds after its start."""
    return hint_of(make_record(command=text, shell=shell), state(code, after))


# Text, exit code, the shells of which it is true, and which call is named.
ENDED_ITSELF = [
    ("pkill -f 'npm run dev'; npm run dev", -15, "pkill -f 'npm run dev'"),
    ("pkill -f vite || true", -15, "pkill -f vite"),
    ("cd /srv && pkill -f vite && sleep 1; npm start", -15, "pkill -f vite"),
    ("pkill -9 -f vite; npm start", -9, "pkill -9 -f vite"),
    ("pkill -KILL -f vite; npm start", -9, "pkill -KILL -f vite"),
    ("pkill --signal SIGKILL -f vite; npm start", -9, "pkill --signal SIGKILL -f vite"),
    ("pkill --signal=9 --full vite; npm start", -9, "pkill --signal=9 --full vite"),
    ("/usr/bin/pkill -HUP -f vite; npm start", -1, "/usr/bin/pkill -HUP -f vite"),
    ("sudo pkill -f vite; npm start", -15, "pkill -f vite"),
    ("pkill -f -i VITE 2>/dev/null; npx vite", -15, "pkill -f -i VITE 2>/dev/null"),
    ("pkill -f 'node .*server'; node app/server.js", -15, "pkill -f 'node .*server'"),
    ("pkill -f '[v]ite'; npx vite", -15, "pkill -f '[v]ite'"),
    ("pkill -f 'webpack|vite'; npx vite", -15, "pkill -f 'webpack|vite'"),
    ("pkill -f 'app\\.js'; node app.js", -15, "pkill -f 'app\\.js'"),
    ("pkill -f '^/bin'; node app.js", -15, "pkill -f '^/bin'"),
    ("# begin anew, don't wait\npkill -f vite\nnpm start", -15, "pkill -f vite"),
    ("if pkill -f vite; then sleep 1; fi; npm start", -15, "pkill -f vite"),
    ("{ pkill -f vite; }; npm start", -15, "pkill -f vite"),
    ("pkill -f '[w]ebpack'; pkill -f vite; npm start", -15, "pkill -f vite"),
    ("kill $(lsof -ti:3000); pkill -f vite; npm start", -15, "pkill -f vite"),
    ("pkill -f vite | cat", -15, "pkill -f vite"),
    ("pkill -f vite >/dev/null", -15, "pkill -f vite >/dev/null"),
    ("kill $(pgrep -f vite); npm start", -15, "kill $(pgrep -f vite)"),
    ("kill -9 $(pgrep -f vite)", -9, "kill -9 $(pgrep -f vite)"),
    ("kill -s KILL `pgrep -f vite`; npm start", -9, "kill -s KILL `pgrep -f vite`"),
    ("pgrep -f vite | xargs kill; npm start", -15, "pgrep -f vite | xargs kill"),
    ("pgrep -f vite | xargs -r kill -9 2>/dev/null; npm start", -9, "pgrep -f vite | xargs -r kill -9 2>/dev/null"),
    ("pkill sh; npm start", -15, "pkill sh"),
]


@pytest.mark.parametrize(("text", "code", "named"), ENDED_ITSELF)
@pytest.mark.parametrize("shell", [BASH, DASH])
def test_a_text_that_ended_its_own_shell(text: str, code: int, named: str, shell: str) -> None:
    """The call that has matched the shell which ran it is named, in one sentence."""
    said = hint(text, code, shell)
    assert said is not None
    assert said.startswith(f"Its own `{named}` ended it, as ")
    assert said.count(". ") == 0
    assert said.endswith(".")


@pytest.mark.parametrize(
    ("text", "code", "shell"),
    [
        ("pkill bash; npm start", -15, BASH),
        ("pkill -x bash; npm start", -15, BASH),
        ("killall bash; npm start", -15, BASH),
        ("killall -q -9 node dash; npm start", -9, DASH),
        ("killall -s HUP dash", -1, DASH),
        ("kill $(pgrep bash); npm start", -15, BASH),
    ],
)
def test_by_the_shell_s_name(text: str, code: int, shell: str) -> None:
    """Without -f it is the shell's name that is matched, and so it is said."""
    said = hint(text, code, shell)
    assert said is not None
    assert "as its shell has such a name, too." in said


@pytest.mark.parametrize(
    "text", ["pkill -f vite", "cd /srv; pkill -f vite", "false || pkill -f vite", "A=1 pkill -f x"]
)
def test_a_shell_that_has_given_its_place_away(text: str) -> None:
    """bash becomes the last program of a text, which does not match itself; dash waits for it, and is matched."""
    assert hint(text, -15, BASH) is None
    assert hint(text, -15, DASH) is not None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        # The call is only mentioned, or it is another program's.
        ("echo 'pkill -f vite'; kill -TERM $$", -15),
        ('echo "run: pkill -f vite; then wait"; exec sleep 1000', -15),
        ("echo pkill -f vite; sleep 1000", -15),
        ("# pkill -f vite\nsleep 1000", -15),
        ("ssh host pkill -f vite; sleep 1000", -15),
        ("docker exec web pkill -f vite; sleep 1000", -15),
        ("cat <<EOF\npkill -f vite\nEOF\nkill $$", -15),
        ("f() { pkill -f vite; }; kill $$", -15),
        ("trap 'pkill -f vite' EXIT; sleep 1000", -15),
        # It does not match the shell.
        ("pkill -f '[v]ite'; npm start", -15),
        ("pkill -f vite\\ dev; npm start", -15),
        ("pkill node; node server.js", -15),
        ("pkill -x as; npm start", -15),
        ("killall node; npm start", -15),
        ("killall BASH; npm start", -15),
        ("ps aux | grep vite | grep -v grep | awk '{print $2}' | xargs kill; npm start", -15),
        ("pkill -f vité; npm start", -15),
        # It sends another signal.
        ("pkill -f vite; npm start", -9),
        ("pkill -9 -f vite; npm start", -15),
        ("pkill -f vite; npm start", -11),
        ("kill -9 $(pgrep -f vite); npm start", -15),
        # What it does depends on more than its text.
        ('pkill -f "$NAME"; npm start', -15),
        ("pkill -f $(cat name); npm start", -15),
        ("pkill -n -f vite; npm start", -15),
        ("pkill -u nobody -f vite; npm start", -15),
        ("pkill -f '(a+)+x'; npm start", -15),
        ("pkill -f vite & npm start", -15),
        ("(pkill -f vite) & npm start", -15),
        ("kill $PID; pkill -f vite; npm start", -15),
        ("kill $(pgrep -f vite | head -n 1); npm start", -15),
        ("kill $(cat vite.pid); npm start", -15),
        ("pgrep -f vite | head -n 1 | xargs kill; npm start", -15),
        ("test -f x && pkill -f vite; kill $$", -15),
        ("kill $$; pkill -f vite; sleep 1", -15),
        # The shell can't have run it as it stands.
        ("pkill -f 'vite; npm start", -15),
        ("pkill -f; npm start", -15),
        ("pkill; npm start", -15),
        ("", -15),
        (";;", -15),
        (")", -15),
    ],
)
def test_where_it_is_not_sure(text: str, code: int) -> None:
    """Nothing is said."""
    assert hint(text, code) is None
    assert hint(text, code, DASH) is None


def test_when_it_is_said() -> None:
    """Only of a run that ended within a second, by a signal, and not by us."""
    text = "pkill -f vite; npm start"
    assert hint(text, -15, after=0.999) is not None
    assert hint(text, -15, after=1.001) is None
    assert hint_of(make_record(command=text), state(-15, killed_by="kill")) is None
    assert hint(text, 143) is None
    assert hint(text, None) is None
    assert hint_of(make_record(command=text), State(exit_code=-15, stopped_at="then")) is None


WATCHERS = [
    ("esbuild in.js --outfile=out.js --watch", "esbuild"),
    ("npx esbuild in.js --bundle --watch=true", "esbuild"),
    ("npx --yes esbuild@0.25 in.js --serve=8000", "esbuild"),
    ("cd site && ./node_modules/.bin/esbuild in.js --serve", "esbuild"),
    ("npm ci; NODE_ENV=dev exec pnpm exec esbuild in.js --watch;", "esbuild"),
    ("npm exec -- esbuild in.js --watch", "esbuild"),
    ("tailwindcss -i in.css -o out.css --watch", "tailwindcss"),
    ("npx tailwindcss -i in.css -o out.css -w 2>&1", "tailwindcss"),
    ("npx @tailwindcss/cli@4.1 -i in.css -o out.css --watch", "@tailwindcss/cli"),
    ("webpack --watch --watch-options-stdin", "webpack"),
]


@pytest.mark.parametrize(("text", "named"), WATCHERS)
def test_a_watcher_without_input(text: str, named: str) -> None:
    """A watcher that exits with 0 at once has found its standard input at its end: another one is named."""
    assert hint(text, 0) == f'{named} ends with its standard input, which was empty: start it with "stdin": "open".'


@pytest.mark.parametrize(
    "text",
    [
        "esbuild in.js --watch=forever",
        "esbuild in.js --outfile=out.js",
        "esbuild --watch --version",
        "tailwindcss -i in.css -o out.css --watch=always",
        "tailwindcss -i in.css -o out.css",
        "webpack --watch",
        "rollup --watch",
        "echo esbuild in.js --watch",
        "echo 'esbuild --watch'",
        "esbuild in.js --watch & sleep 1",
        "esbuild in.js --watch &",
        "esbuild in.js --watch; true",
        "esbuild in.js --watch | cat",
        "sleep 1 | esbuild in.js --watch",
        "esbuild in.js --watch < /dev/zero",
        "true || esbuild in.js --watch",
        "exit 0; esbuild in.js --watch",
        "if true; then exit 0; fi; esbuild in.js --watch",
        "(esbuild in.js --watch)",
        "esbuild $FLAGS --watch",
        "npm run dev",
        "npm run esbuild -- --watch",
        "yarn esbuild in.js --watch",
        "pnpm esbuild in.js --watch",
        "",
    ],
)
def test_where_a_watcher_is_not_sure(text: str) -> None:
    """What does not watch, is not the last, has another input, or may not have been run is not spoken of."""
    assert hint(text, 0) is None


def test_when_a_watcher_is_spoken_of() -> None:
    """Only where it exited with 0 by itself, soon, with an empty standard input."""
    text = "esbuild in.js --watch"
    assert hint(text, 0, after=9.9) is not None
    assert hint(text, 0, after=10.1) is None
    assert hint_of(make_record(command=text, stdin="open"), state(0)) is None
    assert hint_of(make_record(command=text), state(0, killed_by="kill")) is None
    assert hint(text, 1) is None


def test_it_is_part_of_the_reason() -> None:
    """The status object's reason holds it, after what else there is to say, and nothing while the process runs."""
    record = make_record(command="pkill -f vite; npm start")
    ended = State(stopped_at=BEGIN, exit_code=-15, incidents={"takeovers": 1})
    first, _, second = describe(record, ended)["reason"].partition(": 1. ")
    assert first.startswith("Incidents: ")
    assert second.startswith("Its own `pkill -f vite` ended it")
    assert describe(record, State())["reason"] is None


@pytest.mark.parametrize(
    "text",
    [
        "pkill -f '" + "a.*" * 600 + "b'; x",
        "pkill -f " + "a" * 4000,
        "((" * 2000,
        "'" + '"' * 4000,
        "a=\\" * 1300,
        "pkill -f '" + "a|" * 1900 + "b'; x",
        "`" * 4000,
        "pkill -f vite; " * 270,
    ],
)
@pytest.mark.parametrize("code", [-15, 0])
def test_it_costs_little(text: str, code: int) -> None:
    """No text takes long, however it is made: it is looked at whenever the status of its run is asked for."""
    assert len(text) <= MAX_TEXT
    began = time.process_time()
    hint(text, code, DASH)
    assert time.process_time() - began < 0.1
    assert hint(f"pkill -f x; {'y' * MAX_TEXT}", -15) is None


def test_what_is_shown_of_a_text_is_short_and_plain() -> None:
    """A long call is cut, and what is not printable in it is escaped."""
    said = hint(f"pkill -f 'x' 2> '\x1b[31m\u202e{'y' * 500}'; echo", -15)
    assert said is not None
    assert said.isprintable()
    assert len(said) < 300
