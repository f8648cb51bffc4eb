"""Fixtures for every test: an application of its own, on a log directory of its own, with nothing left behind."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import settings as hypothesis_settings

from app import create_app
from app.config import PREFIX, Settings
from tests.kit.leftovers import assert_none_left
from tests.kit.processes import descendants
from tests.kit.requiring import require

# A wall clock's bound on each example would be one on the machine's load; what has to be quick says so itself.
hypothesis_settings.register_profile("without-deadline", deadline=None)
hypothesis_settings.load_profile("without-deadline")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _usual_umask() -> Iterator[None]:
    """Make files that other users may read, whatever the umask of whoever runs the tests."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory that other users can reach, unlike pytest's own."""
    require(os.geteuid() == 0, "root, to give things to another user")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the default settings with a log directory of this test's own."""
    return Settings(log_dir=tmp_path / "logs")


@pytest.fixture
def make_app(settings: Settings) -> Iterator[Callable[..., Flask]]:
    """Return a function that makes the test's application, with other settings where given.

    Ends what the test started and fails it when any descendant of the test process is left.
    """
    before = descendants()
    made: list[Flask] = []

    def make(**changes: Any) -> Flask:
        made.append(create_app(dataclasses.replace(settings, **changes)))
        return made[-1]

    yield make
    for app in made:
        app.extensions["supervisor"].stop()
    assert_none_left(before)


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """Return an application with the default settings."""
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Return a client of `app`."""
    return app.test_client()
