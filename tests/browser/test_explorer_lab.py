"""The explorer in JupyterLab and Notebook 7: mouse, keys and Python, and what a saved notebook shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from pages import VIEW, Lab, expect, notebook_page, violations
from server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

SETUP = """
import nadkit as nk
network, masks = nk.load_network("resnet-fashion"), nk.load_masks("resnet-fashion")
images = nk.load_images("fashion", split="test", per_class=20)
"""
SHOW = """
explorer = nk.explore(network, masks, images, task="coat", per_class=4)
explorer
"""
START = """
explorer.condition, explorer.matrix, explorer.other_task, explorer.image = "kept", "phi", "", None
explorer.task, explorer.threshold, explorer.layer, explorer.unit = "coat", 0.5, "stage3.2", ""
"""
KINDS = ("controls", "map", "evidence", "matrix", "unit", "pictures")


class Shown:
    """An explorer in a notebook, in the output of its second cell."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.page = lab, lab.page

    def panel(self, kind: str) -> Locator:
        return self.lab.output(1).locator(f"section.nadkit-{kind}")

    def seen(self, kind: str) -> Locator:
        """A panel, scrolled to: what nobody sees is not worked out."""
        self.panel(kind).scroll_into_view_if_needed()
        return self.panel(kind)

    def drawn(self, *kinds: str) -> None:
        """Wait until panels show what is chosen in Python."""
        stamp = self.lab.py("explorer.choice.stamp")
        for kind in kinds or KINDS:
            expect(self.panel(kind)).to_have_attribute("data-stamp", stamp)

    def chooser(self, label: str) -> Locator:
        return self.panel("controls").get_by_role("combobox", name=label)

    def begin(self) -> Shown:
        self.lab.do(START)
        self.drawn()
        return self


@pytest.fixture(scope="module")
def notebook(chromium: Browser, lab_server: Server) -> Iterator[Lab]:
    """One notebook of JupyterLab for the tests of this module."""
    with notebook_page(chromium, lab_server) as lab:
        yield lab.open(lab.write(SETUP, SHOW)).run_all()
        assert lab.page.external == []


@pytest.fixture
def shown(notebook: Lab) -> Shown:
    return Shown(notebook).begin()


def test_everything_is_there_and_comes_from_the_server(shown: Shown) -> None:
    for kind in KINDS:
        expect(shown.panel(kind).locator("h3")).to_be_visible()
    # What is seen is worked out by itself.
    expect(shown.seen("evidence").locator(".nadkit-dot.nadkit-is-kept")).to_be_visible()
    expect(shown.seen("pictures").get_by_role("heading", name="answered wrong")).to_be_visible()
    expect(shown.panel("evidence").get_by_role("alert")).to_be_hidden()
    assert shown.panel("map").locator("path.nadkit-mark[data-at]").count() == shown.lab.py(
        "len(explorer.to_frame())"
    )
    assert shown.page.external == []
    # The picture for other places is there, too, and hidden.
    assert shown.lab.output(1).locator("figure[class^=nadkit-still]").count() == 1
    expect(shown.lab.output(1).locator("figure[class^=nadkit-still]")).to_be_hidden()


def test_class_layer_and_threshold_by_keys(shown: Shown) -> None:
    page = shown.page
    shown.chooser("Class").focus()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("sand")
    page.keyboard.press("Enter")
    shown.lab.until("explorer.task", "sandal")
    shown.chooser("Layer").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    shown.lab.until("explorer.layer", "stage3.1")
    shown.panel("controls").get_by_role("slider").focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    shown.lab.until("explorer.threshold", 0.56)
    page.keyboard.press("Home")
    shown.lab.until("explorer.threshold", 0.0)
    page.keyboard.press("End")
    shown.lab.until("explorer.threshold", 1.0)
    shown.drawn()
    expect(shown.panel("map").locator("h3 + .nadkit-body [data-key='layer-stage3.1']")).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(shown.panel("controls").locator(".nadkit-summary")).to_contain_text("sandal keeps 0 of")


