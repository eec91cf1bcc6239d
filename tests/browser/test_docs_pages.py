"""The documentation in a browser that reaches nothing but its files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from drawings import drawings
from pages import expect, violations, watched_page

from nadkit.__main__ import FIGURE, build_page
from nadkit.figures._marks import NARROW

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

nbformat: Any = pytest.importorskip("nbformat")
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


HINTED = """() => [...document.querySelectorAll(
    ".nadkit-scroll, .pst-scrollable-table-container, .cell_output .text_html")].map((place) => {
  const hint = place.nextElementSibling;
  const shown = Boolean(hint?.matches(".nadkit-hint") && hint.checkVisibility());
  const faded = getComputedStyle(place).maskImage !== "none";
  return [place.scrollWidth - place.clientWidth, place.getAttribute("role"), place.tabIndex, faded && shown];
})"""


@pytest.mark.parametrize("name", ["gallery.html", "evidence.html", "support.html", "index.html"])
def test_what_is_wider_than_the_page_says_so(page: Page, built_docs: Path, name: str, axe: Path) -> None:
    page.set_viewport_size({"width": 420, "height": 900})
    page.goto(f"{built_docs.as_uri()}/{name}")
    if name == "gallery.html":
        expect(page.locator(".nadkit-plot .main-svg").first).to_be_visible()
    page.wait_for_timeout(300)
    found = page.evaluate(HINTED)
    wide = [place for place in found if place[0] > 8]
    assert bool(wide) == (name != "index.html")
    assert [place[1:] for place in wide] == [["group", 0, True]] * len(wide)
    assert not [place for place in found if place[0] <= 8 and place[3]]
    assert violations(page, axe, "article .nadkit-wide") == [] or not wide


def test_at_the_end_of_the_way_nothing_more_is_promised(page: Page, built_docs: Path) -> None:
    page.set_viewport_size({"width": 420, "height": 900})
    page.goto(f"{built_docs.as_uri()}/support.html")
    table = page.locator(".pst-scrollable-table-container.nadkit-wide").first
    assert "nadkit-more-right" in (table.get_attribute("class") or "")
    table.evaluate("place => { place.scrollLeft = place.scrollWidth; }")
    expect(table).to_have_class(re.compile("nadkit-more-left"))
    assert "nadkit-more-right" not in (table.get_attribute("class") or "")


@pytest.mark.parametrize(
    "name", ["gallery.html", "how-to/your-own-network.html", "support.html", "graphs.html"]
)
def test_figures_and_tables_fit_a_wide_page(page: Page, built_docs: Path, name: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{built_docs.as_uri()}/{name}")
    places = page.locator(".nadkit-scroll:not(:has(img)), .pst-scrollable-table-container")
    assert places.count()
    for place in places.all():
        place.scroll_into_view_if_needed()
        assert place.evaluate("place => place.scrollWidth - place.clientWidth") <= 1


def test_names_in_tables_are_not_broken_within_words(page: Page, built_docs: Path) -> None:
    page.set_viewport_size({"width": 420, "height": 900})
    page.goto(f"{built_docs.as_uri()}/index.html")
    names = page.locator("article table code .pre")
    assert {"nk.whether", "nk.where"} <= set(names.all_text_contents())
    assert names.evaluate_all("all => all.map(e => e.getClientRects().length)") == [1] * names.count()


def test_the_tours_figure_is_whole_on_a_narrow_screen(chromium: Browser, tmp_path: Path, axe: Path) -> None:
    figure = json.loads(drawings()["whether"].to_json())
    output = nbformat.v4.new_output("display_data", data={FIGURE: figure})
    cell = nbformat.v4.new_code_cell("figure", outputs=[output])
    path = tmp_path / "tour.html"
    path.write_text(build_page(nbformat.v4.new_notebook(cells=[cell])), encoding="utf-8")
    with watched_page(chromium, path.as_uri()) as page:
        page.set_viewport_size({"width": 420, "height": 900})
        page.goto(path.as_uri())
        expect(page.locator(".plot .main-svg").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        plot = page.locator(".plot").bounding_box()
        assert plot
        assert plot["width"] >= NARROW
        expect(page.locator(".wide + .hint")).to_be_visible()
        assert violations(page, axe, ".wide") == []
        page.set_viewport_size({"width": 1280, "height": 900})
        expect(page.locator(".wide + .hint")).to_be_hidden()


def test_search_finds_a_word(page: Page, built_docs: Path) -> None:
    page.goto(f"{built_docs.as_uri()}/search.html?q=necessity")
    expect(page.locator("#search-results a", has_text="How to read the measures").first).to_be_visible()
