"""The pages that a person opens hold nothing that axe-core calls serious or critical, and fit on a phone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from histoloom.report.review import write_review

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium to open the pages in"),
]
PHONE_PX, SCREEN_PX = 360, 1280
_PRESSED = "for (const key of ['1', 'r', 'x', 'ArrowLeft']) document.dispatchEvent(new KeyboardEvent('keydown', {key}))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


def _report(study: Path, page: Page) -> None:
    page.goto((study / "reports/index.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")


def _slide(study: Path, page: Page) -> None:
    page.goto((study / "reports/slides/woven.html").as_uri())
    page.wait_for_selector("[data-slide=open][data-overlay=ready][data-tiles]")
    page.check("#mask")


def _review(study: Path, page: Page) -> None:
    output = study.parent / "review.html"
    write_review(np.full((3, 32, 32, 3), 200, np.uint8), "review", ["dermis", "keratin"], output)
    page.goto(output.as_uri())
    page.evaluate(_PRESSED)
    assert page.locator("[aria-pressed=true]").count() == 2, "a verdict that was given is not said to be"


def _faults(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{fault['id']} ({fault['impact']}): {node['html'][:200]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


@pytest.mark.parametrize("scheme, width_px", [("light", SCREEN_PX), ("dark", SCREEN_PX), ("dark", PHONE_PX)])
@pytest.mark.parametrize("opened", [_report, _slide, _review])
def test_a_page_can_be_used_by_everybody(study, browser, opened, scheme, width_px):
    with browser.new_context(color_scheme=scheme, viewport={"width": width_px, "height": 740}) as context:
        page = context.new_page()
        opened(study, page)
        assert _faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width_px, "the page is wider than the screen"
        luminance = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", luminance)[:3])) < 384) == (scheme == "dark"), luminance


def test_a_fault_is_found(study, browser):
    with browser.new_context() as context:
        page = context.new_page()
        _review(study, page)
        page.evaluate("document.querySelector('img').removeAttribute('alt')")
        page.evaluate("document.body.style.color = '#999'; document.body.style.background = '#fff'")
        assert {fault.partition(":")[0] for fault in _faults(page)} == {
            "image-alt (critical)",
            "color-contrast (serious)",
        }
