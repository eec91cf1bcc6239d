"""Static pictures of widgets: they draw what the widget shows, follow its answers, and stay small."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import hand
import nbformat
import pytest
import torch
from PIL import Image
from test_notebooks import execute, notebook_of, shapes_of, undrawn_widgets

import nadkit as nk
from nadkit import widgets
from nadkit.figures._png import png_uri
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.widgets import Explorer
from nadkit.widgets import still as still_module
from nadkit.widgets.explorer import PANELS
from nadkit.widgets.still import Still
from nadkit.widgets.stills import photos, svg
from nadkit.widgets.stills.charts import bars, courses, dots, matrix
from nadkit.widgets.stills.panels import WAITS, panel_still
from nadkit.widgets.views.pictures import MOST

SVG = "{http://www.w3.org/2000/svg}"
STRANGE = 'a</text><b> & "c" \x07 文字'
PATIENCE = 60


@pytest.fixture
def explorer() -> Iterator[Explorer]:
    table = hand.make_masks(1)
    found = nk.explore(hand.make_network(), table, hand.make_images([6, 5, 4, 7], 0), per_class=4)
    yield found
    assert found._answers.wait(PATIENCE)


def picture(of: Any) -> tuple[ET.Element, str]:
    """A widget's drawing, read by an XML parser, and its words."""
    drawing, words = of._still()
    return ET.fromstring(drawing), words


def texts(drawing: ET.Element) -> list[str]:
    return ["".join(node.itertext()) for node in drawing.iter(f"{SVG}text")]


def photographs(count: int, size: int) -> Images:
    """Colour noise, which no PNG makes smaller."""
    pixels = torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(0))
    return Images(pixels.byte(), torch.zeros(count, dtype=torch.long), ("one",))


# What is drawn


@pytest.mark.parametrize("kind", PANELS)
def test_every_panel_is_drawn_once_its_answers_are_there(explorer: Explorer, kind: str) -> None:
    explorer.unit = "3/3"
    explorer.image = explorer._subject.rows[next(iter(explorer._subject.of_class(explorer.task)))]
    explorer.wait(PATIENCE)
    made = explorer.panel(kind).picture._made()
    assert shapes_of(made) > 4, kind
    (alt,) = re.findall(r'alt="([^"]*)"', made)
    assert len(alt) > 40
    assert WAITS not in alt
    assert f"<figcaption>{alt} This is a static" in made


def test_controls_say_what_is_chosen(explorer: Explorer) -> None:
    explorer.threshold, explorer.other_task, explorer.condition = 0.25, "boot", "removed"
    drawing, words = picture(explorer.panel("controls"))
    assert {"coat", "boot", "0.25", "removed", explorer.layer} <= set(texts(drawing))
    assert explorer.panel("controls").state["summary"] in words


def test_marks_of_the_evidence_stand_where_their_values_are() -> None:
    rows = [
        {"name": "kept", "value": 0.75, "low": 0.5, "high": 1.0, "text": "0.75 [0.50, 1.00]"},
        {"name": "random", "value": None, "low": None, "high": None, "text": "no value"},
    ]
    block = dots(rows, chance=True)
    (line,) = re.findall(r'd="M([\d.]+) 12H([\d.]+)"', block.parts)
    (mark,) = re.findall(r'd="M([\d.]+) 12m', block.parts)
    assert (float(line[0]), float(mark), float(line[1])) == (90 + 145, 90 + 217.5, 90 + 290)
    assert "no value" in block.parts


def test_matrix_has_a_cell_for_each_pair_and_frames_the_chosen_one() -> None:
    block = matrix(["a", "b"], ["c", "d", "e"], [[1.0, -0.5, None], [0.0, 0.25, 2.0]], ("b", "d"))
    drawing = ET.fromstring(svg.document("m", block))
    rects = drawing.findall(f".//{SVG}g/{SVG}rect")
    assert len(rects) == 6 + 1
    assert [rects[-1].get(name) for name in "xy"] == [rects[4].get(name) for name in "xy"]
    depths = [float(rect.get("fill-opacity") or 0) for rect in rects[:6]]
    assert depths == [0.55, 0.28, 0, 0, 0.14, 0.55]
    assert rects[1].get("fill") != rects[0].get("fill")  # a sign is a colour, and stands in the number
    assert {"1.00", "-0.50", "0.00", "0.25", "2.00"} <= set(texts(drawing))


