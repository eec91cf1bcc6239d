"""The figures of `whether`'s parts as dictionaries: traces, axes, words."""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from nadkit import figures
from nadkit.errors import NadkitError
from nadkit.figures._curves import curve
from nadkit.figures._marks import FURTHER, MARKS, WIDE, plain_rows
from nadkit.figures._matrix import matrix
from nadkit.figures._necessity import necessity
from nadkit.questions import reading

COLUMNS = [
    "network", "task", "other_task", "condition", "share", "dose", "layer",
    "metric", "value", "low", "high", "n",
]  # fmt: skip
METRIC = "balanced_accuracy_calibrated"
DOSES = ("1 %", "5 %", "20 %", "kept", "exclusive")


def fact(task: str, condition: str, metric: str, number: float, **place: object) -> dict[str, object]:
    return {
        "network": "net", "task": task, "condition": condition, "layer": "all", "metric": metric,
        "value": number, "low": number - 0.04, "high": number + 0.01, "n": 200, **place,
    }  # fmt: skip


def curve_table() -> pd.DataFrame:
    rows = [fact("mean", "whole", METRIC, 0.98), fact("mean", "kept", METRIC, 0.94)]
    heights = {"kept": 0.6, "shared": 0.5, "relabelled": 0.45, "last_layer": 0.7}
    for (condition, height), share in itertools.product(heights.items(), (0.5, 0.3, 0.1)):
        for task, off in (("bag", 0.02), ("mean", 0.0)):
            rows.append(fact(task, condition, METRIC, height + 0.6 * share + off, share=share))
        rows.append(fact("all", condition, "recomposed_accuracy", height + 0.5 * share, share=share))
    rows.append(fact("mean", "kept", "smallest_share", 0.5))
    return pd.DataFrame(rows, columns=COLUMNS)


def matrix_table() -> pd.DataFrame:
    rows = []
    for condition, (i, task), (j, other) in itertools.product(
        ("whole", "kept"), enumerate(("bag", "coat")), enumerate(("coat", "hat", "bag"))
    ):
        rate = 0.9 if task == other else 0.1 * i + 0.05 * j
        rows.append(fact(task, condition, "accepted", rate, other_task=other))
    return pd.DataFrame(rows, columns=COLUMNS)


def necessity_table() -> pd.DataFrame:
    rows = []
    for place, dose in enumerate(DOSES):
        for task in ("bag", "mean"):
            rows.append(fact(task, "removed", "removed_share", 0.023 * (place + 1), dose=dose))
            for metric, condition in itertools.product(
                ("drop_own", "drop_others"), ("removed", "removed_random")
            ):
                drop = 1.0 + place + 0.5 * (metric == "drop_own") * (condition == "removed")
                rows.append(fact(task, condition, metric, drop, dose=dose))
    return pd.DataFrame(rows, columns=COLUMNS)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_further_conditions_are_seen_on_white_and_told_apart() -> None:
    marks = {name: mark for name, mark in {**MARKS, **FURTHER}.items() if name != "removed_random"}
    assert len({mark.symbol for mark in marks.values()}) == len(marks)
    # Colours come twice only where the two are never in one figure.
    together = [marks[name] for name in (*MARKS, "other", "last_layer")]
    assert len({mark.colour for mark in together}) == len(together)
    for mark in FURTHER.values():
        assert 1.05 / (luminance(mark.colour) + 0.05) >= 3


def test_both_readers_of_whole_masks_leave_the_same_rows() -> None:
    tables = [curve_table(), matrix_table(), necessity_table(), curve_table().drop(columns="layer")]
    tables.append(curve_table().assign(layer="stem"))
    for table in tables:
        pd.testing.assert_frame_equal(plain_rows(table), reading.plain_rows(table))
    assert len(plain_rows(curve_table())) == 3
    assert plain_rows(necessity_table()).empty


# `whether` among other rows


