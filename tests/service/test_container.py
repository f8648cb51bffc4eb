"""The image: the Dockerfile's own steps are executed in a scratch folder, and what they made is run and looked at."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pip
import pytest
import yaml
from gunicorn.config import GracefulTimeout

from app.supervisor.supervisor import SHUTDOWN_TIMEOUT
from tests.kit.leftovers import nothing_left_behind
from tests.kit.places import ROOT
from tests.kit.processes import children, descendants
from tests.kit.requiring import require
from tests.kit.waiting import wait_until
from tests.service.unprivileged import ACCOUNT, GROUP, OWNER, TOKEN, Deployed, interpreter, scratch

DOCKER = ROOT / "deploy" / "docker"
IMAGE_USER = "10001"
# How this machine reaches a package index; no part of the image.
PIP_NAMES = ("PIP_", "SSL_", "REQUESTS_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy")


class Image:
    """What the Dockerfile makes: `root` stands for the image's root, a virtual environment in it for its Python.

    Paths of the image are moved below `root`, and its user is the unprivileged one of this machine. An instruction that
    is not known here is an error, so that nothing is passed over.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.context = folder / "context"
        self.workdir = self.root
        self.environment: dict[str, str] = {}
        self.command: list[str] = []
        self.health: list[str] = []
        self.user = "0"
        copy_context(self.context)
        for name in ("etc", "run", "opt"):
            (self.root / name).mkdir(parents=True)
        for name in ("passwd", "group"):
            (self.root / "etc" / name).touch()
        for instruction, argument in read_dockerfile():
            step: Callable[[str], None] = getattr(self, f"_{instruction.lower()}")
            step(argument)

    def inside(self, text: str) -> str:
        """Return a text with the image's paths moved below `root`, and its user made the one of this machine."""
        moved = re.sub(r"(?<![\w./-])/(?=(?:data|etc|opt|run)\b)", f"{self.root}/", text)
        for taken_for_group in (f"{IMAGE_USER}:{IMAGE_USER}", f"-g {IMAGE_USER}"):
            moved = moved.replace(taken_for_group, f"{taken_for_group.removesuffix(IMAGE_USER)}{GROUP}")
        return moved.replace(IMAGE_USER, str(OWNER))

    def run_environment(self, **settings: str) -> dict[str, str]:
        """Return the environment of a container's process 1."""
        path = f"{self.root}/python/bin:/usr/local/bin:/usr/bin:/bin"
        return {"PATH": path, **self.environment, **settings}

    def start(self, folder: Path, *wrapper: str, **settings: str) -> Deployed:
        """Start a container's process, on a port of its own; `wrapper` is a command that does so."""
        environment = self.run_environment(LLM_SHELL_PORT="0", **settings)
        as_is = {"user": None, "group": None, "extra_groups": None} if wrapper else {}
        return Deployed(folder / "service.log", [*wrapper, *self.program], self.workdir, environment, **as_is)

    @property
    def program(self) -> list[str]:
        """Return the image's command, its program found on the image's path."""
        found = shutil.which(self.command[0], path=f"{self.root}/python/bin")
        assert found is not None, f"the image has no {self.command[0]}"
        return [found, *self.command[1:]]

    def check_health(self, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run the image's HEALTHCHECK in a container with these settings."""
        environment = self.run_environment(**settings)
        return subprocess.run(self.health, env=environment, capture_output=True, text=True, check=False, timeout=30)

    def files(self) -> dict[str, int]:
        """Return the image's files outside its volume and /run, with the times of their last changes."""
        paths = (path for path in self.root.rglob("*") if path.relative_to(self.root).parts[0] not in {"data", "run"})
        return {str(path): path.lstat().st_mtime_ns for path in paths}

    def _from(self, argument: str) -> None:
        assert re.fullmatch(r"python:3\.\d+-slim-\w+", argument)
        subprocess.run([interpreter(), "-m", "venv", "--without-pip", self.root / "python"], check=True)
        [packages] = (self.root / "python").glob("lib/*/site-packages")
        shutil.copytree(Path(pip.__file__).parent, packages / "pip")
        for path in (self.root, *self.root.rglob("*")):
            os.chown(path, OWNER, -1, follow_symlinks=False)

    def _workdir(self, argument: str) -> None:
        self.workdir = Path(self.inside(argument))
        self.workdir.mkdir(parents=True, exist_ok=True)
        os.chown(self.workdir, OWNER, -1)

    def _copy(self, argument: str) -> None:
        *sources, target = argument.split()
        for source in sources:
            origin, place = self.context / source, self.workdir / target
            if origin.is_dir():
                shutil.copytree(origin, place)
            else:
                shutil.copy(origin, place)
        for path in self.workdir.rglob("*"):
            os.chown(path, OWNER, -1, follow_symlinks=False)

    def _run(self, argument: str) -> None:
        ours = {name: value for name, value in os.environ.items() if name.startswith(PIP_NAMES)}
        environment = {**ours, **self.run_environment(HOME=str(self.root))}
        command = ["/bin/sh", "-c", self.inside(argument)]
        subprocess.run(command, cwd=self.workdir, env=environment, check=True, capture_output=True, **ACCOUNT)

    def _env(self, argument: str) -> None:
        for word in shlex.split(argument):
            name, _, value = word.partition("=")
            self.environment[name] = self.inside(value)

    def _user(self, argument: str) -> None:
        self.user = argument

    def _cmd(self, argument: str) -> None:
        self.command = json.loads(argument)

    def _healthcheck(self, argument: str) -> None:
        program, *arguments = json.loads(argument.partition("CMD")[2])
        self.health = [f"{self.root}/python/bin/{program}", *map(self.inside, arguments)]

    def _volume(self, argument: str) -> None:
        assert json.loads(argument) == ["/data"]

    def _expose(self, argument: str) -> None:
        assert argument == "8000"


def read_dockerfile() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, each on one line."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(words[0], words[2].strip()) for words in (line.partition(" ") for line in joined)]


def copy_context(folder: Path) -> None:
    """Copy what Dockerfile.dockerignore lets the builder see: everything is ignored but what is named with `!`."""
    lines = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    first, *rest = [line for line in lines if line and not line.startswith("#")]
    assert first == "*"
    ignored = shutil.ignore_patterns(*(line.removeprefix("**/") for line in rest if not line.startswith("!")))
    for name in (line[1:] for line in rest if line.startswith("!")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Return the image, built once, with a root that its user can't write to."""
    with scratch() as folder:
        image = Image(folder)
        for path in image.root.rglob("*"):
            if not path.is_symlink() and path.relative_to(image.root).parts[0] not in {"data", "run"}:
                path.chmod(path.stat().st_mode & 0o555)
        yield image
        for path in image.root.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)


@pytest.fixture
def container(image: Image, tmp_path: Path) -> Iterator[Deployed]:
    """Return a running container of the test's own."""
    with nothing_left_behind():
        container = image.start(tmp_path, LLM_SHELL_TOKEN=TOKEN)
        container.wait_until_healthy()
        yield container
        if container.running:
            container.stop()


def test_serves(image: Image, container: Deployed) -> None:
    """The image serves, runs commands as its own user with a home to write to, and writes nowhere but on its volume."""
    before = image.files()
    container.start('id -u; cd; echo ok > file; cat file; echo "$PWD"; python -c "import sys; print(sys.version)"')
    container.wait_for_exit()
    user, written, home, _version = container.content().splitlines()
    assert (user, written, home) == (str(OWNER), "ok", str(image.root / "data"))
    assert container.stop() == 0
    assert image.files() == before
    assert list((image.root / "data" / "logs").glob("*.log"))


def test_commands_have_a_directory_of_their_own(image: Image, container: Deployed) -> None:
    """A first command makes /data/work, in which those begin that name it: neither settings nor logs lie there."""
    work = image.root / "data" / "work"
    container.start(f"mkdir -p {work}")
    container.wait_for_exit()
    container.start("pwd; ls -A", cwd=str(work))
    container.wait_for_exit()
    assert container.content() == str(work)
    assert container.stop() == 0


def test_user_has_a_name(image: Image) -> None:
    """The image's user is given by number, is not root, and has a name, a home and a shell for programs that ask."""
    assert image.user == f"{IMAGE_USER}:{IMAGE_USER}"
    fields = (image.root / "etc" / "passwd").read_text().strip().split(":")
    assert fields == ["llm-shell", "x", str(OWNER), str(GROUP), "LLM Shell", str(image.root / "data"), "/bin/sh"]


def test_needs_a_token(image: Image, tmp_path: Path) -> None:
    """Without a token the container ends at once, with the reason and the remedy."""
    with nothing_left_behind():
        container = image.start(tmp_path)
        assert container.wait() != 0
    assert "export LLM_SHELL_TOKEN=" in container.text


def test_health_check(image: Image, container: Deployed) -> None:
    """HEALTHCHECK succeeds while the service answers, and says why when it does not."""
    assert image.check_health(LLM_SHELL_PORT=str(container.port)).returncode == 0
    container.stop()
    done = image.check_health(LLM_SHELL_PORT=str(container.port))
    assert done.returncode != 0
    assert done.stderr.startswith("The service does not answer")


def test_health_check_over_a_unix_socket(image: Image, tmp_path: Path) -> None:
    """HEALTHCHECK also finds a service that LLM_SHELL_BIND put on a Unix socket."""
    bind = f"unix:{image.root}/run/llm-shell/llm-shell.sock"
    with nothing_left_behind():
        container = image.start(tmp_path, LLM_SHELL_TOKEN=TOKEN, LLM_SHELL_BIND=bind)
        wait_until(lambda: image.check_health(LLM_SHELL_BIND=bind).returncode == 0, 20)
        assert container.stop() == 0


@pytest.fixture
def secret(image: Image) -> Iterator[Path]:
    """Return where a container expects its token as a file, in a folder that is mounted there."""
    path = image.root / "run" / "secrets" / "llm-shell" / "env"
    path.parent.mkdir(parents=True)
    yield path
    shutil.rmtree(path.parents[1])


def test_token_is_exchanged_without_a_restart(image: Image, secret: Path, tmp_path: Path) -> None:
    """A token mounted as a file is exchanged by another file and a HUP, and the command runs on."""
    secret.write_text(f"LLM_SHELL_TOKEN={TOKEN}\n")
    with nothing_left_behind():
        container = image.start(tmp_path)
        container.token = TOKEN
        container.wait_until_healthy()
        pid = container.start("exec sleep 300")["process_pid"]
        secret.write_text(f"LLM_SHELL_TOKEN=another-{TOKEN}\n")
        os.kill(container.pid, signal.SIGHUP)
        wait_until(lambda: container.get("/status").status == 401, 20)  # old and new worker overlap for a moment
        container.token = f"another-{TOKEN}"
        assert container.status()["process_pid"] == pid
        assert container.stop() == 0


def test_process_1_reaps(image: Image, tmp_path: Path) -> None:
    """As process 1 the service inherits a tree whose keepers and worker were killed, ends it, and leaves no zombie."""
    with nothing_left_behind():
        container = image.start(tmp_path, *namespace(), LLM_SHELL_TOKEN=TOKEN)
        container.wait_until_healthy()
        [master] = children(container.pid)
        container.start("setsid sleep 300 & setsid sleep 300 & echo ready; exec sleep 300")
        container.wait_for_output("ready")
        commands = wait_until(lambda: pids if len(pids := named("sleep", master)) == 3 else [])
        keepers = [*named("llm-understudy", master), *named("llm-shell-shim", master)]
        for pid in keepers + children(master):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: set(commands) & set(children(master)))
        wait_until(container.answers, 20)
        assert container.post("/kill").body["survivors"] == []
        wait_until(lambda: not set(commands) & set(descendants(master)))
        os.kill(master, signal.SIGTERM)
        assert container.wait() == 0


