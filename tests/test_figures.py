"""Figures as dictionaries: traces, axes, words; no pixels but those of pictures."""

from __future__ import annotations

import base64
import io
import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from PIL import Image

from nadkit import figures
from nadkit.errors import NadkitError
from nadkit.images import Images

CONDITIONS = ("whole", "kept", "removed", "random", "relabelled", "shared", "untrained")
VALUES = (0.98, 0.93, 0.6, 0.55, 0.88, 0.86, 0.87)


def make_table(network: str = "net") -> pd.DataFrame:
    """Two metrics of two tasks; the tasks are the mean less and plus 0.02, and their bars are uneven."""
    rows = []
    for metric, shift in (("balanced_accuracy_calibrated", 0.0), ("recall", -0.1)):
        for (condition, mean), (task, off) in itertools.product(
            zip(CONDITIONS, VALUES, strict=True), (("shirt", -0.02), ("bag", 0.02), ("mean", 0.0))
        ):
            value = mean + off + shift
            rows.append((network, task, condition, metric, value, value - 0.04, value + 0.01, 200))
    for task in ("shirt", "bag", "mean"):
        rows.append((network, task, "kept", "excess", 0.05, -0.01, 0.1, 200))
    rows.append((network, "all", "whole", "recomposed_accuracy", 0.94, 0.9, 0.96, 200))
    columns = ["network", "task", "condition", "metric", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def figure() -> go.Figure:
    return figures.whether(make_table())


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_every_condition_has_its_colour_and_shape_and_is_seen_on_white() -> None:
    marks = list(figures.MARKS.values())
    assert set(figures.MARKS) == set(CONDITIONS)
    assert len({mark.colour for mark in marks}) == len({mark.symbol for mark in marks}) == len(marks)
    for mark in marks:
        assert 1.05 / (luminance(mark.colour) + 0.05) >= 3


def test_golden(figure: go.Figure) -> None:
    assert [trace.name for trace in figure.data] == list(CONDITIONS)
    assert figure.layout.xaxis.title.text == "balanced accuracy, calibrated (share; 0.5 is a constant answer)"
    assert figure.layout.yaxis.title.text == "task"
    assert figure.layout.legend.title.text == "condition"
    title, below = figure.layout.title.text.split("<br><sup>", 1)
    assert (
        title.replace("<br>", " ")
        == "net: whole network 0.98, kept units 0.93, best learned control (relabelled) 0.88"
    )
    assert "95 % intervals" in below
    assert figure.layout.meta["alt"] == (
        "Dot plot of balanced accuracy, calibrated in net. Mean over tasks: whole 0.98 [0.94, 0.99], "
        "kept 0.93 [0.89, 0.94], removed 0.60 [0.56, 0.61], random 0.55 [0.51, 0.56], "
        "relabelled 0.88 [0.84, 0.89], shared 0.86 [0.82, 0.87], untrained 0.87 [0.83, 0.88]. Chance is 0.5."
    )


def test_marks_stand_at_their_values_in_the_row_of_their_task(figure: go.Figure) -> None:
    labels = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    assert list(labels.values()) == ["<b>mean</b>", "shirt", "bag"]
    table = make_table().query("metric == 'balanced_accuracy_calibrated'").set_index(["task", "condition"])
    for trace in figure.data:
        for place, (x, y) in enumerate(zip(trace.x, trace.y, strict=True)):
            task = labels[round(y)].removeprefix("<b>").removesuffix("</b>")
            row = table.loc[(task, trace.name)]
            assert x == pytest.approx(row["value"])
            assert x + trace.error_x.array[place] == pytest.approx(row["high"])
            assert x - trace.error_x.arrayminus[place] == pytest.approx(row["low"])
            assert list(trace.customdata[place]) == [task, row["low"], row["high"], 200]
    # Within a row no two conditions share a height, and whole stands above kept.
    heights = [trace.y[0] - round(trace.y[0]) for trace in figure.data]
    assert heights == sorted(set(heights))
    # Row 0 is drawn at the top.
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]


