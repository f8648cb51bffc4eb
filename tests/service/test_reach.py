"""A service that runs commands as another user says where that user could change the service itself, or its logs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.kit.services import Services

USER = "nobody"
WARNING = f"LLM_SHELL_RUN_AS does not protect the service from {USER!r}: that user may write to "


def warnings_at(serve: Services, cwd: Path) -> list[str]:
    """Start a service in this directory and return what it named as open to the user."""
    service = serve(cwd=cwd, settings={"LLM_SHELL_RUN_AS": USER})
    return [
        line.partition(WARNING)[2].partition(", and so")[0] for line in service.text.splitlines() if WARNING in line
    ]


def test_nothing_is_said_where_nothing_is_open(serve: Services, place: Path) -> None:
    """With directory, settings file and code out of the user's reach there is no warning."""
    (place / ".env").touch(mode=0o644)
    assert warnings_at(serve, place) == []


def test_an_open_working_directory_is_named(serve: Services, place: Path) -> None:
    """A working directory in which the user may make a `.env` is named, a sticky one as well."""
    place.chmod(0o1777)
    assert warnings_at(serve, place) == [str(place)]


def test_an_open_settings_file_is_named(serve: Services, place: Path) -> None:
    """A `.env` that belongs to the user is named, although the directory does not."""
    (place / ".env").touch()
    shutil.chown(place / ".env", USER)
    assert warnings_at(serve, place) == [str(place / ".env")]


def test_a_directory_above_is_named(serve: Services, place: Path) -> None:
    """Who may write to a directory above can put another in the place of the service's."""
    (place / "inside").mkdir()
    place.chmod(0o777)
    assert warnings_at(serve, place / "inside") == [str(place)]


@pytest.mark.parametrize(("owner", "mode"), [(USER, 0o755), ("root", 0o777)], ids=["owned", "open"])
@pytest.mark.parametrize("below", [".", "logs"])
def test_a_log_directory_within_reach_is_refused(
    serve: Services, place: Path, owner: str, mode: int, below: str
) -> None:
    """Nothing is made or changed where the user could put links, in the log directory or above, and that is said."""
    place.chmod(mode)
    shutil.chown(place, owner)
    refusal = serve.refused(settings={"LLM_SHELL_RUN_AS": USER, "LLM_SHELL_LOG_DIR": str(place / below)})
    assert refusal.code == 1
    assert f"{USER!r} may change {place}, and so what this service" in "".join(refusal.lines)
    assert place.stat().st_mode & 0o777 == mode
    assert not list(place.iterdir())
