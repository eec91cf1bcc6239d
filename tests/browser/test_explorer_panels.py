"""Each panel of the explorer alone in a blank page: what it draws, what it sends, who can use it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import Blank, expect, violations

import nadkit as nk
from nadkit.masks import MaskSet
from nadkit.widgets import Explorer
from nadkit.widgets.explorer import PANELS
from nadkit.widgets.panel import source

Mount = Callable[..., Blank]
STYLE = source("nadkit.css")
STRANGE = (
    'say "shirt"',
    "<img src=x onerror=alert(1)>",
    "tea & 'cake'",
    "ÄÖ 文字 🧥",
    "back\\slash",
    "long " * 40,
)
# Colours of JupyterLab's dark theme.
DARK = """() => {
  document.body.dataset.jpThemeLight = "false";
  const colours = { "content-font-color1": "#fff", "layout-color1": "#111", "layout-color2": "#212121",
    "border-color1": "#616161" };
  for (const [name, value] of Object.entries(colours)) document.body.style.setProperty(`--jp-${name}`, value);
  document.body.style.background = "#111"; document.body.style.color = "#fff";
}"""


@pytest.fixture(scope="module")
def explored() -> Explorer:
    """Everything about one class of the bundled network, with a picture that it gets wrong."""
    network, masks = nk.load_network("resnet-fashion"), nk.load_masks("resnet-fashion")
    images = nk.load_images("fashion", split="test", per_class=20)
    explorer = nk.explore(network, masks, images, task="coat", per_class=4)
    pictures = explorer.to_frame("pictures")
    explorer.image = int(pictures[pictures["answered"] != "coat"].iloc[0]["image"])
    explorer.other_task = "shirt"
    kept = explorer.to_frame().query("layer == 'stage3.2' and kept")
    explorer.unit = f"stage3.2/{kept.iloc[0]['index']}"
    explorer.wait(120)
    return explorer


@pytest.fixture(scope="module")
def drawn(explored: Explorer) -> dict[str, dict[str, dict[str, Any]]]:
    """States by scenario and panel."""
    subject = explored._subject
    found = {"everything": {kind: explored.panel(kind).state for kind in PANELS}}
    fresh = nk.explore(subject.network, subject.masks, subject.images)
    fresh.unit, fresh.image, fresh.matrix = "stage3.2/1", fresh._subject.rows[0], "accepted"
    found["nothing yet"] = {kind: fresh.panel(kind).state for kind in PANELS}
    found["under way"] = {
        kind: {**state, "working": "reading the links", "done": 0.4, "need": 0}
        for kind, state in found["everything"].items()
    }
    # What was known before is still drawn, and is known to be old.
    found["stale"] = {kind: {**state, "stale": True} for kind, state in found["under way"].items()}
    found["failed"] = {
        kind: {**state, "error": "RuntimeError: it fell over <b>\nand again"}
        for kind, state in found["everything"].items()
    }
    scores = {"<layer>": torch.rand(len(STRANGE), 6), 'a"b/c': torch.rand(len(STRANGE), 6)}
    odd = nk.explore(None, MaskSet.from_scores(scores, STRANGE))
    odd.task, odd.other_task, odd.unit = STRANGE[1], STRANGE[0], 'a"b/c/2'
    found["strange names"] = {kind: odd.panel(kind).state for kind in PANELS}
    none = nk.explore(None, MaskSet.from_scores({"x": torch.zeros(1, 3)}, ["one"]))
    found["one class that keeps nothing"] = {kind: none.panel(kind).state for kind in PANELS}
    return found


def mount(blank: Mount, kind: str, state: dict[str, Any]) -> Blank:
    return blank(source("shared.js", f"{kind}.js"), {"kind": kind, "state": state, "still": ""}, css=STYLE)


class Live:
    """A panel in a page, and an explorer that answers it as the kernel would."""

    def __init__(self, blank: Mount, explorer: Explorer, kind: str) -> None:
        self.explorer, self.panel = explorer, explorer.panel(kind)
        self.widget = mount(blank, kind, self.panel.state)
        self.page, self.heard = self.widget.page, 0

    def answer(self) -> list[dict[str, Any]]:
        """Do what the page asked for since the last time, and show it what came of it."""
        new = self.widget.sent()[self.heard :]
        self.heard += len(new)
        for content in new:
            if content["do"] == "set":
                self.panel._handle_custom_msg(content, [])
            self.widget.put(state=self.panel.state)
            self.widget.receive({"do": "done"})
        return new

    def key(self) -> str | None:
        """What has the focus."""
        return self.page.evaluate("document.activeElement.dataset.key ?? null")


@pytest.fixture
def plain() -> Explorer:
    """Masks by hand; φ of a and b is 1 in "one", of a and c -1."""
    rows = torch.tensor([[1.0, 0, 1, 0, 1], [1, 0, 1, 0, 1], [0, 1, 0, 1, 0]])
    other = torch.tensor([[0.0, 0.9, 0.2, 0.8], [1, 1, 0, 0], [0, 0, 0, 1]])
    return nk.explore(None, MaskSet.from_scores({"one": rows, "two": other}, ["apple", "banana", "cherry"]))


# Who can use it


@pytest.mark.parametrize("kind", PANELS)
def test_axe_finds_nothing(blank: Mount, axe: Path, shots: Path, drawn: Any, kind: str) -> None:
    widget = mount(blank, kind, drawn["everything"][kind])
    page, found = widget.page, {}
    # A panel's title is of the third level, below the headings of a notebook.
    page.evaluate("document.querySelector('h1').insertAdjacentHTML('afterend', '<h2>cell</h2>')")
    for name, states in drawn.items():
        widget.put(state=states[kind])
        page.wait_for_timeout(50)
        found[name] = violations(page, axe, include="#root")
    widget.put(state=drawn["everything"][kind])
    page.screenshot(path=shots / f"panel_{kind}.png", full_page=True)
    page.evaluate(DARK)
    for name in ("everything", "stale", "failed", "strange names"):
        widget.put(state=drawn[name][kind])
        found[f"{name}, dark"] = violations(page, axe, include="#root")
    widget.put(state=drawn["everything"][kind])
    page.screenshot(path=shots / f"panel_{kind}_dark.png", full_page=True)
    assert [f"{name}: {fault}" for name, faults in found.items() for fault in faults] == []


@pytest.mark.parametrize("kind", PANELS)
def test_what_takes_the_focus_keeps_its_keys(blank: Mount, drawn: Any, kind: str) -> None:
    """Letters reach no listener of the page, and every element says so to Notebook 7."""
    widget = mount(blank, kind, drawn["everything"][kind])
    page = widget.page
    page.evaluate("window.keys = []; document.addEventListener('keydown', e => keys.push(e.key))")
    places = page.locator("#root :is(input, button, [tabindex])")
    bare = places.evaluate_all("all => all.filter(x => !x.hasAttribute('data-lm-suppress-shortcuts')).length")
    assert bare == 0
    count = places.evaluate_all("all => all.filter(x => x.tabIndex >= 0).length")
    for at in range(min(count, 6)):
        places.evaluate_all("(all, at) => all.filter(x => x.tabIndex >= 0)[at].focus()", at)
        for key in ("b", "x", "d", "d", "Escape"):
            page.keyboard.press(key)
        assert page.evaluate("keys.splice(0)") in (["Escape"], []), at
    if count == 0:
        assert kind in ("unit", "evidence")


@pytest.mark.parametrize("kind", PANELS)
def test_names_and_errors_are_text_and_never_markup(blank: Mount, drawn: Any, kind: str) -> None:
    widget = mount(blank, kind, drawn["strange names"][kind])
    page = widget.page
    assert page.locator("#root img[src=x], #root b").count() == 0
    widget.put(state=drawn["failed"][kind])
    alert = page.get_by_role("alert")
    expect(alert).to_have_text("RuntimeError: it fell over <b>\nand again", use_inner_text=True)
    widget.put(state=drawn["everything"][kind])
    expect(alert).to_be_hidden()


@pytest.mark.parametrize("kind", PANELS)
def test_nothing_is_left_after_the_panel(blank: Mount, drawn: Any, kind: str) -> None:
    widget = mount(blank, kind, {**drawn["nothing yet"][kind], "need": 7})
    assert sorted(widget.listeners()) == ["change:state", "msg:custom"]
    widget.show()
    widget.cleanup()
    assert widget.listeners() == []
    widget.page.wait_for_timeout(400)
    assert widget.sent() == []  # the wish that had been made is not sent any more


def test_a_state_that_cannot_be_drawn_is_told(blank: Mount, drawn: Any) -> None:
    widget = mount(blank, "matrix", {**drawn["everything"]["matrix"], "values": None})
    expect(widget.page.get_by_role("alert")).to_contain_text("This panel could not be drawn: TypeError")
    widget.put(state=drawn["everything"]["matrix"])
    expect(widget.page.get_by_role("alert")).to_be_hidden()


def test_the_static_picture_is_hidden_while_the_widget_lives(blank: Mount, plain: Explorer) -> None:
    state = {"kind": "controls", "state": plain.panel("controls").state, "still": "abc"}
    widget = blank(source("shared.js", "controls.js"), state, css=STYLE)
    widget.page.evaluate("""() => document.body.insertAdjacentHTML('beforeend',
        '<figure class="nadkit-still-abc">gone</figure><figure class="nadkit-still-xyz">stays</figure>')""")
    expect(widget.page.get_by_text("gone")).to_be_hidden()
    expect(widget.page.get_by_text("stays")).to_be_visible()
    widget.page.evaluate("document.querySelector('#root').replaceChildren()")
    expect(widget.page.get_by_text("gone")).to_be_visible()


# Work is asked for where it is seen


def test_work_is_asked_for_once(blank: Mount, drawn: Any) -> None:
    state = drawn["nothing yet"]["pictures"]
    assert state["need"]
    widget = mount(blank, "pictures", state)
    page = widget.page
    for _ in range(3):
        page.wait_for_timeout(250)
        widget.put(state={**state, "note": f"drawn again {_}"})
    assert widget.sent() == [{"do": "work"}]
    widget.put(state={**state, "need": 0, "working": "reading", "done": 0.25})
    expect(page.locator("progress")).to_have_attribute("value", "0.25")
    expect(page.get_by_role("status")).to_contain_text("reading")
    expect(page.locator("section")).to_have_class("nadkit nadkit-pictures nadkit-stale")
    widget.put(state={**state, "need": state["need"] + 1})
    page.wait_for_timeout(400)
    assert widget.sent() == [{"do": "work"}] * 2
    # A change at once after another asks for the last alone.
    for more in (2, 3, 4):
        widget.put(state={**state, "need": state["need"] + more})
    page.wait_for_timeout(400)
    assert widget.sent() == [{"do": "work"}] * 3
    widget.put(state=drawn["everything"]["pictures"])
    expect(page.locator("progress")).to_be_hidden()
    expect(page.locator("section")).to_have_class("nadkit nadkit-pictures")


def test_a_wish_is_told_again_when_the_choice_went_and_came_back(blank: Mount, drawn: Any) -> None:
    """Python forgets what was wanted with every other choice."""
    state = drawn["nothing yet"]["pictures"]
    widget = mount(blank, "pictures", {**state, "stamp": "a", "need": 7})
    widget.page.wait_for_timeout(400)
    assert widget.sent() == [{"do": "work"}]
    widget.put(state={**state, "stamp": "b", "need": 8})
    widget.put(state={**state, "stamp": "a", "need": 7})
    widget.page.wait_for_timeout(400)
    assert widget.sent() == [{"do": "work"}] * 2


def test_progress_comes_by_message_and_the_clock_goes_on(blank: Mount, drawn: Any) -> None:
    state = {**drawn["nothing yet"]["pictures"], "need": 0, "working": "reading", "done": 0}
    widget = mount(blank, "pictures", state)
    page = widget.page
    for done in (0.25, 0.5):
        widget.receive({"do": "progress", "done": done})
        expect(page.locator("progress")).to_have_attribute("value", str(done))
    seconds = re.compile(r"reading [1-9]\d* s")
    expect(page.get_by_role("status")).to_contain_text(seconds)
    widget.put(state={**state, "note": "drawn again"})  # the time is that of the work, not of the drawing
    assert seconds.search(page.get_by_role("status").inner_text())
    widget.put(state={**state, "working": ""})
    widget.receive({"do": "progress", "done": 0.75})
    expect(page.locator("progress")).to_be_hidden()


def test_a_half_is_chance_for_some_metrics_only(blank: Mount, drawn: Any) -> None:
    state = drawn["everything"]["evidence"]
    widget = mount(blank, "evidence", {**state, "metric": "auroc"})
    expect(widget.page.locator(".nadkit-chance")).to_have_count(1)
    widget.put(state={**state, "metric": "recall"})
    expect(widget.page.locator(".nadkit-chance")).to_have_count(0)


def test_the_mark_with_the_focus_is_on_a_zoomed_map(blank: Mount, drawn: Any) -> None:
    widget = mount(blank, "map", drawn["everything"]["map"])
    page = widget.page
    page.locator("svg.nadkit-plot [tabindex='0'][data-key*='/']").first.focus()
    for _ in range(6):
        page.keyboard.press("+")
    for key in ["ArrowDown"] * 4 + ["ArrowRight"] * 4 + ["ArrowUp"] * 3 + ["ArrowLeft"] * 2:
        page.keyboard.press(key)
        inside = page.evaluate("""() => {
            const mark = document.activeElement.getBoundingClientRect();
            const box = document.querySelector('svg.nadkit-plot').getBoundingClientRect();
            return mark.left >= box.left && mark.right <= box.right
                && mark.top >= box.top && mark.bottom <= box.bottom;
        }""")
        assert inside, key


def test_no_work_is_asked_for_where_nobody_looks(blank: Mount, drawn: Any) -> None:
    widget = mount(blank, "evidence", {**drawn["nothing yet"]["evidence"], "need": 0})
    page = widget.page
    page.evaluate("document.querySelector('#root').style.marginTop = '5000px'")
    page.wait_for_timeout(100)
    widget.put(state=drawn["nothing yet"]["evidence"])
    page.wait_for_timeout(500)
    assert widget.sent() == []
    page.locator("section").scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    assert widget.sent() == [{"do": "work"}]


# Controls


def test_a_class_is_chosen_by_keys(blank: Mount, explored: Explorer) -> None:
    subject = explored._subject
    live = Live(blank, nk.explore(None, subject.masks, task="shirt"), "controls")
    page, field = live.page, live.page.get_by_role("combobox", name="Class")
    options = page.get_by_role("listbox", name="Class: names").get_by_role("option")
    field.focus()
    page.keyboard.press("ArrowDown")
    assert options.all_inner_texts() == list(subject.masks.tasks)
    expect(page.get_by_role("option", selected=True)).to_have_text("shirt")
    page.keyboard.press("Escape")
    expect(options.first).to_be_hidden()
    expect(field).to_have_value("shirt")
    expect(field).to_be_focused()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("ANK")
    assert options.all_inner_texts() == ["ankle boot"]
    expect(field).to_have_attribute("aria-expanded", "true")
    active = field.get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").inner_text() == "ankle boot"
    page.keyboard.press("Enter")
    assert live.answer() == [{"do": "set", "name": "task", "value": "ankle boot"}]
    assert live.explorer.task == "ankle boot"
    expect(field).to_have_value("ankle boot")
    expect(field).to_be_focused()
    expect(page.locator("section")).to_have_attribute("data-stamp", live.explorer.choice.stamp)
    expect(page.locator(".nadkit-summary")).to_contain_text("ankle boot keeps")


def test_names_that_begin_as_typed_come_first(blank: Mount, explored: Explorer) -> None:
    live = Live(blank, nk.explore(None, explored._subject.masks, task="bag"), "controls")
    page, field = live.page, live.page.get_by_role("combobox", name="Class")
    options = page.get_by_role("listbox", name="Class: names").get_by_role("option")
    field.click()
    page.keyboard.type("shirt")
    texts = options.all_inner_texts()
    assert texts[0] == "shirt"
    assert len(texts) == 2  # the T-shirt comes after
    page.keyboard.press("ArrowUp")
    assert page.get_by_role("option", selected=True).inner_text() == texts[1]
    page.keyboard.press("ArrowDown")
    assert page.get_by_role("option", selected=True).inner_text() == "shirt"
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("nothing like it")
    expect(options).to_have_text(["nothing of that name"])
    page.keyboard.press("Enter")
    assert live.answer() == []
    page.keyboard.press("Tab")
    expect(field).to_have_value("bag")


def test_what_is_being_typed_is_not_overwritten(blank: Mount, plain: Explorer) -> None:
    live = Live(blank, plain, "controls")
    field = live.page.get_by_role("combobox", name="Layer")
    field.click()
    live.page.keyboard.type("on")
    plain.threshold = 0.85
    live.widget.put(state=live.panel.state)
    expect(field).to_have_value("on")
    expect(field).to_be_focused()


def test_controls_by_mouse(blank: Mount, plain: Explorer) -> None:
    live = Live(blank, plain, "controls")
    page = live.page
    page.get_by_role("button", name="show the list: Layer").click()
    page.get_by_role("option", name="one", exact=True).click()
    page.get_by_role("combobox", name="Compare with").click()
    assert page.get_by_role("listbox", name="Compare with: names").get_by_role(
        "option"
    ).all_inner_texts() == [
        "(none)",
        "banana",
        "cherry",
    ]
    live.answer()
    page.get_by_role("option", name="cherry").click()
    live.answer()
    page.get_by_role("radio", name="removed").click()
    live.answer()
    assert (plain.layer, plain.other_task, plain.condition) == ("one", "cherry", "removed")
    expect(page.get_by_role("radio", name="removed")).to_be_checked()
    page.get_by_role("combobox", name="Compare with").click()
    page.get_by_role("option", name="(none)").click()
    live.answer()
    assert plain.other_task == ""
    box = page.get_by_role("slider").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    live.answer()
    assert plain.threshold > 0.9


def test_of_many_slides_the_last_is_sent_once_the_first_is_answered(blank: Mount, plain: Explorer) -> None:
    live = Live(blank, plain, "controls")
    slider = live.page.get_by_role("slider", name="Threshold")
    slider.focus()
    for _ in range(5):
        live.page.keyboard.press("ArrowRight")
    assert live.widget.sent() == [{"do": "set", "name": "threshold", "value": 0.51}]
    expect(live.page.locator("output")).to_have_text("0.55")
    live.answer()
    expect(slider).to_have_value("0.55")  # the answer to 0.51 does not pull the handle back
    assert live.answer() == [{"do": "set", "name": "threshold", "value": 0.55}]
    assert live.answer() == []
    assert plain.threshold == 0.55
    expect(slider).to_be_focused()
    plain.threshold = 0.2
    live.widget.put(state=live.panel.state)
    expect(slider).to_have_value("0.2")


def test_a_kernel_that_never_answers_does_not_lock_the_page(blank: Mount, plain: Explorer) -> None:
    live = Live(blank, plain, "controls")
    live.page.get_by_role("slider").focus()
    for _ in range(2):
        live.page.keyboard.press("ArrowRight")
    assert len(live.widget.sent()) == 1
    live.page.wait_for_timeout(3300)
    assert [one["value"] for one in live.widget.sent()] == [0.51, 0.52]


def test_a_list_of_a_thousand_names_is_searched(blank: Mount) -> None:
    names = [f"class number {at}" for at in range(1000)]
    live = Live(blank, nk.explore(None, MaskSet.from_scores({"x": torch.rand(1000, 4)}, names)), "controls")
    live.page.get_by_role("combobox", name="Class").click()
    options = live.page.get_by_role("listbox", name="Class: names").get_by_role("option")
    assert options.count() == 61
    expect(options.last).to_have_text("940 more: type to search")
    live.page.keyboard.type("number 777")
    live.page.keyboard.press("Enter")
    live.answer()
    assert live.explorer.task == "class number 777"


# The map


def test_units_and_layers_by_mouse(blank: Mount, plain: Explorer) -> None:
    live = Live(blank, plain, "map")
    page = live.page
    unit = page.get_by_role("button", name="two/3, score 0.80")
    unit.hover()
    expect(page.locator(".nadkit-tip")).to_have_text("two/3, score 0.80, kept by apple, kept by 2 of 3")
    unit.click()
    assert live.answer() == [{"do": "set", "name": "unit", "value": "two/3"}]
    expect(unit).to_have_attribute("aria-pressed", "true")
    expect(unit).to_be_focused()
    layer = page.get_by_role("button", name="layer one: 3 of 5 units kept")
    layer.click()
    assert live.answer() == [{"do": "set", "name": "layer", "value": "one"}]
    assert (plain.layer, plain.unit) == ("one", "")
    expect(layer).to_have_attribute("aria-pressed", "true")
    expect(unit).to_have_attribute("aria-pressed", "false")
    page.mouse.move(1, 1)
    page.locator("h1").click()
    expect(page.locator(".nadkit-tip")).to_be_hidden()


def test_the_map_says_what_each_unit_is_by_shape_and_by_words(blank: Mount, plain: Explorer) -> None:
    plain.other_task = "cherry"
    live = Live(blank, plain, "map")
    marks = live.page.locator("path.nadkit-mark[data-at]")
    names = marks.evaluate_all("all => all.map(x => [x.dataset.key, x.getAttribute('aria-label')])")
    words = dict(names)
    assert "kept by apple" in words["two/1"]
    assert "kept by both" in words["two/3"]
    assert "kept by cherry, not by apple" in words["one/1"]
    assert "removed by apple" in words["two/0"]
    assert "closed (kept)" in words["one/1"]
    shapes = {name: live.page.locator(f'[data-key="{name}"]').get_attribute("d") for name in words}
    assert len({shapes["two/0"], shapes["two/1"], shapes["two/3"], shapes["one/1"]}) == 4


def test_the_map_by_arrow_keys(blank: Mount, plain: Explorer) -> None:
    live = Live(blank, plain, "map")
    page = live.page
    stops = page.locator(".nadkit-mark[tabindex='0']")
    assert stops.count() == 1  # one stop for all marks
    stops.focus()
    assert live.key() == "one/0"
    expect(page.locator(".nadkit-tip")).to_contain_text("one/0")
    way = {"ArrowDown": ["one/2", "one/4", "one/4"], "ArrowUp": ["one/2", "one/0"]}
    for key, at in ((key, at) for key, places in way.items() for at in places):
        page.keyboard.press(key)
        assert live.key() == at  # units that are not kept are passed over
    page.keyboard.press("ArrowRight")
    assert live.key() == "two/1"
    page.keyboard.press("ArrowLeft")
    assert live.key() in ("one/0", "one/2")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    live.answer()
    assert plain.unit == "two/1"
    assert live.key() == "two/1"
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    live.answer()
    assert plain.unit == "two/3"
    page.keyboard.press("Shift+Tab")
    assert live.key() == "layer-two"
    page.keyboard.press("ArrowLeft")
    assert live.key() == "layer-one"
    page.keyboard.press("Enter")
    live.answer()
    assert plain.layer == "one"
    assert live.key() == "layer-one"


def test_the_focus_stays_where_it_was_when_the_map_is_made_anew(blank: Mount) -> None:
    scores = {"wide": torch.rand(2, 1400), "next": torch.rand(2, 300)}
    live = Live(blank, nk.explore(None, MaskSet.from_scores(scores, ["a", "b"]), layer="next"), "map")
    live.page.locator("[data-key='layer-wide']").focus()
    live.page.keyboard.press("Enter")
    live.answer()
    assert live.page.locator("path.nadkit-mark[data-at]").count() == 600
    assert live.key() == "layer-wide"


def transform(live: Live) -> tuple[float, float, float]:
    """Where the map was moved to, and how much larger it is."""
    found = live.page.evaluate("""(() => {
        const matrix = document.querySelector(".nadkit-plot > g").transform.baseVal.consolidate()?.matrix;
        return matrix ? [matrix.e, matrix.f, matrix.a] : [0, 0, 1]; })()""")
    return tuple(found)


def test_zoom_and_pan(blank: Mount, plain: Explorer) -> None:
    live = Live(blank, plain, "map")
    page = live.page
    page.locator(".nadkit-mark[tabindex='0']").focus()
    page.keyboard.press("+")
    assert transform(live)[2] == 1.5
    page.keyboard.press("-")
    page.keyboard.press("-")
    assert transform(live) == (0, 0, 1)  # not smaller than whole
    page.get_by_role("button", name="zoom in").click()
    page.get_by_role("button", name="zoom in").click()
    x, y, k = transform(live)
    assert k == 2.25
    box = page.locator(".nadkit-plot").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    # On a mark, so that the drag ends on it, too.
    boxes = [mark.bounding_box() for mark in page.locator("path.nadkit-mark[data-at]").all()]
    spots = [(one["x"] + one["width"] / 2, one["y"] + one["height"] / 2) for one in boxes]
    middle = min(spots, key=lambda spot: abs(spot[0] - middle[0]) + abs(spot[1] - middle[1]))
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 30, steps=4)
    page.mouse.up()
    moved = transform(live)
    assert moved[2] == k
    assert moved[0] > x
    assert moved[1] > y
    assert live.widget.sent() == []  # a drag chooses nothing
    page.get_by_role("button", name="whole map").click()
    assert transform(live) == (0, 0, 1)
    page.mouse.move(*middle)
    page.mouse.wheel(0, -300)
    assert transform(live) == (0, 0, 1)  # the page scrolls
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    expect(page.locator(".nadkit-plot > g")).not_to_have_attribute("transform", "translate(0 0) scale(1)")
    page.keyboard.press("0")


def test_keys_of_the_browser_are_left_to_it(blank: Mount, plain: Explorer) -> None:
    """With Control, + and - make the page larger and smaller; who needs that needs it here, too."""
    live = Live(blank, plain, "map")
    live.page.locator(".nadkit-mark[tabindex='0']").focus()
    prevented = live.page.evaluate("""() => ["+", "-", "0", "ArrowLeft"].map((key) => {
        const event = new KeyboardEvent("keydown", { key, ctrlKey: true, bubbles: true, cancelable: true });
        document.activeElement.dispatchEvent(event);
        return event.defaultPrevented; })""")
    assert prevented == [False] * 4
    assert transform(live) == (0, 0, 1)


def test_links_of_the_chosen_unit_are_drawn_with_their_sign(blank: Mount, drawn: Any) -> None:
    state = drawn["everything"]["map"]
    widget = mount(blank, "map", state)
    takes, adds = (widget.page.locator(f".nadkit-links .nadkit-{kind}") for kind in ("takes", "adds"))
    assert takes.count() == sum(link[-1] < 0 for link in state["links"])
    assert adds.count() == sum(link[-1] > 0 for link in state["links"])
    assert takes.count() + adds.count() > 3
    expect(widget.page.locator(".nadkit-legend")).to_contain_text("link that takes away")
    widget.put(state={**state, "links": []})
    assert takes.count() + adds.count() == 0


# The matrix


def test_the_matrix_by_arrow_keys(blank: Mount, plain: Explorer) -> None:
    plain.layer = "one"
    live = Live(blank, plain, "matrix")
    page = live.page
    stop = page.locator("[role=gridcell][tabindex='0']")
    assert stop.count() == 1
    stop.focus()
    assert live.key() == "cell-0,0"
    keys = ["ArrowRight", "ArrowDown", "End", "ArrowRight", "Home", "ArrowUp", "ArrowLeft", "End"]
    for key, at in zip(keys, ("0,1", "1,1", "1,2", "1,2", "1,0", "0,0", "0,0", "0,2"), strict=True):
        page.keyboard.press(key)
        assert live.key() == f"cell-{at}", key
    expect(page.get_by_role("gridcell", name="apple, cherry: -1.00")).to_be_focused()
    page.keyboard.press("Enter")
    assert live.answer() == [{"do": "set", "name": "pair", "value": ["apple", "cherry"]}]
    assert (plain.task, plain.other_task) == ("apple", "cherry")
    assert live.key() == "cell-0,2"
    expect(page.get_by_role("gridcell", selected=True)).to_have_attribute("data-cell", "0,2")
    assert stop.count() == 1
    expect(page.locator(".nadkit-pair")).to_contain_text("apple and cherry share 0 units in one")


def test_the_matrix_by_mouse(blank: Mount, plain: Explorer) -> None:
    plain.layer = "one"
    live = Live(blank, plain, "matrix")
    page = live.page
    cell = page.get_by_role("gridcell", name="cherry, banana: -1.00")
    expect(cell.locator("text")).to_have_text("−1.00")  # the sign is shown by more than colour
    cell.click()
    live.answer()
    assert (plain.task, plain.other_task) == ("cherry", "banana")
    page.get_by_role("button", name="one/1: score").click()
    live.answer()
    assert plain.unit == "one/1"
    page.get_by_role("button", name="Jaccard in this layer").click()
    live.answer()
    assert plain.matrix == "jaccard"
    expect(page.get_by_role("button", name="Jaccard in this layer")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="Jaccard in this layer")).to_be_focused()
    expect(page.get_by_role("gridcell", name="apple, banana: 1.00")).to_be_visible()


# Unit, evidence, pictures


def test_a_unit_leads_to_others_and_to_classes(blank: Mount, drawn: Any) -> None:
    state = drawn["everything"]["unit"]
    widget = mount(blank, "unit", state)
    page = widget.page
    name = next(name for name, *_, unit in state["into"] if unit)
    page.get_by_role("button", name=name, exact=True).click()
    task, score = state["tasks"][0]
    widget.receive({"do": "done"})
    page.get_by_role("button", name=f"{task} {score:.2f}").focus()
    page.keyboard.press("Enter")
    assert widget.sent() == [
        {"do": "set", "name": "unit", "value": name},
        {"do": "set", "name": "task", "value": task},
    ]
    assert page.locator("figure img").count() == len(state["pictures"])
    outlines = page.locator(".nadkit-outline")
    assert outlines.count() == sum(one["box"] is not None for one in state["pictures"])
    left = state["pictures"][0]["box"][0]
    assert outlines.first.evaluate("x => parseFloat(x.style.left) / 100") == pytest.approx(left, abs=1e-3)


def test_evidence_is_drawn_where_its_numbers_are(blank: Mount, drawn: Any) -> None:
    state = drawn["everything"]["evidence"]
    widget = mount(blank, "evidence", state)
    page = widget.page
    kept = next(row for row in state["rows"] if row["name"] == "kept")
    dot = page.locator("path.nadkit-dot.nadkit-is-kept")
    x = dot.evaluate("x => x.transform.baseVal.consolidate().matrix.e")
    ticks = (page.locator("svg text", has_text=tick) for tick in ("0.5", "0.25"))
    half, one = (tick.first.evaluate("x => x.x.baseVal[0].value") for tick in ticks)
    scale = (half - one) / 0.25
    assert x == pytest.approx(half + scale * (kept["value"] - 0.5), abs=0.5)
    expect(page.get_by_role("img", name="kept")).to_have_attribute("aria-label", state["summary"])
    page.get_by_role("button", name="recall").click()
    assert widget.sent() == [{"do": "set", "name": "metric", "value": "recall"}]


def test_pictures_are_chosen_by_mouse_and_keys(blank: Mount, drawn: Any) -> None:
    state = drawn["everything"]["pictures"]
    widget = mount(blank, "pictures", state)
    page = widget.page
    first = state["strips"][0][1][0]
    page.get_by_role("button", name=first["alt"], exact=True).click()
    widget.receive({"do": "done"})
    page.keyboard.press("Tab")
    second = state["strips"][0][1][1]
    expect(page.get_by_role("button", name=second["alt"], exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    assert [one["value"] for one in widget.sent()] == [first["index"], second["index"]]
    widget.receive({"do": "done"})
    # What did not change is not drawn anew, and the focus stays where it is.
    page.evaluate("document.activeElement.mark = 1")
    widget.put(state={**state, "note": "more"})
    assert page.evaluate("document.activeElement.mark") == 1
    widget.put(state={**state, "image": second["index"]})
    expect(page.get_by_role("button", name=second["alt"], exact=True)).to_be_focused()
    assert page.evaluate("document.activeElement.mark") is None


def test_a_wrong_picture_shows_why(blank: Mount, drawn: Any) -> None:
    state = drawn["everything"]["pictures"]
    chosen = state["chosen"]
    widget = mount(blank, "pictures", state)
    page = widget.page
    expect(page.get_by_role("heading", name=chosen["why_title"])).to_be_visible()
    expect(page.get_by_text(chosen["why"])).to_be_visible()
    assert page.locator("canvas.nadkit-heat").count() == len(chosen["maps"]) > 1
    brightest = page.locator("canvas.nadkit-heat").first.evaluate("""x => {
        const [w, h] = [x.width, x.height], data = x.getContext("2d").getImageData(0, 0, w, h).data;
        let best = 0;
        for (let i = 0; i < w * h; i++) if (data[4 * i] > data[4 * best]) best = i;
        return [Math.floor(best / w) + 1, best % w + 1]; }""")
    assert f"row {brightest[0]} of" in chosen["maps"][0]["alt"]
    assert f"column {brightest[1]} of" in chosen["maps"][0]["alt"]
    head = page.get_by_role("columnheader").all_inner_texts()
    assert head == ["class", *chosen["scores"]["heads"]]
    assert page.get_by_role("row").count() == 1 + len(chosen["scores"]["rows"])
    page.get_by_role("button", name=f"compare {chosen['task']} with {chosen['other']} on the map").click()
    pair = [chosen["task"], chosen["other"]]
    assert widget.sent() == [{"do": "set", "name": "pair", "value": pair}]
