"""scripts/test-packages: what it does on a machine that has everything, and on one where it may do nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "test-packages"
NEEDED = ("nginx", "ip", "openssl", "curl", "git")


def run(folder: Path, programs: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script with these programs alone on its path, each of which only writes down that it was called."""
    for name in programs:
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "$0" "$@" >>"{folder}/calls"\nexit 1\n')
        program.chmod(0o755)
    environment = {"PATH": str(folder)}
    return subprocess.run([str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, check=True)


def test_nothing_is_missing(tmp_path: Path) -> None:
    """On a machine that has what the tests need, nothing is asked of apt, and nothing is said."""
    done = run(tmp_path, (*NEEDED, "apt-get", "sudo"))
    assert (done.stdout, done.stderr, (tmp_path / "calls").exists()) == ("", "", False)


def test_nothing_can_be_installed(tmp_path: Path) -> None:
    """Where there is no apt, one line names what is missing, and the tests go on without it."""
    done = run(tmp_path, ("nginx", "ip", "openssl", "git"))
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.endswith("apt install curl")


def test_other_packages_by_name(tmp_path: Path) -> None:
    """Given programs and their packages, it is those that it looks for, and nothing else."""
    done = run(tmp_path, ("here-already",), "here-already:one", "not-here:two")
    (line,) = done.stderr.splitlines()
    assert line.endswith("apt install two")
