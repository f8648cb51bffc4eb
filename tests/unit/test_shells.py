"""Which shell runs commands where no setting says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.runs import shells


@pytest.fixture(autouse=True)
def _bash_is_at_no_usual_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shells, "_USUAL_PLACES", ("/no/such/bash",))


def program(folder: Path) -> Path:
    """Make a program named bash and return its path."""
    folder.mkdir()
    path = folder / "bash"
    path.touch(mode=0o755)
    return path


def test_bash_of_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bash lies in neither of its usual places, the first of PATH is taken."""
    first, second = program(tmp_path / "first"), program(tmp_path / "second")
    monkeypatch.setenv("PATH", f"{tmp_path}/none:{first.parent}:{second.parent}")
    assert shells.default_shell() == str(first)


@pytest.mark.parametrize("path", ["", ".", ":", "here"])
def test_no_bash_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """What a command left in the service's directory is never taken for the shell, whatever PATH says."""
    program(tmp_path / "here")
    (tmp_path / "bash").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path)
    assert shells.default_shell() == "/bin/sh"


def test_without_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bash it is the system's shell."""
    monkeypatch.delenv("PATH")
    assert shells.default_shell() == "/bin/sh"