def test_all_bars_and_the_chance_line_are_inside(figure: go.Figure) -> None:
    low, high = figure.layout.xaxis.range
    lines = [shape for shape in figure.layout.shapes if shape.x0 == shape.x1]
    assert [line.x0 for line in lines] == [0.5]
    assert low < 0.5
    assert high > 0.99 + 0.02
    table = make_table()
    assert [s.x0 for s in figures.whether(table, "excess").layout.shapes if s.x0 == s.x1] == [0.0]
    assert not [s for s in figures.whether(table, "recall").layout.shapes if s.x0 == s.x1]


def test_another_metric_says_so_everywhere() -> None:
    figure = figures.whether(make_table(), "recall")
    assert figure.layout.xaxis.title.text == "recall (share of the task's own pictures)"
    assert "kept units 0.83" in figure.layout.title.text
    assert figure.layout.meta["alt"].startswith("Dot plot of recall in net. Mean over tasks: whole 0.88")
    assert "Chance" not in figure.layout.meta["alt"]
    excess = figures.whether(make_table(), "excess")
    assert "excess of the kept units 0.05" in excess.layout.title.text
    assert [trace.name for trace in excess.data] == ["kept"]
    together = figures.whether(make_table(), "recomposed_accuracy")
    assert list(together.layout.yaxis.ticktext) == ["<b>all</b>"]
    assert "All tasks together: whole 0.94" in together.layout.meta["alt"]
    assert "all tasks together in the title" in together.layout.title.text


def test_the_legend_has_room_when_there_are_few_rows() -> None:
    table = make_table().query("task == 'mean' and metric == 'recall'")
    figure = figures.whether(table, "recall")
    inside = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    assert inside > 20 * (len(CONDITIONS) + 1)  # a line each, and the legend's title


def test_the_best_control_of_false_alarm_is_the_lowest() -> None:
    table = make_table().query("metric == 'recall'").assign(metric="false_alarm")
    title = figures.whether(table, "false_alarm").layout.title.text.replace("<br>", " ")
    assert "best learned control (shared) 0.76" in title


def test_without_calibration_the_raw_values_are_drawn() -> None:
    table = make_table().replace({"metric": {"balanced_accuracy_calibrated": "balanced_accuracy"}})
    axis = figures.whether(table).layout.xaxis.title.text
    assert axis == "balanced accuracy (share; 0.5 is a constant answer)"


def test_a_task_without_a_value_keeps_its_row() -> None:
    table = make_table()
    table.loc[table["task"] == "bag", ["value", "low", "high"]] = np.nan
    figure = figures.whether(table)
    assert list(figure.layout.yaxis.ticktext) == ["<b>mean</b>", "shirt", "bag (no value)"]
    assert all(len(trace.x) == 2 for trace in figure.data)
    table[["value", "low", "high"]] = np.nan
    nothing = figures.whether(table)
    assert nothing.layout.meta["alt"].endswith("Mean over tasks: no value. Chance is 0.5.")
    assert np.isfinite(nothing.layout.xaxis.range).all()


def test_names_are_shown_as_they_are_written_and_unknown_conditions_too() -> None:
    table = make_table("a<b>").replace({"task": {"bag": "<i>bag"}, "condition": {"removed": "official"}})
    figure = figures.whether(table)
    assert "&lt;i&gt;bag" in figure.layout.yaxis.ticktext
    assert figure.layout.title.text.startswith("a&lt;b&gt;:")
    assert figure.data[-1].name == "official"


def test_the_table_is_not_changed_and_nothing_is_kept() -> None:
    table = make_table()
    before = table.copy()
    first, second = figures.whether(table), figures.whether(table)
    pd.testing.assert_frame_equal(table, before)
    assert first.to_dict() == second.to_dict()
    assert first.layout.width is None  # as wide as the page


