"""Where the measured programs come from: Debian, npm and PyPI alone, in pinned versions where they can be pinned.

What comes from npm and PyPI stays in a folder below the temporary one, for the next time.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.service import ROOT

CACHE = Path(tempfile.gettempdir()) / f"llm-shell-bench-programs-{os.getuid()}"
MINUTES_EACH = 5
DEBIAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/games"


class Tools:
    """Install packages, named as in `apt:PROGRAM:PACKAGE`, `npm:NAME@VERSION` or `pip:NAME==VERSION`.

    Several with spaces between them are installed together.
    """

    def __init__(self) -> None:
        self._done: dict[str, bool] = {}
        CACHE.mkdir(mode=0o700, exist_ok=True)

    @property
    def path(self) -> str:
        """Return a PATH with all that was installed; PostgreSQL's servers are where Debian keeps them."""
        servers = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))[-1:]
        return ":".join([str(CACHE / "python" / "bin"), os.environ["PATH"], DEBIAN_PATH, *servers])

    def has(self, package: str) -> bool:
        """Tell whether a package is there, after an attempt to install it."""
        if package not in self._done:
            print(f"installing {package}", file=sys.stderr)
            kind, _, rest = package.partition(":")
            self._done[package] = {"apt": self._debian, "npm": self._npm, "pip": self._pip}[kind](rest)
        return self._done[package]

    def version(self, package: str) -> str:
        """Return the version of an installed package."""
        if not package.startswith("apt:"):
            return re.split("==|@(?=[0-9])", package.split(" ", maxsplit=1)[0])[1]
        program, name = package.split(":")[1:]
        told = _told(["dpkg-query", "-W", "-f", "${Version}", name]) or _told([program, "--version"])
        found = re.search(r"(?:\d+:)?(\d[^-+~\s]*)", told)
        return found[1] if found else "?"

    def link_modules(self, package: str, folder: Path) -> None:
        """Put what an npm package brought into the folder of a project, as `npm install` there would."""
        if package.startswith("npm:"):
            modules = _node_folder(package.removeprefix("npm:")) / "node_modules"
            subprocess.run(["cp", "--archive", "--link", str(modules), str(folder)], check=True)

    def _debian(self, pair: str) -> bool:
        program = pair.partition(":")[0]
        return bool(
            shutil.which(program, path=self.path)
            or (_runs([str(ROOT / "scripts" / "test-packages"), pair]) and shutil.which(program, path=self.path))
        )

    def _npm(self, specs: str) -> bool:
        folder = _node_folder(specs)
        if (folder / "done").exists():
            return True
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "package.json").write_text('{"private": true}')
        return _runs(["npm", "install", "--no-audit", "--no-fund", *specs.split()], folder) and _mark(folder)

    def _pip(self, spec: str) -> bool:
        mark = CACHE / f"python-{spec}"
        if mark.exists():
            return True
        python = CACHE / "python" / "bin" / "python"
        if not python.exists() and not _runs([sys.executable, "-m", "venv", "--clear", str(CACHE / "python")]):
            return False
        if not _runs([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", spec]):
            return False
        mark.touch()
        return True


def _told(command: list[str]) -> str:
    """Return what a command prints, nothing where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode else done.stdout


def _node_folder(specs: str) -> Path:
    return CACHE / specs.split(maxsplit=1)[0].replace("/", "-")


def _mark(folder: Path) -> bool:
    (folder / "done").touch()
    return True


def _runs(command: list[str], folder: Path | None = None) -> bool:
    """Tell whether a command succeeds within its time; what it prints does not belong to the table."""
    try:
        return not subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=60 * MINUTES_EACH, check=False
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False
