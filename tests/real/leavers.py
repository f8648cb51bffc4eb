"""Tools that leave a process of their own running when their command has ended, each as its users call it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.network import free_port
from tests.kit.requiring import require
from tests.kit.waiting import wait_until
from tests.real.conftest import needs, shell_named
from tests.real.trying import NOTHING, START_TIMEOUT, Trial, tool_path

# Where Debian keeps servers.
SERVERS = ":/usr/sbin:/sbin"
GIT = "git init -q . && git config user.name me && git config user.email me@example.org"
# PostgreSQL refuses to run as root.
AS_POSTGRES = "runuser -u postgres -- " if os.geteuid() == 0 else ""
SSH = (
    "ssh -i key -p $SSH_PORT -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    " -o ControlMaster=auto -o ControlPersist=600 -o ControlPath=$PWD/master 127.0.0.1 true"
)
SSHD = """ListenAddress 127.0.0.1
HostKey {folder}/host-key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
"""


@dataclass(frozen=True, slots=True)
class Leaver:
    """A command that ends with 0 and leaves a process which has `word` in its command line.

    `prepare` are shell commands that make what it works on, run before it in its directory, and `files` are there, too.
    """

    command: str
    word: str
    needs: tuple[str, ...]
    prepare: str = "true"
    files: Mapping[str, str] = field(default_factory=dict)

    def run(self, trial: Trial, env: Mapping[str, str] = NOTHING) -> None:
        """Make what it works on, start the command and wait for its end."""
        environment = {**self.ready_in(trial.folder), **env}
        trial.start(self.command, environment)
        status = trial.ended(60.0)
        assert (status["status"], status["exit_code"]) == ("exited", 0), trial.printed

    def ready_in(self, folder: Path) -> dict[str, str]:
        """Make what it works on in a directory, and return the environment of its command."""
        needs(*self.needs)
        for name, text in self.files.items():
            (folder / name).write_text(text)
        environment = environment_in(folder)
        command = [shell_named("bash"), "-ec", self.prepare]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        return environment


def environment_in(folder: Path) -> dict[str, str]:
    """Return an environment in which tools keep all of their state below this directory."""
    home = folder / "home"
    home.mkdir(mode=0o700, exist_ok=True)
    port = str(free_port())
    # There watchman has its socket and locks.
    places = {"HOME": str(home), "GNUPGHOME": str(home), "TMPDIR": str(home)}
    return {"PATH": tool_path() + SERVERS, "ANDROID_ADB_SERVER_PORT": port, **places}


def pg_ctl() -> str:
    """Return the command line of PostgreSQL's own tool, for the server in the directory `data`."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    require(found, "PostgreSQL's server, which `make test-real` installs")
    return f"{AS_POSTGRES}{found[-1]} -D data"


def postgres() -> Leaver:
    """Return a PostgreSQL that listens at a socket in its own directory alone."""
    return Leaver(
        f'{pg_ctl()} -l data/log -o "-c listen_addresses= -k $PWD/data" start',
        "postgres",
        ("psql",),
        f"mkdir data; {'chown postgres data; ' if AS_POSTGRES else ''}{pg_ctl()} init -o '-A trust -N'",
    )


@contextmanager
def sshd(folder: Path) -> Iterator[dict[str, str]]:
    """Run a real sshd on loopback that takes the key in this directory; yield what tells a command its port."""
    needs("ssh", "ssh-keygen")
    keygen = str(shutil.which("ssh-keygen"))
    server = shutil.which("sshd", path=os.environ["PATH"] + SERVERS)
    require(server, "sshd, which `make test-real` installs")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in; Debian makes it when the service starts
    for name in ("host-key", "key"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "sshd_config").write_text(SSHD.format(folder=folder))
    port, log = str(free_port()), folder / "sshd.log"
    command = [str(server), "-D", "-e", "-f", str(folder / "sshd_config"), "-p", port]
    with log.open("wb") as stream, subprocess.Popen(command, stderr=stream) as process:
        try:
            wait_until(lambda: "Server listening" in log.read_text(), START_TIMEOUT)
            yield {"SSH_PORT": port}
        finally:
            process.terminate()


SIGNED_COMMIT = Leaver(
    "git commit -q -S --allow-empty -m signed",
    "gpg-agent",
    ("git", "gpg", "gpg-agent"),
    f"{GIT}; gpg -q --batch --passphrase '' --quick-gen-key 'me <me@example.org>'; gpgconf --kill all",
)
ADB = Leaver("adb start-server", "adb", ("adb",))
WATCHMAN = Leaver("watchman watch $PWD", "watchman", ("watchman",))
BAZEL = Leaver(
    "bazel --output_user_root=$PWD/home/root build //:hello",
    "bazel",
    ("bazel",),
    files={"WORKSPACE": "", "BUILD": 'genrule(name = "hello", outs = ["hello.txt"], cmd = "echo hello > $@")\n'},
)
REDIS = Leaver("redis-server --port 0 --unixsocket $PWD/socket --daemonize yes", "redis-server", ("redis-server",))
SSH_AGENT = Leaver("ssh-agent -a $PWD/agent", "ssh-agent", ("ssh-agent",))
CONTROL_PERSIST = Leaver(SSH, "[mux]", ("ssh",))
BIOME = Leaver("biome start", "biome", ("biome",), files={"biome.json": "{}"})
NPM = Leaver(
    "npm start & while [ ! -e up ]; do sleep 0.05; done",
    "node server.js",
    ("npm", "node"),
    files={
        "package.json": '{"scripts": {"start": "node server.js"}}',
        "server.js": "require('http').createServer().listen(0, () => require('fs').writeFileSync('up', ''))\n",
    },
)
XVFB = Leaver(
    "Xvfb -displayfd 3 -nolisten tcp 3> display & while [ ! -s display ]; do sleep 0.05; done", "Xvfb", ("Xvfb",)
)
