"""/docs in a real browser on a narrow screen: with the token, everything on it can be tried."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.service import Service
from tests.kit.services import services_in
from tests.kit.waiting import wait_until
from tests.real.browser import Page, browser

TOKEN = "a-token-of-sufficient-length"  # noqa: S105  made up
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
WIDTH, HEIGHT = 390, 844
# What the scripts below share; elements come when Swagger UI has made them.
HELP = """
    const until = async find => {
        for (let i = 0; i < 200; i++) {
            const found = find();
            if (found) return found;
            await new Promise(done => setTimeout(done, 50));
        }
        throw new Error("not on the page: " + find);
    };
    const one = (selector, inside = document) => until(() => inside.querySelector(selector));
"""
AUTHORIZE = """
    (await one(".auth-wrapper .authorize")).click();
    const input = await one(".auth-container input");
    // React listens to the event, and looks at what its own setter has not set.
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(input, "%s");
    input.dispatchEvent(new Event("input", {bubbles: true}));
    (await one(".auth-btn-wrapper .authorize")).click();
    await until(() => document.querySelector(".auth-container h6"));
    (await one(".auth-btn-wrapper .btn-done")).click();
"""
TRY = """
    const path = await one('[data-path="%s"]');
    const call = path.closest(".opblock");
    call.querySelector(".opblock-summary-control").click();
    (await one(".try-out__btn", call)).click();
    (await one(".execute", call)).click();
    const answer = await one(".live-responses-table tr.response", call);
    const told = [answer.querySelector(".response-col_status").innerText.trim(), answer.innerText];
    told.push(document.documentElement.scrollWidth, answer.querySelector(".highlight-code").clientWidth);
    call.querySelector(".opblock-summary-control").click();
    return told;
"""
BROKEN_PATHS = """
    await one(".opblock-summary-path");
    const lines = path => {
        const range = document.createRange();
        range.selectNodeContents(path);
        return new Set([...range.getClientRects()].map(box => Math.round(box.top / 8))).size;
    };
    const paths = [...document.querySelectorAll(".opblock-summary-path")];
    return paths.filter(path => lines(path) > 1).map(path => path.dataset.path);
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Return a service with a token."""
    with services_in(tmp_path) as services:
        yield services(settings={"LLM_SHELL_TOKEN": TOKEN})


@pytest.fixture
def page(service: Service, tmp_path: Path) -> Iterator[Page]:
    """Return the service's page on a narrow screen."""
    with browser(tmp_path / "profile") as page:
        page.open(f"{service.url}/docs", WIDTH, HEIGHT)
        yield page


def try_out(page: Page, path: str) -> tuple[str, str]:
    """Open a call, press "Try it out" and "Execute", and return status and answer, for which the screen must do."""
    status, text, width, width_of_answer = page.run(HELP + TRY % path)
    assert width <= WIDTH
    assert width_of_answer > WIDTH * 0.75
    return str(status), str(text)


def test_everything_can_be_tried(page: Page, service: Service) -> None:
    """After Authorize each call works as it is filled in, and the page's policy had nothing to refuse."""
    page.run(HELP + AUTHORIZE % TOKEN)
    assert try_out(page, "/start")[0] == "201"
    wait_until(lambda: service.get("/logs", headers=AUTHORIZED).body["content"] == "ready")
    assert '"ready"' in try_out(page, "/logs")[1]
    assert '"running"' in try_out(page, "/status")[1]
    assert try_out(page, "/restart")[0] == "200"
    status, answer = try_out(page, "/kill")
    assert status == "200"
    assert '"killed"' in answer
    assert page.errors == []


def test_it_is_readable_on_a_phone(page: Page) -> None:
    """No call's path is broken into pieces, and nothing makes the page wider than the screen."""
    assert page.run(HELP + BROKEN_PATHS) == []
    assert page.run("return document.documentElement.scrollWidth") <= WIDTH


def test_without_the_token_it_says_what_is_missing(page: Page) -> None:
    """Before Authorize a call shows the service's own words about the token."""
    status, answer = try_out(page, "/status")
    assert status == "401"
    assert "Authorization: Bearer" in answer