def test_words_of_a_matrix_name_its_ends(explorer: Explorer) -> None:
    explorer.matrix = "phi_all"
    state = explorer.panel("matrix").state
    cells = {
        (row, column): value
        for row, values in zip(state["rows"], state["values"], strict=True)
        for column, value in zip(state["columns"], values, strict=True)
        if row != column
    }
    words = panel_still("matrix", state)[1]
    for end, value in (("Highest off the diagonal", max(cells.values())), ("lowest", min(cells.values()))):
        found = re.search(rf"{end}: (\w+) and (\w+) \((-?[\d.]+)\)", words)
        assert found is not None
        assert cells[found[1], found[2]] == value == pytest.approx(float(found[3]), abs=0.005)


def test_bars_are_as_long_as_their_values_and_marks_are_of_before() -> None:
    block = bars(["share"], [("x", [(0.5, "0.50")]), ("y", [(2.0, "2.00")])], [[1.0], [0.0]])
    rects = [float(wide) for wide in re.findall(r' width="([\d.]+)" height', block.parts)]
    assert rects == [90, 45, 90, 90]
    left = float(re.findall(r'<rect x="([\d.]+)"', block.parts)[0])
    assert [float(x) for x in re.findall(r"<path d=\"M([\d.]+)", block.parts)] == pytest.approx(
        [left + 90, left], abs=0.1
    )


def test_courses_are_scaled_to_the_most() -> None:
    block = courses(["10", "20"], {"kept": [4.0, 1.0]}, most=4.0)
    (line,) = re.findall(r'<path d="M([^"]+)" fill="none"', block.parts)
    assert [float(spot.split()[1]) for spot in line.split("L")] == [8, 8 + 140 * 0.75]
    assert ">4<" in block.parts


def test_lessons_are_drawn_once_their_answers_are_there() -> None:
    network, masks, images = hand.make_network(), hand.make_masks(1), hand.make_images([6, 5, 4, 7], 0)
    gallery = widgets.unit_gallery(network, images, masks=masks, count=3)
    bench = widgets.gate_bench(network, masks, images, task="coat")
    grid = widgets.layer_class_grid(masks)
    for lesson in (gallery, bench, grid):
        lesson.wait(PATIENCE)
    assert len(picture(gallery)[0].findall(f".//{SVG}image")) == len(gallery.state["pictures"]) > 0
    bench.closed = (bench.state["switches"][0][0],)
    bench.wait(PATIENCE)
    drawing, words = picture(bench)
    struck = [text for text in drawing.iter(f"{SVG}text") if text.get("text-decoration")]
    assert ["".join(text.itertext()) for text in struck] == [str(bench.closed[0])]
    assert f"{bench.state['rows'][0][1]:.2f}" in texts(drawing)
    assert bench.state["sentence"] in words
    cells = len(masks.tasks) * len(masks.unit_counts)
    assert len(picture(grid)[0].findall(f".//{SVG}g/{SVG}rect")) == cells + 1


def test_the_player_shows_the_mosaic_the_energy_and_every_condition() -> None:
    network, masks = nk.load_network("resnet-fashion"), nk.load_masks("resnet-fashion")
    images = nk.load_images("fashion", split="test", per_class=10)
    player = widgets.mosaic_player(network, masks, images, task="sneaker", mosaics=10)
    assert WAITS in player._still()[1]
    player.wait(PATIENCE)
    drawing, words = picture(player)
    assert len(drawing.findall(f".//{SVG}image")) == 2  # the mosaic, which is used twice, and the energy
    assert len(drawing.findall(f".//{SVG}use")) == 1
    assert {*player.state["lines"], "chance 0.25"} <= set(texts(drawing))
    assert player.state["sentence"] in words


