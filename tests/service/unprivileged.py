"""What the files of deploy/ install, run by a user without privileges."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.kit.places import ROOT
from tests.kit.requiring import require
from tests.kit.service import Service

TOKEN = "a-token-of-sufficient-length"  # noqa: S105  made up
# What Linux distributions call nobody; without root's rights there is nobody else to be.
ACCOUNT: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
AS_ROOT = dict.fromkeys(ACCOUNT)
OWNER: int = ACCOUNT.get("user", os.geteuid())
GROUP: int = ACCOUNT.get("group", os.getegid())


class Deployed(Service):
    """A service started as a file of deploy/ says: by a user of its own, in that environment and no other."""

    def __init__(
        self, output: Path, command: Sequence[str], cwd: Path, environment: Mapping[str, str], **options: Any
    ) -> None:
        self.token = environment.get("LLM_SHELL_TOKEN", "")
        super().__init__(output, command, cwd, environment, **{**ACCOUNT, **options})

    @property
    def headers(self) -> Mapping[str, str]:
        """Return what every request to it carries: its token."""
        return {"Authorization": f"Bearer {self.token}"}


@contextmanager
def scratch() -> Iterator[Path]:
    """Offer a folder that other users may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="llm-shell-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def install_program(folder: Path) -> None:
    """Put the program into a folder with a virtual environment of its own, all of it readable to anybody.

    The checkout and its packages may lie in a directory that only their owner may enter, and under any umask.
    """
    shutil.copytree(ROOT / "app", folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("wsgi.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, folder)
    subprocess.run([interpreter(), "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    [packages] = (folder / ".venv").glob("lib/*/site-packages")
    copy_packages(packages)
    script = folder / ".venv" / "bin" / "gunicorn"
    script.write_text(f"#!{folder}/.venv/bin/python\nfrom gunicorn.app.wsgiapp import run\n\nrun()\n")
    script.chmod(0o755)
    subprocess.run(["/bin/chmod", "-R", "go+rX", folder], check=True)


def copy_packages(target: Path) -> None:
    """Copy what the service runs on, as it is installed for the tests."""
    for name in pinned("requirements.txt"):
        copy_package(metadata.distribution(name), target)
    for name in pinned("requirements-quick.txt"):
        with suppress(metadata.PackageNotFoundError):  # not to be had on every system
            copy_package(metadata.distribution(name), target)


def pinned(requirements: str) -> list[str]:
    """Return the names of the packages that a list of requirements pins."""
    return re.findall(r"^([\w-]+)==", (ROOT / requirements).read_text(), re.MULTILINE)


def copy_package(package: metadata.Distribution, target: Path) -> None:
    """Copy an installed package's files, those outside of its directory of packages (its scripts) left out."""
    for file in package.files or ():
        source = Path(str(package.locate_file(file)))
        if ".." not in file.parts and source.exists():  # pip lists byte code that may be gone
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / file)


def interpreter() -> Path:
    """Return a Python that the unprivileged user may run, of the version that the tests run with."""
    wanted = f"import sys, venv; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    name = "python{}.{}".format(*sys.version_info)
    for path in (Path(sys.executable).resolve(), Path("/usr/bin", name), Path("/usr/local/bin", name)):
        with suppress(OSError):
            if subprocess.run([path, "-c", wanted], **ACCOUNT, check=False, capture_output=True).returncode == 0:
                return path
    require(False, f"{name} with venv where user {OWNER} may run it (Debian: apt install python3-venv)")
    raise AssertionError
