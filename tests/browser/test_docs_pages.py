"""The documentation in a browser that reaches nothing but its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pages import expect, violations, watched_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OPENED = ["index.html", "tutorials/00_tour.html", "reference/questions.html", "explanation/method.html"]


@pytest.fixture
def page(chromium: Browser, built_docs: Path) -> Iterator[Page]:
    """A page that may open the built files alone; it fails at the end for any other request."""
    with watched_page(chromium, built_docs.as_uri()) as page:
        yield page


@pytest.mark.parametrize("name", OPENED)
@pytest.mark.parametrize("width", [1280, 420])
def test_pages_open_and_fit(page: Page, built_docs: Path, shots: Path, name: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{built_docs.as_uri()}/{name}")
    expect(page.locator("article h1")).to_be_visible()
    page.screenshot(path=shots / f"docs-{Path(name).stem}-{width}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_equations_have_a_size(page: Page, built_docs: Path) -> None:
    page.goto(f"{built_docs.as_uri()}/explanation/method.html")
    box = page.locator("div.math math").first.bounding_box()
    assert box
    assert box["width"] > 100
    assert box["height"] > 20


def test_figures_are_drawn_when_they_come_near(page: Page, built_docs: Path, axe: Path, shots: Path) -> None:
    page.goto(f"{built_docs.as_uri()}/gallery.html")
    plots = page.locator(".nadkit-plot")
    expect(page.locator(".nadkit-plot .main-svg").first).to_be_visible()
    assert page.locator(".nadkit-plot.js-plotly-plot").count() < plots.count()
    plots.last.scroll_into_view_if_needed()
    expect(plots.last.locator(".main-svg").first).to_be_visible()
    page.screenshot(path=shots / "docs-gallery.png")
    assert violations(page, axe, ".nadkit-figure") == []


def test_search_finds_a_word(page: Page, built_docs: Path) -> None:
    page.goto(f"{built_docs.as_uri()}/search.html?q=necessity")
    expect(page.locator("#search-results a", has_text="How to read the measures").first).to_be_visible()
