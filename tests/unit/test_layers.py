"""Who may import whom, so that a package's name says which process its code runs in."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What each package may import of the others, as docs/design.md has it. The modules beside the packages stand for
# themselves.
MAY_IMPORT: dict[str, set[str]] = {
    "linux": set(),
    "log": set(),
    "runs": {"log", "linux", "exceptions"},
    "protocol": {"runs", "linux"},
    "stopping": {"linux"},
    "shim": {"protocol", "stopping", "runs", "log", "linux"},
    "reading": {"runs", "log", "linux", "exceptions"},
    "supervisor": {"reading", "runs", "log", "protocol", "stopping", "linux", "config", "exceptions", "wording"},
    "web": {"runs", "reading", "config", "addresses", "exceptions", "wording", "version"},
    "api": {"web", "supervisor", "reading", "protocol", "runs", "config", "version"},
    "server": {"web", "service", "supervisor", "runs", "config", "linux", "log", "exceptions", "addresses"},
    # Where the packages are put together, and the names that gunicorn and python(1) are given.
    "service": {"supervisor", "runs", "config", "exceptions"},
    "__init__": {"api", "service", "config", "version"},
    "__main__": {"config"},
    # Leaves.
    "config": {"addresses", "runs", "wording"},
    "addresses": set(),
    "exceptions": set(),
    "version": set(),
    "wording": set(),
}


def package_of(module: str) -> str:
    """Return the part of a module's name that the table has: `app.log.record` is of `log`, `app` itself `__init__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def package_of_file(path: Path) -> str:
    """Return the same for a file of the application."""
    return path.relative_to(ROOT / "app").with_suffix("").parts[0]


def imports_of(path: Path) -> set[str]:
    """Return the modules of the application that a file imports, wherever in it, for type checkers too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if (ROOT / inner.replace(".", "/")).with_suffix(".py").exists() else str(node.module))
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {module for module in found if module.split(".")[0] == "app"}


def modules() -> list[Path]:
    """Return the application's files."""
    return sorted((ROOT / "app").rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_keep_to_the_table(path: Path) -> None:
    """A module imports of other packages what the table allows its own, and nothing else."""
    own = package_of_file(path)
    assert {package_of(module) for module in imports_of(path)} - {own} <= MAY_IMPORT[own]


def test_every_package_has_its_row() -> None:
    """The table names what is there, all of it and nothing else."""
    assert {package_of_file(path) for path in modules()} == set(MAY_IMPORT)


def test_the_design_has_the_same_table() -> None:
    """docs/design.md tells of each package what this table allows it."""
    text = (ROOT / "docs" / "design.md").read_text().partition("| may import |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)(?:\.py)?` \|[^|]*\|[^|]*\| ?([^|]*?) ?\|$", text, re.MULTILINE)
    told = {name: {part.strip() for part in allowed.split(",") if part.strip()} for name, allowed in rows}
    assert told == MAY_IMPORT


def test_the_master_imports_no_web_framework() -> None:
    """What gunicorn's master imports of ours, its hooks and the worker's class, brings it no Flask: 2 MB more."""
    code = "import sys; import app.server.hooks; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    modules = set(output.split())
    assert "app.server.worker" in modules
    assert not modules & {"flask", "werkzeug", "jinja2", "flask_smorest"}
