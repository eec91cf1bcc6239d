"""The widgets for lessons: their JavaScript in a blank page, and all of them in a real notebook."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import PATIENCE, Blank, Lab, expect, violations

import nadkit as nk
from nadkit import widgets

# The blank page goes from its h1 to a panel's h3; in a notebook the headings around it are the author's.
ALONE = {"heading-order"}
DARK = """
body { background: #111; } body h1 { color: #eee; }
body .nadkit { --jp-content-font-color1: #e8e8e8; --jp-layout-color1: #111; --jp-layout-color2: #2b2b2b;
  --jp-border-color1: #555; }
"""


class Page:
    """A lesson in a blank page: the widget gets what the page asks for, the page what it then shows."""

    def __init__(self, mounted: Blank, widget: widgets.Panel) -> None:
        self.blank, self.widget, self.page = mounted, widget, mounted.page
        self.handled = 0

    def answer(self) -> None:
        """Let the widget answer what was asked, until nothing more is."""
        for _ in range(20):
            # Work is asked for a moment after the last change.
            self.page.wait_for_timeout(400 if self.widget.state.get("need") else 60)
            asked = self.blank.sent()
            if len(asked) == self.handled:
                return
            for content in asked[self.handled :]:
                self.widget._received(self.widget, content, [])
            self.handled = len(asked)
            if hasattr(self.widget, "_answers"):
                assert self.widget._answers.wait(60)
            self.blank.put(state=self.widget.state)
            self.blank.receive({"do": "done"})
        raise AssertionError("the page asks on and on")


@pytest.fixture(scope="module")
def things() -> tuple[Any, Any, Any]:
    images = nk.load_images("fashion", split="test", per_class=10)
    return nk.load_network("resnet-fashion"), nk.load_masks("resnet-fashion"), images


@pytest.fixture
def mount(blank: Callable[..., Blank], axe: Path, shots: Path) -> Iterator[Callable[..., Page]]:
    """Mounts a lesson, looks at it with axe, light and dark, and keeps pictures of both."""
    opened: list[tuple[str, Page]] = []

    def one(name: str, widget: widgets.Panel) -> Page:
        state = {"kind": widget.kind, "state": widget.state, "still": ""}
        page = Page(blank(widget._esm, state, css=widget._css + DARK.replace("body ", "body.dark ")), widget)
        page.page.wait_for_timeout(300)
        page.answer()
        opened.append((name, page))
        return page

    yield one
    for name, page in opened:
        assert violations(page.page, axe, known=ALONE) == []
        page.page.screenshot(path=shots / f"lesson_{name}.png")
        page.page.evaluate(
            "document.body.classList.add('dark'); document.body.dataset.jpThemeLight = 'false'"
        )
        assert violations(page.page, axe, known=ALONE) == []
        page.page.screenshot(path=shots / f"lesson_{name}_dark.png")
        page.page.evaluate(
            "document.body.classList.remove('dark'); delete document.body.dataset.jpThemeLight"
        )
        page.page.emulate_media(forced_colors="active", color_scheme="dark")
        page.page.screenshot(path=shots / f"lesson_{name}_forced.png")
        page.blank.cleanup()
        assert page.blank.listeners() == []


def test_grid_by_mouse_and_keyboard(mount: Callable[..., Page], things: tuple[Any, Any, Any]) -> None:
    grid = widgets.layer_class_grid(things[1])
    page = mount("grid", grid)
    page.page.locator('[data-cell="2,3"]').click()
    page.answer()
    assert (grid.task, grid.layer) == (things[1].tasks[2], list(things[1].unit_counts)[3])
    expect(page.page.locator(".nadkit-chosen")).to_have_attribute("data-cell", "2,3")
    expect(page.page.get_by_text(f"{grid.task} keeps")).to_be_visible()
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("Enter")
    page.answer()
    assert (grid.task, grid.layer) == (things[1].tasks[3], list(things[1].unit_counts)[4])
    page.page.get_by_role("button", name="exclusive share").click()
    page.answer()
    assert grid.values == "exclusive_share"
    value = grid.to_frame().query("task == @grid.task and layer == @grid.layer")["value"].item()
    expect(page.page.locator('[data-cell="3,4"]')).to_have_attribute(
        "aria-label", f"{grid.task}, {grid.layer}: {value:.2f}"
    )


def test_gallery_by_mouse_and_keyboard(mount: Callable[..., Page], things: tuple[Any, Any, Any]) -> None:
    network, masks, images = things
    gallery = widgets.unit_gallery(network, images, masks=masks, task="sneaker", count=6)
    page = mount("gallery", gallery)
    expect(page.page.locator("figure img")).to_have_count(6)
    expect(page.page.locator(".nadkit-outline")).to_have_count(6)
    name = gallery.state["offered"][3]
    page.page.get_by_role("button", name=name, exact=True).click()
    page.answer()
    assert gallery.unit == name
    index = page.page.get_by_role("spinbutton", name="Unit")
    index.fill("5")
    index.press("Enter")
    page.answer()
    assert gallery.unit == f"{name.split('/')[0]}/5"
    page.page.get_by_role("button", name="next unit").press("Enter")
    page.answer()
    assert gallery.unit == f"{name.split('/')[0]}/6"
    page.page.get_by_role("combobox", name="Layer").select_option("stage1.1")
    page.answer()
    assert gallery.unit == "stage1.1/0"
    page.page.get_by_role("combobox", name="Class").select_option("bag")
    page.answer()
    assert (gallery.task, gallery.unit) == ("bag", gallery.state["offered"][0])
    alt = page.page.locator("figure img").first.get_attribute("alt")
    assert alt is not None
    assert "response" in alt


def test_player_by_mouse_and_keyboard(mount: Callable[..., Page], things: tuple[Any, Any, Any]) -> None:
    network, masks, images = things
    player = widgets.mosaic_player(network, masks, images, task="sneaker")
    page = mount("player", player)
    layers = list(network.layers)
    page.page.get_by_role("button", name="next layer").click()
    page.answer()
    assert player.layer == layers[1]
    slider = page.page.get_by_role("slider", name="Layer")
    slider.press("End")
    page.answer()
    assert player.layer == layers[-1]
    slider.press("ArrowLeft")
    page.answer()
    assert player.layer == layers[-2]
    assert slider.get_attribute("aria-valuetext") == layers[-2]
    page.page.get_by_role("button", name="next mosaic").press("Enter")
    page.answer()
    assert player.mosaic == 1
    page.page.get_by_role("button", name="whole", exact=True).press(" ")
    page.answer()
    assert player.condition == "whole"
    shown = player.to_frame().query("layer == @player.layer and condition == 'whole'")["value"].item()
    expect(page.page.locator(".nadkit-sentence")).to_contain_text(f"whole {shown:.2f}; chance 0.25")
    expect(page.page.locator("canvas")).to_have_attribute("aria-label", player.state["map_alt"])


def test_bench_by_mouse_and_keyboard(mount: Callable[..., Page], things: tuple[Any, Any, Any]) -> None:
    network, masks, images = things
    bench = widgets.gate_bench(network, masks, images, task="sneaker")
    page = mount("bench", bench)
    names = [name for name, _, _ in bench.state["switches"]]
    switches = page.page.locator(".nadkit-bank button")
    # Three at once, before anything was answered: none is lost.
    for at in range(3):
        switches.nth(at).click()
    page.answer()
    assert set(bench.closed) == set(names[:3])
    expect(switches.nth(1)).to_have_attribute("aria-pressed", "false")
    switches.nth(2).press("ArrowRight")
    page.page.keyboard.press("Enter")
    page.answer()
    assert set(bench.closed) == set(names[:4])
    page.page.get_by_role("button", name="removed").click()
    page.answer()
    assert set(bench.closed) == {str(unit) for unit in masks.kept("sneaker")}
    expect(page.page.get_by_role("button", name="removed")).to_have_attribute("aria-pressed", "true")
    expect(page.page.locator("tbody tr").filter(has_text="sneaker")).to_contain_text("0.00 [0.00,")
    page.page.get_by_role("combobox", name="Pictures of").select_option("bag")
    page.answer()
    assert bench.pictures_of == "bag"


class Report:
    """Where a run stands, as `learn_masks` tells it."""

    def __init__(self, step: int, steps: int = 20) -> None:
        self.step, self.steps, self.tasks = step, steps, ("bag", "coat", "shirt")
        self.loss = [2.0 / (step + at) for at in range(3)]
        self.kept_share = [1 - 0.03 * step - 0.02 * at for at in range(3)]


def test_monitor_by_mouse_and_keyboard(mount: Callable[..., Page]) -> None:
    monitor = widgets.learning_monitor()
    page = mount("monitor", monitor)
    button = page.page.get_by_role("button", name="Stop")
    expect(button).to_be_disabled()
    for step in range(1, 13):
        monitor(Report(step))
    monitor._learner = -1  # as where the page is heard on another thread than the one that learns
    page.blank.put(state=monitor.state)
    expect(page.page.get_by_text("Step 12 of 20")).to_be_visible()
    page.answer()
    assert monitor._heard
    button.press("Enter")
    page.answer()
    assert monitor.stopped
    assert monitor(Report(13)) is True
    page.blank.put(state=monitor.state)
    expect(page.page.get_by_text("Stopped: the masks are as far")).to_be_visible()
    page.page.get_by_text("last report, task by task").press("Enter")
    expect(page.page.locator("tbody tr")).to_have_count(3)


SETUP = """
import nadkit as nk
network, masks = nk.load_network("resnet-fashion"), nk.load_masks("resnet-fashion")
images = nk.load_images("fashion", split="test", per_class=10)
train = nk.load_images("fashion", per_class=40)
"""
LEARN = """
learned = nk.learn_masks(
    network, train, tasks=["bag", "coat"], steps=1000, callback=monitor, progress=False
)
"""
LONG = LEARN.replace("steps=1000", "steps=700, checkpoint='heard.safetensors'")


def test_all_five_in_a_notebook(either: Lab, axe: Path, shots: Path) -> None:
    lab, page = either, either.page
    name = lab.write(
        SETUP,
        "grid = nk.widgets.layer_class_grid(masks)\ngrid",
        "gallery = nk.widgets.unit_gallery(network, images, masks=masks, task='sneaker')\ngallery",
        "player = nk.widgets.mosaic_player(network, masks, images, task='sneaker')\nplayer",
        "bench = nk.widgets.gate_bench(network, masks, images, task='sneaker')\nbench",
        "monitor = nk.widgets.learning_monitor()\nmonitor",
        LEARN,
    )
    lab.open(name)
    lab.inside("window.jupyterapp.commands.execute('notebook:run-all-cells')")  # the last cell runs on
    stop = lab.output(5).get_by_role("button", name="Stop")
    expect(stop).to_be_enabled(timeout=PATIENCE * 1000)
    stop.click()
    stopped = "Stopped: the masks are as far as they have come."
    expect(lab.output(5).locator(".nadkit").get_by_text(stopped)).to_be_visible(timeout=PATIENCE * 1000)
    lab.until("monitor.stopped", True)
    assert lab.py("int(monitor.history['step'].max())") < 1000
    assert lab.py("learned.tasks") == ["bag", "coat"]
    # Pictures follow the answers that the page asked for, each in its own output, where the widget hides it.
    lab.output(2).scroll_into_view_if_needed()
    expect(lab.output(2).locator(".nadkit-frame").first).to_be_visible(timeout=PATIENCE * 1000)
    for at, words in ((2, re.compile(r"most: \w+ [0-9.]+,")), (5, re.compile(stopped))):
        still = lab.output(at).locator("figure[class^=nadkit-still]")
        expect(still).to_have_count(1)
        expect(still).to_be_hidden()
        expect(still.locator("img")).to_have_attribute("alt", words)
    cells = lab.cells()

    lab.output(1).locator('[data-cell="1,2"]').click()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.press("b")  # in command mode: insert a cell
    lab.until("[grid.task, grid.layer]", lab.py("[masks.tasks[2], list(masks.unit_counts)[2]]"))

    expect(lab.output(2).locator(".nadkit figure img")).to_have_count(8)
    lab.output(2).get_by_role("button", name="next unit").click()
    lab.until("gallery.unit == gallery.state['offered'][0]", False)

    expect(lab.output(3).locator("canvas")).to_be_visible()
    lab.output(3).get_by_role("slider", name="Layer").press("End")
    lab.until("player.layer", "stage3.2")
    lab.do("player.condition = 'other'")
    expect(lab.output(3).get_by_role("button", name="other")).to_have_attribute("aria-pressed", "true")
    with pytest.raises(AssertionError, match="closest"):
        lab.do("player.layer = 'stage3.3'")

    expect(lab.output(4).locator("tbody tr")).to_have_count(10)
    lab.output(4).get_by_role("button", name="removed").click()
    lab.until("len(bench.closed)", 151)
    expect(lab.output(4).locator(".nadkit-sentence")).to_contain_text("answered right 0.00")
    assert lab.cells() == cells

    assert violations(page, axe, include=".jp-OutputArea-output", known=ALONE) == []
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        lab.theme(theme)
        for at, kind in enumerate(("grid", "gallery", "player", "bench", "monitor"), 1):
            which = f"{lab.path.split('/')[0]}_{theme.rsplit(maxsplit=1)[-1].lower()}"
            lab.output(at).screenshot(path=shots / f"lesson_{which}_{kind}.png")


def test_a_page_that_is_not_heard_says_to_interrupt(lab: Lab) -> None:
    """And after the interrupt the run goes on from its checkpoint, under the same monitor."""
    deaf = "monitor = nk.widgets.learning_monitor()\nmonitor._listen = lambda: None\nmonitor"
    lab.open(lab.write(SETUP, deaf, LONG))
    lab.inside("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    stop = lab.output(1).get_by_role("button", name="Stop")
    expect(stop).to_be_enabled(timeout=PATIENCE * 1000)
    expect(lab.output(1).get_by_text("Interrupt the kernel instead")).to_be_visible(timeout=PATIENCE * 1000)
    stop.click()
    lab.inside("await panel().sessionContext.session.kernel.interrupt()")
    for _ in range(100):  # what waits while a cell ends in an error is thrown away by the kernel
        try:
            lab.py("1")
            break
        except AssertionError:
            lab.page.wait_for_timeout(200)
    lab.until("'learned' in globals()", False)
    last = lab.py("int(monitor.history['step'].max())")
    assert 0 < last < 700
    # The press was read only now, when nothing learns any more; it must not stop the run that follows.
    assert lab.py("monitor.stopped") is False
    lab.do(LONG)
    assert lab.py("int(monitor.history['step'].max())") == 700
    assert lab.py("sorted(set(monitor.history['step']))[0]") < last
    assert lab.py("learned.history['step'].nunique() >= 20")