@pytest.mark.parametrize(
    ("table", "metric", "message"),
    [
        (make_table(), "recal", "no metric 'recal' in this table; closest: recall"),
        (make_table().drop(columns="low"), None, "no column low"),
        (make_table().iloc[:0], None, "no row"),
        (pd.concat([make_table(), make_table("other")]), None, "2 networks; draw one"),
        ("a table", None, "no column network"),
    ],
)
def test_other_tables_are_refused(table: pd.DataFrame, metric: str | None, message: str) -> None:
    with pytest.raises(NadkitError, match=message):
        figures.whether(table, metric)


# Pictures


def canvas_of(figure: go.Figure) -> np.ndarray:
    head, data = figure.data[0].source.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_pictures_are_drawn_pixel_by_pixel_with_their_captions() -> None:
    pixels = torch.randint(0, 256, (5, 3, 6, 4), dtype=torch.uint8)
    images = Images(pixels, torch.tensor([0, 1, 0, 1, 1]), ("bag", "coat"))
    figure = figures.pictures(images, columns=3)
    canvas = canvas_of(figure)
    captions = figure.layout.annotations
    assert [note.text for note in captions] == ["bag", "coat", "bag", "coat", "coat"]
    across = round(captions[1].x - captions[0].x)
    down = round(captions[3].y - captions[0].y)
    for place in range(5):
        top, left = place // 3 * down, place % 3 * across
        drawn = canvas[top : top + 6, left : left + 4]
        assert (drawn == pixels[place].permute(1, 2, 0).numpy()).all()
        assert captions[place].x == left + 1.5
        assert top + 5 < captions[place].y < top + 6  # below the last row of pixels
    assert (canvas[down:, 2 * across :] == 255).all()  # the sixth place is empty
    assert canvas.shape == (2 * down, 2 * across + 4, 3)
    assert figure.layout.meta["alt"] == "Grid of 5 pictures in 2 rows: bag, coat, bag, coat, coat."


def test_grey_and_float_pictures_are_brought_to_colours() -> None:
    grey = SimpleNamespace(
        pixels=torch.tensor([[[[0.0, 1.0]]]]), labels=torch.tensor([0]), class_names=("bag",)
    )
    assert canvas_of(figures.pictures(grey))[0].tolist() == [[0, 0, 0], [255, 255, 255]]
    beyond = SimpleNamespace(
        pixels=torch.tensor([[[[-3.0, 1.0]]]]), labels=torch.tensor([0]), class_names=("bag",)
    )
    assert canvas_of(figures.pictures(beyond))[0].tolist() == [[0, 0, 0], [255, 255, 255]]
    two = SimpleNamespace(
        pixels=torch.tensor([[[[10]], [[30]]]], dtype=torch.uint8),
        labels=torch.tensor([0]),
        class_names=("bag",),
    )
    assert canvas_of(figures.pictures(two))[0].tolist() == [[20, 20, 20]]


def test_titles_may_have_lines_and_signs() -> None:
    images = Images(torch.zeros(2, 1, 28, 28), torch.tensor([0, 0]), ("bag",))
    figure = figures.pictures(images, ["a < b\nyes", "c"])
    assert [note.text for note in figure.layout.annotations] == ["a &lt; b<br>yes", "c"]
    assert figure.layout.meta["alt"] == "Grid of 2 pictures in 1 row: a < b yes, c."
    assert figure.layout.height > figures.pictures(images).layout.height


def test_titles_and_columns_that_do_not_fit_are_refused() -> None:
    images = Images(torch.zeros(2, 1, 4, 4), torch.tensor([0, 0]), ("bag",))
    with pytest.raises(NadkitError, match="3 titles for 2 pictures"):
        figures.pictures(images, ["a", "b", "c"])
    with pytest.raises(NadkitError, match="0 columns"):
        figures.pictures(images, columns=0)