def test_the_dot_plot_shows_whole_masks_only() -> None:
    table = pd.concat([curve_table(), curve_table().assign(layer="stem")])
    figure = figures.whether(table)
    assert [trace.name for trace in figure.data] == ["whole", "kept"]
    assert [list(trace.x) for trace in figure.data] == [[0.98], [0.94]]
    with pytest.raises(NadkitError, match="no metric 'recomposed_accuracy'"):
        figures.whether(table, "recomposed_accuracy")  # of the curve alone


def test_long_titles_are_broken_and_get_room() -> None:
    rows = [fact("mean", name, METRIC, 0.9) for name in ("whole", "kept", "relabelled", "shared")]
    table = pd.DataFrame(rows, columns=COLUMNS).assign(network="a-network-with-a-rather-long-name <b>")
    long, short = figures.whether(table), figures.whether(table.iloc[:1])
    lines = long.layout.title.text.split("<br>")
    assert len(lines) > len(short.layout.title.text.split("<br>"))
    plain = [html.unescape(line) for line in lines if not line.startswith("<sup>")]
    assert all(len(line) <= WIDE for line in plain)
    assert "<b>" not in long.layout.title.text
    assert long.layout.margin.t > short.layout.margin.t


# The curve


def test_a_line_a_condition_over_shares() -> None:
    figure = curve(curve_table())
    assert [trace.name for trace in figure.data] == ["kept", "relabelled", "shared", "last_layer"]
    kept = figure.data[0]
    assert list(kept.y) == pytest.approx([0.66, 0.78, 0.9])
    assert [row[0] for row in kept.customdata] == [0.1, 0.3, 0.5]
    assert list(kept.error_y.array) == pytest.approx([0.01] * 3)
    assert list(kept.error_y.arrayminus) == pytest.approx([0.04] * 3)
    # Marks at one share stand side by side, near it.
    first = [trace.x[0] for trace in figure.data]
    assert len(set(first)) == 4
    assert max(abs(x - 0.1) for x in first) < 0.01
    assert list(figure.layout.xaxis.tickvals) == [0.1, 0.3, 0.5]
    low, high = figure.layout.xaxis.range
    assert low < min(first)
    assert high > max(trace.x[-1] for trace in figure.data)
    levels = {shape.y0 for shape in figure.layout.shapes}
    assert levels == {0.98, 0.5}


def test_the_words_of_a_curve() -> None:
    figure = curve(curve_table())
    title = figure.layout.title.text.replace("<br>", " ")
    assert title.startswith("net: first at 0.5, kept units reach 0.95 of the whole network; ")
    assert "at 0.1 kept 0.66, best learned control 0.56; at 0.5 kept 0.90, best learned control 0.80" in title
    assert figure.layout.meta["alt"] == (
        "Lines of balanced accuracy, calibrated in net, mean over tasks, over kept shares 0.1, 0.3, 0.5. "
        "kept: 0.66, 0.78, 0.90; relabelled: 0.51, 0.63, 0.75; shared: 0.56, 0.68, 0.80; "
        "last_layer: 0.76, 0.88, 1.00. Whole network: 0.98. Chance is 0.5."
    )
    again = pd.concat([curve_table(), pd.DataFrame([fact("mean", "kept", "short_again", 0.7)])])
    title = curve(again).layout.title.text.replace("<br>", " ")
    assert "0.95 of the whole network (short of it again at 0.7); at 0.1" in title
    never = curve_table().replace({"value": {0.5: np.nan}})
    never.loc[never["metric"] == "smallest_share", "value"] = np.nan
    assert "no share reaches 0.95" in curve(never).layout.title.text


def test_other_metrics_and_tasks_of_a_curve() -> None:
    table = curve_table()
    bag = curve(table, task="bag")
    assert bag.data[0].y[0] == pytest.approx(0.68)
    assert not [shape for shape in bag.layout.shapes if shape.y0 == 0.98]
    together = curve(table, "recomposed_accuracy")
    assert together.data[0].y[0] == pytest.approx(0.65)
    assert "all tasks together" in together.layout.meta["alt"]
    table.loc[(table["share"] == 0.3) & (table["condition"] == "kept"), "value"] = np.nan
    gap = curve(table)
    assert [row[0] for row in gap.data[0].customdata] == [0.1, 0.5]
    assert "kept: 0.66, no value, 0.90" in gap.layout.meta["alt"]
    single = curve(table[table["share"] == 0.1])
    assert single.layout.xaxis.range[0] < 0.1 < single.layout.xaxis.range[1]