def named(name: str, master: int) -> list[int]:
    """Return the descendants of a process that have a name."""
    return [pid for pid, text in descendants(master).items() if text.startswith(name)]


def namespace() -> list[str]:
    """Return the command that makes a process number 1 of a namespace of its own, still without privileges."""
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if not ACCOUNT:
        alone.insert(1, "--user")
    able = (
        shutil.which("unshare") and subprocess.run([*alone, "true"], check=False, capture_output=True).returncode == 0
    )
    require(able, "the right to make a process namespace (unshare of util-linux, as root or with user namespaces)")
    return [*alone, "setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups"] if ACCOUNT else alone


@pytest.fixture
def compose() -> dict[str, Any]:
    """Return the services of compose.yaml."""
    loaded: dict[str, dict[str, Any]] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return loaded["services"]


def test_compose_joins_service_and_nginx(compose: dict[str, Any]) -> None:
    """The service's socket lies on a volume that nginx has too, where its configuration looks for it."""
    sites = [volume.split(":")[0] for volume in compose["nginx"]["volumes"] if ":/etc/nginx/" in volume]
    [upstream] = re.findall(r"server (unix:\S+)", (DOCKER / sites[0]).read_text())
    assert compose["llm-shell"]["environment"]["LLM_SHELL_BIND"].startswith("unix:/")
    assert upstream.split()[0].rstrip(";") == compose["llm-shell"]["environment"]["LLM_SHELL_BIND"]
    folder = str(Path(upstream.removeprefix("unix:")).parent)
    assert f"socket:{folder}" in compose["llm-shell"]["volumes"]
    assert f"socket:{folder}:ro" in compose["nginx"]["volumes"]


def test_compose_lets_the_service_stop(compose: dict[str, Any]) -> None:
    """The service has longer to stop than its longest graceful stop takes."""
    assert int(compose["llm-shell"]["stop_grace_period"].removesuffix("s")) > GracefulTimeout.default + SHUTDOWN_TIMEOUT


def test_compose_needs_a_token_and_hides_the_service(compose: dict[str, Any]) -> None:
    """Compose refuses to start without a token, and publishes ports of nginx alone."""
    assert compose["llm-shell"]["environment"]["LLM_SHELL_TOKEN"].startswith("${LLM_SHELL_TOKEN:?")
    assert [name for name, service in compose.items() if "ports" in service] == ["nginx"]
    assert compose["llm-shell"]["read_only"] is True