def test_the_monitor_draws_both_courses() -> None:
    monitor = widgets.learning_monitor()
    assert shapes_of(monitor.picture._made()) == 0
    for step, share, loss in ((10, 0.9, 3.0), (20, 0.3, 0.5)):
        monitor(SimpleNamespace(step=step, steps=20, tasks=("a",), loss=[loss], kept_share=[share]))
    drawing, words = picture(monitor)
    lines = [path for path in drawing.iter(f"{SVG}path") if path.get("fill") == "none"]
    assert len(lines) == 2
    assert "mean kept share from 0.9 to 0.3; mean loss from 3 to 0.5" in words


def test_what_is_missing_is_said(explorer: Explorer) -> None:
    drawing, words = picture(explorer.panel("evidence"))
    assert texts(drawing)[1:] == [WAITS]
    assert WAITS in words
    explorer.panel("evidence").fail(RuntimeError("no luck"))
    assert "RuntimeError: no luck" in explorer.panel("evidence")._still()[1]
    alone = nk.explore(None, hand.make_masks(1))
    assert "The network is not at hand" in alone.panel("pictures")._still()[1]


def test_a_full_strip_is_not_counted_as_if_it_were_all() -> None:
    png = png_uri(torch.zeros(2, 2, 3, dtype=torch.uint8))
    one = {"index": 0, "src": png, "caption": "", "alt": ""}
    for count, words in (
        (1, "1 picture"),
        (MOST - 1, f"{MOST - 1} pictures"),
        (MOST, f"{MOST} pictures or more"),
    ):
        state = {"title": "Pictures", "image": None, "chosen": None, "strips": [["right", [one] * count]]}
        made, said = panel_still("pictures", state)
        assert said == f"Pictures. right: {words}."
        assert f">right: {words}<" in made


def test_a_panel_of_another_kind_has_words() -> None:
    made, said = panel_still("other", {"title": "Something", "note": "said"})
    assert texts(ET.fromstring(made))[1] == "said"
    assert said == "Something. said."


# Names and sizes


def test_strange_names_break_no_drawing() -> None:
    rows = [{"name": STRANGE, "value": 0.5, "low": None, "high": None, "text": STRANGE}]
    png = png_uri(torch.zeros(2, 2, 3, dtype=torch.uint8))
    blocks = [
        dots(rows, chance=False), matrix([STRANGE], [STRANGE], [[0.5]], (STRANGE, STRANGE)),
        courses([STRANGE], {STRANGE: [0.5]}, 0.25, STRANGE), bars([STRANGE], [(STRANGE, [(0.5, STRANGE)])]),
        svg.chips([STRANGE], [STRANGE]), svg.fields([(STRANGE, STRANGE)]), svg.lines_of_text([STRANGE]),
        photos.pictures([{"src": png, "caption": STRANGE}]),
        photos.over(png, [0, 0, 1, 1], (STRANGE, STRANGE), [[0.5]]),
    ]  # fmt: skip
    still = Still("x", lambda: (svg.document(STRANGE, *blocks), STRANGE), lambda: True)
    made = still._made()
    assert shapes_of(made) > 5  # an XML parser reads it
    (alt,) = re.findall(r'alt="([^"]*)"', made)
    assert html.unescape(alt) == STRANGE.replace("\x07", "\ufffd")


def test_long_texts_are_wrapped_and_long_names_cut() -> None:
    long = "word " * 100
    assert " ".join(svg.wrapped(long)) == long.strip()
    assert all(svg.room(line) <= svg.MOST for line in svg.wrapped(long))
    assert svg.cut("x" * 500, 100).endswith("x…")
    assert svg.room(svg.cut("文" * 500, 100)) <= 100
    assert svg.cut("short", 100) == "short"
    assert svg.document("t", svg.lines_of_text(["x" * 10_000])).count("<text") == 2