def test_class_layer_and_threshold_by_mouse(shown: Shown) -> None:
    page, controls = shown.page, shown.panel("controls")
    controls.get_by_role("button", name="show the list: Class").click()
    controls.get_by_role("option", name="bag").click()
    shown.lab.until("explorer.task", "bag")
    shown.chooser("Layer").click()
    controls.get_by_role("option", name="stage2.1").click()
    shown.lab.until("explorer.layer", "stage2.1")
    box = controls.get_by_role("slider").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + box["height"] / 2, steps=12)
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + box["height"] / 2, steps=12)
    page.mouse.up()
    value = float(controls.get_by_role("slider").input_value())
    assert 0.2 < value < 0.4
    shown.lab.until("explorer.threshold", value)  # the last wish arrives, whatever came between
    controls.get_by_role("radio", name="removed").click()
    shown.lab.until("explorer.condition", "removed")
    shown.panel("map").get_by_role("button", name="layer stage1.0:").click()
    shown.lab.until("explorer.layer", "stage1.0")
    shown.drawn()
    kept = shown.lab.py("int(explorer.to_frame()['kept'].sum())")
    expect(controls.locator(".nadkit-summary")).to_contain_text(f"bag keeps {kept} of")


def test_a_unit_a_cell_and_a_picture_by_mouse(shown: Shown) -> None:
    unit = shown.panel("map").locator("[data-key='stage3.1/7']")
    unit.click()
    shown.lab.until("[explorer.unit, explorer.layer]", ["stage3.1/7", "stage3.1"])
    expect(shown.panel("unit").locator("h3")).to_have_text("Unit stage3.1/7")
    expect(unit).to_have_attribute("aria-pressed", "true")
    expect(shown.panel("unit").locator("figure img").first).to_be_visible()
    cell = shown.panel("matrix").get_by_role("gridcell", name="dress, shirt:")
    cell.click()
    shown.lab.until("[explorer.task, explorer.other_task]", ["dress", "shirt"])
    expect(cell).to_have_attribute("aria-selected", "true")
    expect(shown.panel("matrix").locator(".nadkit-pair")).to_contain_text("dress and shirt share")
    expect(shown.panel("map").locator(".nadkit-legend")).to_contain_text("kept by both")
    picture = shown.panel("pictures").locator(".nadkit-thumb").nth(2)
    index = int((picture.get_attribute("data-key") or "").split("-")[1])
    picture.click()
    shown.lab.until("explorer.image", index)
    expect(shown.panel("pictures").get_by_text(f"Picture {index}: dress")).to_be_visible()
    expect(shown.panel("pictures").locator("canvas")).to_have_count(shown.lab.py("len(network.layers)"))
    assert shown.page.external == []