# The matrix


def test_a_cell_a_task_and_class() -> None:
    figure = matrix(matrix_table())
    heat = figure.data[0]
    # Classes in the order of the tasks, then those that are no task's.
    assert list(heat.x) == ["bag", "coat", "hat"]
    assert list(heat.y) == ["bag", "coat"]
    assert np.array(heat.z) == pytest.approx(np.array([[0.9, 0.0, 0.05], [0.2, 0.9, 0.15]]))
    assert heat.text[1][0] == "0.20"
    assert heat.customdata[0][2] == pytest.approx([0.01, 0.06, 200])
    assert (heat.zmin, heat.zmax) == (0, 1)
    assert figure.layout.yaxis.autorange == "reversed"
    assert figure.layout.title.text.startswith(
        "net: tasks accept 0.90 of their own class's pictures, 0.10 of others'"
    )
    assert figure.layout.meta["alt"] == (
        "Heat map of how often 2 tasks accept pictures of 3 classes, net kept. Own class: mean 0.90, "
        "from 0.90 (bag) to 0.90 (coat). Other classes: mean 0.10, highest 0.20, coat on pictures of bag."
    )
    assert "net whole" in matrix(matrix_table(), "whole").layout.meta["alt"]


def test_a_cell_without_a_value_is_empty() -> None:
    table = matrix_table()
    table.loc[(table["task"] == "bag") & (table["other_task"] == "hat"), "value"] = np.nan
    heat = matrix(table).data[0]
    assert heat.z[0][2] is None
    assert heat.text[0][2] == ""
    table["value"] = np.nan
    assert matrix(table).layout.meta["alt"].endswith("No value.")


def test_calibrated_decisions_and_many_classes() -> None:
    table = matrix_table().assign(metric="accepted_calibrated")
    assert "calibrated" in matrix(table, calibrated=True).layout.title.text
    with pytest.raises(NadkitError, match='has no matrix; ask with parts="matrix"'):
        matrix(table)
    with pytest.raises(NadkitError, match="no calibrated decisions; calibrate_on= makes them"):
        matrix(matrix_table(), calibrated=True)
    with pytest.raises(NadkitError, match="no condition 'kep' in the matrix; closest: kept"):
        matrix(matrix_table(), "kep")
    names = [f"c{k}" for k in range(13)]
    rows = [fact(a, "kept", "accepted", 0.1, other_task=b) for a, b in itertools.product(names, names)]
    assert matrix(pd.DataFrame(rows, columns=COLUMNS)).data[0].text is None


# Necessity


def test_joined_doses_and_sets_apart() -> None:
    figure = necessity(necessity_table())
    shown = [trace for trace in figure.data if trace.showlegend]
    assert [trace.name for trace in shown] == [
        "the task's units; its own pictures", "the task's units; other tasks'",
        "random units; its own pictures", "random units; other tasks'",
    ]  # fmt: skip
    assert len(figure.data) == 8
    joined, apart = figure.data[0], figure.data[1]
    assert (joined.mode, apart.mode) == ("lines+markers", "markers")
    assert list(joined.y) == [1.5, 2.5, 3.5]
    assert list(apart.y) == [4.5, 5.5]
    assert [round(x) for x in (*joined.x, *apart.x)] == [0, 1, 2, 3, 4]
    assert joined.legendgroup == apart.legendgroup
    assert list(joined.error_y.arrayminus) == pytest.approx([0.04] * 3)
    at_first = {trace.x[0] for trace in figure.data[::2]}
    assert len(at_first) == 4
    assert list(figure.layout.xaxis.ticktext) == [
        "1 %",
        "5 %",
        "20 %",
        "kept<br>(9.2 %)",
        "exclusive<br>(12 %)",
    ]
    symbols = {(trace.marker.symbol, trace.marker.color) for trace in shown}
    assert len(symbols) == 4