def test_blocks_do_not_leave_the_page() -> None:
    names = [f"a layer of a long name {at}" for at in range(40)]
    for block in (svg.chips(names), svg.fields([(name, name) for name in names])):
        ends = [
            float(x) + float(wide)
            for x, wide in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', block.parts)
        ]
        assert len(ends) == 40
        assert max(ends) <= min(block.width, svg.MOST) + 0.01
    png = {"src": png_uri(torch.zeros(2, 2, 3, dtype=torch.uint8)), "caption": "x"}
    assert photos.pictures([png] * 8, 72).width <= svg.MOST


def test_pictures_are_shrunk_before_they_are_left_out() -> None:
    noise = torch.randint(0, 256, (72, 48, 3), generator=torch.Generator().manual_seed(0)).byte()
    src = png_uri(noise)
    assert photos.few([{"src": src}] * 2, 10**9) == [{"src": src}] * 2
    found = photos.few([{"src": src}] * 8)
    assert len(found) == 8
    assert sum(len(one["src"]) for one in found) <= photos.LETTERS
    assert len(photos.few([{"src": src}] * 50, 12_000)) >= 4
    assert len(photos.few([{"src": src}] * 3, 1)) == 1


def test_a_shrunk_picture_is_the_mean_of_its_pixels(tmp_path: Path) -> None:
    pixels = torch.zeros(4, 6, 3, dtype=torch.uint8)
    pixels[:2, :3] = torch.tensor([40, 80, 120])
    pixels[0, 0] = torch.tensor([100, 80, 120])
    src = png_uri(pixels)
    assert photos.shrunk(src, 6) == src
    file = tmp_path / "small.png"
    file.write_bytes(base64.b64decode(photos.shrunk(src, 2).partition(",")[2]))
    with Image.open(file) as small:
        assert small.size == (2, 1)
        # Of four rows and three columns, half of the rows are black.
        assert [small.getpixel((x, 0)) for x in (0, 1)] == [(25, 40, 60), (0, 0, 0)]


def test_heat_is_dark_where_it_is_low_and_yellow_where_it_is_high(tmp_path: Path) -> None:
    file = tmp_path / "heat.png"
    file.write_bytes(base64.b64decode(photos.heat([[0.0, 0.2, 1.0, 7.0]]).partition(",")[2]))
    with Image.open(file) as shown:
        found = [shown.getpixel((x, 0)) for x in range(4)]
    assert found == [(0, 32, 77), (55, 67, 108), (255, 234, 70), (255, 234, 70)]


def test_stills_of_photographs_are_small() -> None:
    model = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(4), torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(16, 2),
    )  # fmt: skip
    network = nk.Network.wrap(
        model, ("one", "two"), example=torch.zeros(1, 3, 128, 128), layers=["1"], name="photo",
        preprocess=lambda pixels: pixels.float() / 255,
    )  # fmt: skip
    images = photographs(20, 128)
    masks = MaskSet.from_scores({"1": torch.ones(1, 4)}, ["one"])
    explorer = nk.explore(network, masks, images)
    explorer.unit, explorer.image = "1/1", 3
    gallery = widgets.unit_gallery(network, images, ["1/1"])
    gallery.wait(PATIENCE)
    explorer._answers.work_all(lambda: [*explorer._keys("unit"), *explorer._keys("pictures")], PATIENCE)
    for panel in (explorer.panel("unit"), explorer.panel("pictures"), gallery):
        made = panel.picture._made()
        assert shapes_of(made) > 4
        assert len(made) < 100_000, panel.kind


# When it is drawn