def test_a_unit_a_cell_and_a_picture_by_keys(shown: Shown) -> None:
    page = shown.page
    shown.panel("map").locator(".nadkit-mark[tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    name = page.evaluate("document.activeElement.dataset.key")
    page.keyboard.press("Enter")
    shown.lab.until("explorer.unit", name)
    shown.drawn("unit", "map")
    assert page.evaluate("document.activeElement.dataset.key") == name
    shown.panel("matrix").locator("[role=gridcell][tabindex='0']").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    place = page.evaluate("document.activeElement.dataset.cell")
    row, column = map(int, place.split(","))
    page.keyboard.press("Enter")
    tasks = shown.lab.py("list(masks.tasks)")
    expected = [tasks[row], "" if row == column else tasks[column]]
    shown.lab.until("[explorer.task, explorer.other_task]", expected)
    shown.drawn("matrix", "pictures")
    assert page.evaluate("document.activeElement.dataset.cell") == place
    thumb = shown.panel("pictures").locator(".nadkit-thumb").first
    thumb.focus()
    index = int((thumb.get_attribute("data-key") or "").split("-")[1])
    page.keyboard.press("Enter")
    shown.lab.until("explorer.image", index)
    expect(thumb).to_have_attribute("aria-pressed", "true")
    assert page.evaluate("document.activeElement.dataset.key") == f"image-{index}"


def test_python_changes_the_page(shown: Shown) -> None:
    shown.lab.do("explorer.task, explorer.unit, explorer.threshold = 'trouser', 'stage2.0/3', 0.37")
    shown.drawn()
    expect(shown.chooser("Class")).to_have_value("trouser")
    expect(shown.chooser("Layer")).to_have_value("stage2.0")
    expect(shown.panel("controls").get_by_role("slider")).to_have_value("0.37")
    expect(shown.panel("unit").locator("h3")).to_have_text("Unit stage2.0/3")
    shown.lab.do("explorer.matrix = 'jaccard'")
    expect(shown.panel("matrix").get_by_role("button", name="Jaccard in this layer")).to_have_attribute(
        "aria-pressed", "true"
    )


def test_a_wrong_picture_says_why(shown: Shown) -> None:
    expect(shown.seen("pictures").get_by_role("heading", name="answered wrong")).to_be_visible()
    wrong = shown.panel("pictures").locator(".nadkit-thumb[aria-label*='answered']").first
    label = wrong.get_attribute("aria-label") or ""
    said = label.split("answered ")[1]
    wrong.click()
    expect(shown.panel("pictures").get_by_role("heading", name=f"Why {said} and not coat")).to_be_visible()
    shown.panel("pictures").get_by_role("button", name=f"compare coat with {said} on the map").click()
    shown.lab.until("explorer.other_task", said)
    flip = shown.panel("pictures").locator("[data-key^='flip-']").first
    name = (flip.get_attribute("data-key") or "").removeprefix("flip-")
    flip.click()
    shown.lab.until("explorer.unit", name)
    shown.drawn()
    expect(shown.panel("unit").get_by_role("heading", name="Links into it")).to_be_visible()


def test_what_goes_wrong_in_the_kernel_is_told_in_the_panel(shown: Shown) -> None:
    shown.lab.do("""
def broken(key):
    raise RuntimeError(f"no answer to {key[0]}")
explorer._answers.work_out = broken
explorer.threshold = 0.43
""")
    expect(shown.seen("evidence").get_by_role("alert")).to_have_text("RuntimeError: no answer to evidence")
    shown.lab.do("del explorer._answers.work_out\nexplorer.threshold = 0.44")
    expect(shown.panel("evidence").get_by_role("alert")).to_be_hidden()
    expect(shown.panel("evidence").locator(".nadkit-dot.nadkit-is-kept")).to_be_visible()


def keys_stay(shown: Shown) -> None:
    """Press what command mode would take, in every panel, in one element of each kind."""
    page, cells = shown.page, shown.lab.cells()
    places = {
        "controls": ["[role=combobox]", "[type=range]", "[type=radio]:checked", ".nadkit-open"],
        "map": [".nadkit-mark[tabindex='0']", ".nadkit-head[tabindex='0']", ".nadkit-button"],
        "evidence": [".nadkit-button"],
        "matrix": ["[role=gridcell][tabindex='0']", ".nadkit-button"],
        "unit": [".nadkit-button"],
        "pictures": [".nadkit-thumb"],
    }
    for kind, selectors in places.items():
        for selector in selectors:
            shown.lab.do("explorer.unit = 'stage3.2/5'")
            shown.drawn(kind)
            place = shown.panel(kind).locator(selector).first
            place.focus()
            for key in ("b", "a", "x", "d", "d", "m", "y", "Enter"):
                page.keyboard.press(key)
            page.keyboard.press("Tab")
            assert shown.lab.cells() == cells, (kind, selector)
    kinds = page.evaluate("[...document.querySelectorAll('.jp-Notebook .jp-Cell')].map(x => x.className)")
    assert all("jp-CodeCell" in kind for kind in kinds)  # "m" would make one a text
    assert page.locator(".jp-Notebook.jp-mod-editMode").count() == 0


def test_keys_typed_in_a_widget_are_no_commands(shown: Shown) -> None:
    shown.lab.do("explorer.unit = 'stage3.2/5'\nexplorer.wait(120)")
    shown.drawn()
    keys_stay(shown)


TALL = {"width": 1200, "height": 2600}
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark", "contrast": "JupyterLab Dark High Contrast"}


@pytest.mark.parametrize("name", THEMES)
def test_every_theme_can_be_read(shown: Shown, axe: Path, shots: Path, name: str) -> None:
    wrong = "explorer.image = int(explorer.to_frame('pictures').query('answered != task')['image'].iloc[0])"
    shown.lab.do(f"{wrong}\nexplorer.other_task = 'shirt'\nexplorer.unit = 'stage3.2/5'\nexplorer.wait(120)")
    shown.lab.theme(THEMES[name])
    shown.page.set_viewport_size(TALL)  # so that all of it is in one picture
    shown.drawn()
    expect(shown.panel("pictures").get_by_role("heading", name="Why")).to_be_visible()
    shown.panel("map").get_by_role("button", name="whole map").click()
    shown.seen("controls")
    shown.page.wait_for_timeout(500)
    try:
        shown.page.screenshot(path=shots / f"explorer_{name}.png")
        found = [
            fault for kind in KINDS for fault in violations(shown.page, axe, include=f"section.nadkit-{kind}")
        ]
        assert found == []
    finally:
        shown.page.set_viewport_size(VIEW)
        shown.lab.theme(THEMES["light"])


def test_a_saved_notebook_shows_a_picture_elsewhere(
    shown: Shown, chromium: Browser, lab_server: Server, shots: Path
) -> None:
    shown.lab.inside("await window.jupyterapp.commands.execute('docmanager:save')")
    saved = next(iter(shown.lab.opened))
    book = nbformat.read(lab_server.folder / saved, as_version=4)
    words = next(output.data["text/html"] for output in book.cells[1].outputs if "text/html" in output.data)
    assert "This is a static picture" in words
    # A copy, which no server has signed, and whose widgets no kernel knows.
    nbformat.write(book, lab_server.folder / "elsewhere.ipynb")
    with notebook_page(chromium, lab_server) as other:
        other.open("elsewhere.ipynb")
        figure = other.output(1).locator("figure")
        expect(figure.get_by_text("This is a static picture: run the cell")).to_be_visible()
        picture = figure.get_by_role("img")
        expect(picture).to_be_visible()
        assert picture.evaluate("x => x.complete && x.naturalWidth") > 300
        assert "coat keeps" in (picture.get_attribute("alt") or "")
        assert other.page.locator(".nadkit").count() == 0
        other.page.screenshot(path=shots / "explorer_elsewhere.png")
        # There, too, it lives once its cells are run.
        other.run_all()
        expect(other.output(1).locator("section.nadkit-map")).to_be_visible()
        expect(other.output(1).locator("figure[class^=nadkit-still]")).to_be_hidden()


def test_a_page_of_a_saved_notebook_shows_the_picture(
    shown: Shown, chromium: Browser, lab_server: Server
) -> None:
    """As nbconvert makes it: no kernel, no JavaScript of ours."""
    from nbconvert import HTMLExporter

    shown.lab.inside("await window.jupyterapp.commands.execute('docmanager:save')")
    book = nbformat.read(lab_server.folder / next(iter(shown.lab.opened)), as_version=4)
    html, _ = HTMLExporter(template_name="basic").from_notebook_node(book)
    context = chromium.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.set_content(html)
        expect(page.get_by_text("This is a static picture: run the cell")).to_be_visible()
        expect(page.locator("figure img")).to_be_visible()
    finally:
        context.close()


def test_notebook_7(nb7: Lab, shots: Path) -> None:
    nb7.open(nb7.write(SETUP, SHOW)).run_all()
    shown = Shown(nb7)
    shown.drawn()
    expect(nb7.output(1).locator("figure[class^=nadkit-still]")).to_be_hidden()
    shown.chooser("Class").focus()
    nb7.page.keyboard.press("ControlOrMeta+a")
    nb7.page.keyboard.type("bag")
    nb7.page.keyboard.press("Enter")
    nb7.until("explorer.task", "bag")
    shown.panel("map").get_by_role("button", name="layer stage1.0:").click()
    nb7.until("explorer.layer", "stage1.0")
    shown.panel("map").locator("[data-key='stage3.2/5']").click()
    nb7.until("explorer.unit", "stage3.2/5")
    nb7.do("explorer.wait(120)")
    shown.drawn()
    keys_stay(shown)
    nb7.do(START)
    shown.drawn()
    nb7.page.set_viewport_size(TALL)
    shown.panel("map").get_by_role("button", name="whole map").click()
    shown.seen("controls")
    nb7.page.wait_for_timeout(500)
    nb7.page.screenshot(path=shots / "explorer_notebook7.png")
    assert nb7.page.external == []


def test_two_views_of_one_explorer_agree(lab: Lab) -> None:
    lab.open(lab.write(SETUP, SHOW, "explorer.panel('map')", "explorer")).run_all()
    for output in (1, 2, 3):
        expect(lab.output(output).locator("section.nadkit-map")).to_be_visible()
    lab.output(3).get_by_role("button", name="layer stem:").click()
    lab.until("explorer.layer", "stem")
    stamp: Any = lab.py("explorer.choice.stamp")
    for output in (1, 2, 3):
        expect(lab.output(output).locator("section.nadkit-map")).to_have_attribute("data-stamp", stamp)
