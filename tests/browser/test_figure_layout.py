"""Where the words of figures stand once plotly has drawn them: nothing is cut, nothing lies on others."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from drawings import drawings
from pages import watched_page

from nadkit import figures
from nadkit.figures._marks import NARROW

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Boxes of a drawn figure, from its upper left corner. Legends' entries come beside their legend's box, since
# plotly cuts what is too wide for it.
BOXES = """async ([data, layout, width]) => {
  document.body.innerHTML = "<div id='figure'></div>";
  const figure = document.getElementById("figure");
  Object.assign(figure.style, {width: `${width}px`, height: `${layout.height}px`});
  await Plotly.newPlot(figure, data, layout, {responsive: true, displayModeBar: false});
  const corner = figure.getBoundingClientRect(), found = [];
  const note = (kind, element) => {
    const box = element.getBoundingClientRect();
    const turned = /rotate\\(-?[1-9]/.test(element.getAttribute("transform") || "");
    if (box.width && box.height)
      found.push([kind, (element.textContent || kind).slice(0, 60), turned,
        box.left - corner.left, box.top - corner.top, box.right - corner.left, box.bottom - corner.top]);
  };
  const all = (kind, query) => figure.querySelectorAll(query).forEach((element) => note(kind, element));
  all("title", ".gtitle");
  all("legend", ".infolayer > g[class^='legend'] > .bg");
  all("entry", ".infolayer > g[class^='legend'] :is(.legendtext, .legendtitletext)");
  all("axis title", ".infolayer > g[class*='title']:not([class*='gtitle']) > text");
  all("annotation", ".annotation-text-g");
  all("tick", ":is(.xaxislayer-above, .yaxislayer-above) text");
  all("scale", ".colorbar");
  for (const {xaxis, yaxis} of Object.values(figure._fullLayout._plots)) {
    const [left, top] = [xaxis._offset, yaxis._offset];
    found.push(["panel", "panel", false, left, top, left + xaxis._length, top + yaxis._length]);
  }
  return found;
}"""
APART = {
    frozenset(pair)
    for pair in (
        *itertools.combinations(("title", "legend", "axis title", "tick", "scale"), 2),
        *itertools.product(("title", "legend", "axis title", "scale"), ("panel", "annotation")),
        *((kind,) for kind in ("legend", "axis title", "tick")),
    )
}
"""Kinds of boxes that may not meet."""

SLACK = 1.5


class Box(NamedTuple):
    """What stands in a rectangle, in pixels."""

    kind: str
    words: str
    turned: bool
    left: float
    top: float
    right: float
    bottom: float


def meet(one: Box, other: Box) -> bool:
    if one.kind == other.kind == "tick" and one.turned:
        return False  # the boxes of slanted words meet where the words do not
    return (
        min(one.right, other.right) - max(one.left, other.left) > SLACK
        and min(one.bottom, other.bottom) - max(one.top, other.top) > SLACK
    )


def inside(box: Box, outer: tuple[float, float, float, float]) -> bool:
    left, top, right, bottom = outer
    return (
        box.left >= left - SLACK
        and box.top >= top - SLACK
        and box.right <= right + SLACK
        and box.bottom <= bottom + SLACK
    )


def faults(boxes: list[Box], width: float, height: float) -> list[str]:
    """What is cut or covered, in words."""
    said = [f"{b.kind} {b.words!r} is cut: {b[3:]}" for b in boxes if not inside(b, (0, 0, width, height))]
    for one, other in itertools.combinations([box for box in boxes if box.kind != "entry"], 2):
        if frozenset((one.kind, other.kind)) in APART and meet(one, other):
            said.append(f"{one.kind} {one.words!r} lies on {other.kind} {other.words!r}")
    legends = [box[3:] for box in boxes if box.kind == "legend"]
    entries = [box for box in boxes if box.kind == "entry"]
    said += [f"{b.words!r} is out of its legend" for b in entries if not any(inside(b, at) for at in legends)]
    return said


@pytest.fixture(scope="module")
def drawn() -> dict[str, Any]:
    return {name: json.loads(figure.to_json()) for name, figure in drawings().items()}


@pytest.fixture(scope="module")
def page(chromium: Browser) -> Iterator[Page]:
    with watched_page(chromium, "about:") as page:
        page.set_content("<!doctype html><style>body { margin: 0 }</style>")
        page.add_script_tag(path=str(resources.files("plotly") / "package_data" / "plotly.min.js"))
        yield page


def boxes_of(page: Page, figure: dict[str, Any], width: int) -> list[Box]:
    found = page.evaluate(BOXES, [figure["data"], figure["layout"], width])
    return [Box(*row) for row in found]


@pytest.mark.parametrize("width", [NARROW, 760, 1000])
def test_nothing_is_cut_or_covered(page: Page, drawn: dict[str, Any], shots: Path, width: int) -> None:
    assert {name.split()[0].strip(",") for name in drawn} == set(figures.__all__) - {"MARKS", "Mark"}
    wrong = {}
    for name, figure in drawn.items():
        boxes = boxes_of(page, figure, width)
        assert {"title", "tick"} <= {box.kind for box in boxes} or name == "pictures"
        page.locator("#figure").screenshot(path=shots / f"figure-{name}-{width}.png")
        if said := faults(boxes, width, figure["layout"]["height"]):
            wrong[name] = said
    assert not wrong, json.dumps(wrong, indent=1, ensure_ascii=False)


def test_what_is_cut_or_covered_is_found(page: Page, drawn: dict[str, Any]) -> None:
    units = json.loads(json.dumps(drawn["units of two"]))
    units["layout"]["legend"] = {"orientation": "h", "y": -0.12}  # as it was
    said = faults(boxes_of(page, units, NARROW), NARROW, units["layout"]["height"])
    assert any("legend" in fault and "axis title 'layer'" in fault for fault in said)
    flow = json.loads(json.dumps(drawn["flow"]))
    flow["layout"]["legend2"]["title"]["side"] = "left"
    assert any("is cut" in fault for fault in faults(boxes_of(page, flow, NARROW), NARROW, 2000))
    flow["layout"]["title"]["text"] = "a title of one long line that is not broken " * 3
    assert any("title 'a title" in fault for fault in faults(boxes_of(page, flow, NARROW), NARROW, 2000))