class Front:
    """What a front end keeps of displayed outputs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outputs: dict[str, str] = {}
        self.updates = 0
        self.cell = 1
        monkeypatch.setattr("IPython.display.display", self.display)
        monkeypatch.setattr("IPython.display.update_display", self.update)
        monkeypatch.setattr(still_module, "_cell", lambda: self.cell)

    def display(self, thing: Any, display_id: str = "", **_: Any) -> None:
        if display_id:
            assert display_id not in self.outputs
            self.outputs[display_id] = thing.data

    def update(self, thing: Any, display_id: str) -> None:
        assert display_id in self.outputs
        self.outputs[display_id] = thing.data
        self.updates += 1

    @property
    def last(self) -> str:
        return list(self.outputs.values())[-1]


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Front:
    return Front(monkeypatch)


def test_a_picture_follows_until_its_cell_is_over_and_it_is_whole(front: Front, explorer: Explorer) -> None:
    panel = explorer.panel("evidence")
    panel._ipython_display_()
    assert WAITS in front.last
    explorer.task = "boot"  # in the same cell
    assert "boot" in front.last
    front.cell = 2
    explorer.wait(PATIENCE)  # the answer comes after the cell
    assert shapes_of(front.last) > 4
    shown, updates = front.last, front.updates
    explorer.task = "coat"  # another cell's choice is not drawn
    explorer.wait(PATIENCE)
    assert (front.last, front.updates) == (shown, updates)
    panel._ipython_display_()
    assert len(front.outputs) == 2
    assert next(iter(front.outputs.values())) == shown
    assert "coat" in front.last
    assert shapes_of(front.last) > 4


def test_the_explorer_is_drawn_as_its_cell_left_it(front: Front, explorer: Explorer) -> None:
    explorer._ipython_display_()
    explorer.task = "boot"
    assert "boot keeps" in front.last
    front.cell = 2
    explorer.task = "coat"
    assert "boot keeps" in front.last


def test_the_monitor_follows_every_run(front: Front) -> None:
    monitor = widgets.learning_monitor()
    monitor._ipython_display_()
    for run in (1, 2):
        front.cell += 1
        for step in (1, 2):
            monitor(SimpleNamespace(step=step, steps=2, tasks=("a",), loss=[step], kept_share=[0.5]))
        assert f"Learning masks{', run 2' * (run == 2)}, 2 reports" in front.last


def test_without_a_kernel_nothing_is_drawn_anew(front: Front, explorer: Explorer) -> None:
    explorer._ipython_display_()
    front.cell = 0
    explorer.task = "boot"
    assert front.updates == 0


def test_wait_is_for_the_panels_on_screen(front: Front, explorer: Explorer) -> None:
    explorer.panel("pictures")._ipython_display_()
    explorer.wait(PATIENCE)
    assert explorer._answers.get(("peaks",)) is not None
    assert explorer._answers.get(("evidence", explorer.task, 0.5)) is None
    assert front.updates > 0
    explorer._ipython_display_()
    explorer.wait(PATIENCE)
    assert explorer._answers.get(("evidence", explorer.task, 0.5)) is not None


CELLS = (
    "import nadkit as nk\nnetwork, masks = nk.load_network('vgg-fashion'), nk.load_masks('vgg-fashion')\n"
    "images = nk.load_images('fashion', split='test', per_class=2)",
    "explorer = nk.explore(network, masks, images, task='bag')\nexplorer",
    "gallery = nk.widgets.unit_gallery(network, images)\ngallery",
    "display(explorer.panel('controls'), explorer.panel('pictures'))",
    "monitor = nk.widgets.learning_monitor()\nmonitor",
    "gallery.wait()\nexplorer.wait()\nexplorer.task = 'coat'",
    "few = nk.load_images('fashion', per_class=20)\n"
    "x = nk.learn_masks(network, few, tasks=['bag'], steps=2, progress=False, callback=monitor)",
)


@pytest.mark.notebooks
def test_pictures_in_a_notebook_that_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = execute(notebook_of(*CELLS), tmp_path, monkeypatch)
    nbformat.validate(done)
    assert undrawn_widgets(done) == []
    found = ["".join(o.get("data", {}).get("text/html", "") for o in cell.outputs) for cell in done.cells]
    assert "bag keeps" in found[1]
    assert "coat keeps" not in "".join(found)
    assert "Pictures: bag" in found[3]
    assert "2 reports of 2 steps" in found[4]
