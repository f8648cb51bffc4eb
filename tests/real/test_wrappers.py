"""A program behind a wrapper hears of a kill, has its time to clean up, and gets SIGTERM from us at most once."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.real.conftest import needs
from tests.real.trying import OWN_CODE, Trial

# The shell in front of a single command: dash, which dies by the SIGTERM that it gets first.
DASH = -15


class Wrapper(NamedTuple):
    """A way to run programs: `{0}` and `{1}` in `command` and `files` stand for their command lines.

    `ours` is how often at most each program hears SIGTERM from us, 0 where the wrapper passes it on; `others` what it
    hears from the wrapper. `code` is the wrapper's own exit code.
    """

    command: str
    ours: int
    others: tuple[str, ...]
    code: int
    needs: tuple[str, ...] = ()
    apps: int = 1
    files: tuple[tuple[str, str], ...] = ()


SUPERVISORD = """
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile=supervisord.pid
[program:a]
command={0}
[program:b]
command={1}
"""
TERM = ("SIGTERM",)
WRAPPERS = {
    "none": Wrapper("{0}", 1, (), OWN_CODE),
    "nice": Wrapper("nice {0}", 1, (), OWN_CODE),
    "nohup": Wrapper("nohup {0}", 1, (), OWN_CODE),
    "setsid": Wrapper("setsid --wait {0}", 1, (), -15),
    "timeout": Wrapper("timeout 60 {0}", 0, TERM, OWN_CODE),
    "timeout --foreground": Wrapper("timeout --foreground 60 {0}", 0, TERM, OWN_CODE),
    "dumb-init": Wrapper("dumb-init {0}", 0, TERM, OWN_CODE, ("dumb-init",)),
    "dumb-init -c": Wrapper("dumb-init -c {0}", 0, TERM, OWN_CODE, ("dumb-init",)),
    "uv run": Wrapper("uv run --no-project --offline {0}", 0, TERM, OWN_CODE, ("uv",)),
    "make -j2": Wrapper("make -j2", 0, TERM, -15, ("make",), 2, (("Makefile", "all: a b\na:\n\t{0}\nb:\n\t{1}\n"),)),
    # It signals the groups of shells, which die at once: ours may come to the programs behind them before they have
    # heard honcho's, and is one with that then.
    "honcho": Wrapper("honcho start", 1, TERM, 143, ("honcho",), 2, (("Procfile", "a: {0}\nb: {1}\n"),)),
    "supervisord": Wrapper("supervisord -c it.conf", 0, TERM, 0, ("supervisord",), 2, (("it.conf", SUPERVISORD),)),
    # It, too; and its own code is 1.
    "concurrently": Wrapper("concurrently '{0}' '{1}'", 1, TERM, 1, ("concurrently",), 2),
    # A program that it runs never hears SIGTERM.
    "watchfiles": Wrapper("watchfiles '{0}' .", 0, ("SIGINT",), 0, ("watchfiles",)),
    # These end without a word to those below.
    "npm run": Wrapper("npm run x", 1, (), -15, ("npm",), 1, (("package.json", '{{"scripts": {{"x": "{0}"}}}}'),)),
    "nodemon": Wrapper("nodemon --watch . --exec '{0}'", 1, (), 143, ("nodemon",)),
    "xargs -P2": Wrapper("xargs -P2 -n1 sh -c < lines", 1, (), -15, (), 2, (("lines", "'exec {0}'\n'exec {1}'\n"),)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_each_program_hears_it_and_cleans_up(trial: Trial, name: str) -> None:
    """Behind any wrapper each program cleans up, hears us at most once, and nothing is left or needs SIGKILL."""
    wrapper = WRAPPERS[name]
    needs(*wrapper.needs)
    apps = [trial.listener() for _ in range(wrapper.apps)]
    commands = [app.command for app in apps]
    for file, text in wrapper.files:
        (trial.folder / file).write_text(text.format(*commands))
    trial.start(wrapper.command.format(*commands))

    outcome = trial.kill()

    for app in apps:
        assert app.heard
        assert outcome.ours(app) <= wrapper.ours, app.heard
        assert tuple(outcome.others(app)) == wrapper.others
        assert app.cleaned
    assert outcome.gentle
    assert outcome.seconds < 5
    assert outcome.code == (DASH if trial.shell == "dash" else wrapper.code)


def test_setsid_alone_leaves_its_program(trial: Trial) -> None:
    """As the whole command it has bash's place, and forks: it is over with 0, and a kill ends its program."""
    app = trial.listener()
    pid = trial.start(f"setsid {app.command}")

    if trial.shell == "bash":
        status = trial.ended()
        assert (status["exit_code"], status["leftover_pids"]) == (0, [app.pid])
    answer = trial.pm.kill("SIGTERM", 10.0)

    assert (len(app.heard), app.cleaned, answer["escalated"]) == (1, True, False)
    assert pid != app.pid