def test_the_words_of_necessity() -> None:
    figure = necessity(necessity_table(), "bag")
    title = figure.layout.title.text.replace("<br>", " ")
    assert title.startswith(
        "net: without units that only one task keeps, a task loses 5.50 and the others 5.00, without as many "
        "random ones 5.00 and 5.00"
    )
    assert figure.layout.meta["alt"].startswith(
        "Points of the drop of log-odds in net, bag, at the doses 1 %, 5 %, 20 %, kept, exclusive. "
        "the task's units, its own pictures: 1.50, 2.50, 3.50, 4.50, 5.50; the task's units, "
        "other tasks': 1.00, 2.00"
    )
    table = necessity_table()
    table.loc[table["dose"] == "exclusive", "value"] = 0.0
    assert "without the top 1 % of units" in necessity(table).layout.title.text
    table = table[table["condition"] == "removed"]
    assert "random" not in necessity(table).layout.title.text.split("<br>")[0]
    table.loc[table["dose"] == "5 %", "value"] = np.nan
    figure = necessity(table)
    assert list(figure.data[0].y) == [1.5, 3.5]
    assert "1.50, no value, 3.50" in figure.layout.meta["alt"]


# What is refused


@pytest.mark.parametrize(
    ("draw", "table", "part"),
    [
        (curve, curve_table(), "shares="),
        (matrix, matrix_table(), 'parts="matrix"'),
        (necessity, necessity_table(), 'parts="necessity"'),
    ],
)
def test_tables_that_cannot_be_drawn_are_refused(
    draw: Callable[[pd.DataFrame], go.Figure], table: pd.DataFrame, part: str
) -> None:
    name = draw.__name__
    column = {"curve": "share", "matrix": "other_task", "necessity": "dose"}[name]
    with pytest.raises(
        NadkitError, match=f"figures.{name} draws a table of nk.whether with {part}; .* no column {column}"
    ):
        draw(table.drop(columns=column))
    with pytest.raises(NadkitError, match="no row"):
        draw(table.iloc[:0])
    both = pd.concat([table, table.assign(network="other")])
    with pytest.raises(NadkitError, match="the table is of 2 networks; draw one"):
        draw(both)


def test_unknown_metrics_and_tasks_are_refused() -> None:
    with pytest.raises(NadkitError, match="no metric 'auroc' on a curve"):
        curve(curve_table(), "auroc")
    with pytest.raises(NadkitError, match="no task 'bagg' on the curve; closest: bag"):
        curve(curve_table(), task="bagg")
    with pytest.raises(NadkitError, match="no task 'bagg' with doses in this table; closest: bag"):
        necessity(necessity_table(), "bagg")


def test_figures_are_the_same_after_a_file(tmp_path: object) -> None:
    for draw, table in ((curve, curve_table()), (matrix, matrix_table()), (necessity, necessity_table())):
        path = f"{tmp_path}/table.csv"
        table.to_csv(path, index=False)
        assert draw(pd.read_csv(path)).layout.meta["alt"] == draw(table).layout.meta["alt"]


def test_without_calibration_figures_are_of_auroc() -> None:
    table = curve_table().replace({"metric": {METRIC: "auroc"}})
    raw = table[table["metric"] == "auroc"].assign(metric="balanced_accuracy", value=0.5)
    both = pd.concat([raw, table])
    assert curve(both).layout.meta["alt"].startswith("Lines of AUROC in net")
    assert "first at 0.5, kept units reach" in curve(both).layout.title.text
    assert "kept units reach" not in curve(both, "balanced_accuracy").layout.title.text
    assert figures.whether(both).layout.meta["alt"].startswith("Dot plot of AUROC in net")


def test_doses_without_a_value_are_left_out_of_the_words() -> None:
    table = necessity_table()
    empty = table["dose"].str.endswith("%") & (table["metric"] != "removed_share")
    table.loc[empty, ["value", "low", "high"]] = np.nan
    table.loc[table["dose"] == "exclusive", "value"] = np.nan
    assert "without its kept units, a task loses " in necessity(table).layout.title.text.replace("<br>", " ")
    table["value"] = np.nan
    assert "no units to remove" in necessity(table).layout.title.text
