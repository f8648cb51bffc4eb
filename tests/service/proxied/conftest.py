"""Fixtures for the tests of nginx: one site that a file's tests share."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.service.proxied.site import Site, site_in


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return the site that a file's tests share."""
    with site_in(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """Return the site with nothing alive on it; of a test come neither faults of nginx nor files of what passes it."""
    shared_site.end_run()
    yield shared_site
    shared_site.end_run()
    assert not [
        line
        for line in shared_site.nginx.errors
        if re.search(r"\[(crit|alert|emerg)\]|buffered to a temporary file", line)
    ]
