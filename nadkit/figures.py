"""Tables and pictures as plotly figures: no state, nothing shown, words for readers who do not see them.

Every figure has its alternative text in ``figure.layout.meta["alt"]``, computed from the same data.
"""

from __future__ import annotations

import base64
import html
import math
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from nadkit.errors import NadkitError, closest

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from torch import Tensor


class Mark(NamedTuple):
    """How a condition is drawn: a colour and a shape, either of which tells it apart."""

    colour: str
    symbol: str


# Okabe and Ito's palette, with its light colours darkened until they have a contrast of 3 on white.
MARKS = {
    "whole": Mark("#000000", "line-ns-open"),
    "kept": Mark("#0072B2", "circle"),
    "removed": Mark("#D55E00", "x"),
    "random": Mark("#767676", "diamond-open"),
    "relabelled": Mark("#A6507F", "triangle-up"),
    "shared": Mark("#009E73", "square"),
    "untrained": Mark("#A87400", "triangle-down"),
}
_OTHER = Mark("#595959", "star")

_AXIS = {
    "recall": "recall (share of the task's own pictures)",
    "false_alarm": "false alarm (share of other tasks' pictures)",
    "balanced_accuracy": "balanced accuracy (share; 0.5 is a constant answer)",
    "balanced_accuracy_calibrated": "balanced accuracy, calibrated (share; 0.5 is a constant answer)",
    "auroc": "AUROC (share of pairs ranked right; 0.5 is chance)",
    "recomposed_accuracy": "recomposed accuracy (share of pictures)",
    "kept_share": "kept share (share of all units)",
    "excess": "excess over the best learned control (difference of balanced accuracy)",
}
_CHANCE = {"balanced_accuracy": 0.5, "balanced_accuracy_calibrated": 0.5, "auroc": 0.5, "excess": 0.0}


def whether(table: pd.DataFrame, metric: str | None = None) -> go.Figure:
    """Return the table of `nk.whether` as a dot plot: a row a task, a mark a condition, a bar an interval.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "condition", "metric", "value", "low", "high", "n", "interval"]
    >>> rows = [("net", "mean", "kept", "auroc", 0.9, 0.8, 0.95, 40, "images")]
    >>> whether(pd.DataFrame(rows, columns=columns), "auroc").layout.meta["alt"]
    'Dot plot of AUROC in net. Mean over tasks: kept 0.90 [0.80, 0.95]. Chance is 0.5.'

    Parameters
    ----------
    table
        As `nk.whether` returns it, of one network.
    metric
        A metric of the table; None takes balanced accuracy, calibrated if it is there.

    Returns
    -------
    plotly.graph_objects.Figure
        One trace a condition, readable from 900 pixels of width on. Tasks without a value keep their row, and
        say so.

    Raises
    ------
    NadkitError
        No table of `whether`, no such metric (the closest are named), or several networks in one table.
    """
    import plotly.graph_objects as go

    metric = _checked(table, metric)
    rows = table[table["metric"] == metric]
    tasks = _ordered(rows["task"].unique().tolist())
    conditions = [name for name in [*MARKS, *rows["condition"].unique()] if name in set(rows["condition"])]
    conditions = list(dict.fromkeys(conditions))
    figure = go.Figure([_trace(rows, name, tasks, conditions) for name in conditions])
    empty = set(tasks) - set(rows.dropna(subset="value")["task"])
    names = [
        f"<b>{html.escape(task)}</b>" if task in ("mean", "all") else html.escape(task) for task in tasks
    ]
    names = [name + " (no value)" if task in empty else name for name, task in zip(names, tasks, strict=True)]
    for edge in range(1, len(tasks)):
        figure.add_hline(y=edge - 0.5, line={"color": "#e3e3e3", "width": 1})
    if metric in _CHANCE:
        figure.add_vline(x=_CHANCE[metric], line={"color": "#595959", "width": 1.5, "dash": "dash"})
    row = max(30, 8 * len(conditions) + 2)  # room for its marks, one below the other
    low, high = rows["low"].min(), rows["high"].max()
    ends = [_CHANCE.get(metric, 0.0), *([] if math.isnan(low) else [float(low), float(high)])]
    room = 0.03 * max(max(ends) - min(ends), 0.1)
    figure.update_layout(
        template="plotly_white",
        height=140 + max(row * len(tasks), 22 * len(conditions) + 40),  # no shorter than the legend
        margin={"l": 10, "r": 10, "t": 78, "b": 55},
        title={"text": _title(rows, metric, tasks[0]), "x": 0.01, "xanchor": "left", "font": {"size": 17}},
        legend={"title": {"text": "condition"}, "tracegroupgap": 4, "itemsizing": "constant"},
        meta={"alt": _alt(rows, metric, conditions, tasks[0])},
        font={"size": 14, "color": "#1b1f24"},
    )
    figure.update_xaxes(title=_AXIS.get(metric, metric), range=[min(ends) - room, max(ends) + room])
    figure.update_yaxes(
        title="task", tickvals=list(range(len(tasks))), ticktext=names, range=[len(tasks) - 0.5, -0.5],
        showgrid=False, zeroline=False, automargin=True,
    )  # fmt: skip
    return figure


class Pictures(Protocol):
    """Labelled pictures, such as `Images`."""

    @property
    def pixels(self) -> Tensor:
        """(N, C, H, W), indexable by a slice."""

    @property
    def labels(self) -> Tensor:
        """(N,) class indices."""

    @property
    def class_names(self) -> Sequence[str]:
        """A name for each class."""


def pictures(images: Pictures, titles: Sequence[str] | None = None, columns: int = 8) -> go.Figure:
    """Return a grid of small pictures, each with its caption below.

    Examples
    --------
    >>> import torch
    >>> from types import SimpleNamespace as Thing
    >>> labels = torch.tensor([0, 1, 0])
    >>> images = Thing(pixels=torch.rand(3, 1, 4, 4), labels=labels, class_names=("bag", "coat"))
    >>> pictures(images, columns=2).layout.meta["alt"]
    'Grid of 3 pictures in 2 rows: bag, coat, bag.'

    Parameters
    ----------
    images
        `Images`; uint8, or floats that are shown from 0 to 1, or from their lowest to their highest value if
        they go beyond. Other than 3 channels are shown as their mean.
    titles
        One caption a picture, lines parted by a newline; None takes class names.
    columns
        Pictures side by side, at least 1.

    Returns
    -------
    plotly.graph_objects.Figure
        One image trace with every picture, pixels kept square and sharp, and an annotation a caption.

    Raises
    ------
    NadkitError
        Another number of titles than of pictures, or fewer than one column.
    """
    import plotly.graph_objects as go

    count = len(images.labels)
    captions = [images.class_names[k] for k in images.labels.tolist()] if titles is None else list(titles)
    if len(captions) != count:
        raise NadkitError(f"{len(captions)} titles for {count} pictures; give one a picture")
    if columns < 1:
        raise NadkitError(f"{columns} columns were asked for; give at least 1")
    columns = min(columns, count)
    shown = _visible(images.pixels[:])
    _, height, width, _ = shown.shape
    lines = max(caption.count("\n") + 1 for caption in captions)
    # A cell is 104 pixels wide on the screen; captions of 12 pixels need 17 a line.
    gap, below = max(1, round(width * 0.08)), max(2, math.ceil(width / 104 * (17 * lines + 6)))
    across, down = width + gap, height + below
    grid_rows = -(-count // columns)
    canvas = shown.new_full((grid_rows * down, columns * across - gap, 3), 255)
    notes = []
    for place, (picture, caption) in enumerate(zip(shown, captions, strict=True)):
        top, left = place // columns * down, place % columns * across
        canvas[top : top + height, left : left + width] = picture
        notes.append(
            {
                "x": left + (width - 1) / 2,
                "y": top + height - 0.5,
                "text": html.escape(caption).replace("\n", "<br>"),
                "showarrow": False,
                "yanchor": "top",
                "font": {"size": 12, "color": "#1b1f24"},
            }
        )
    figure = go.Figure(go.Image(source=_png(canvas), hoverinfo="skip"))
    said = ", ".join(caption.replace("\n", " ") for caption in captions)
    kinds = f"{count} picture{'s' * (count != 1)} in {grid_rows} row{'s' * (grid_rows != 1)}"
    figure.update_layout(
        annotations=notes,
        width=round(104 / width * across * columns) + 20,
        height=round(104 / width * down * grid_rows) + 20,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        plot_bgcolor="white",
        paper_bgcolor="white",
        meta={"alt": f"Grid of {kinds}: {said}."},
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def _checked(table: pd.DataFrame, metric: str | None) -> str:
    needed = ("network", "task", "condition", "metric", "value", "low", "high", "n")
    missing = [name for name in needed if name not in getattr(table, "columns", ())]
    if missing or not len(table):
        raise NadkitError(
            f"figures.whether draws a table of nk.whether; this has "
            f"{'no column ' + ', '.join(missing) if missing else 'no row'}"
        )
    metrics = table["metric"].unique().tolist()
    if metric is None:
        metric = (
            "balanced_accuracy_calibrated"
            if "balanced_accuracy_calibrated" in metrics
            else "balanced_accuracy"
        )
    if metric not in metrics:
        raise NadkitError(f"no metric {metric!r} in this table; {closest(metric, metrics)}")
    networks = table["network"].unique().tolist()
    if len(networks) > 1:
        raise NadkitError(
            f"the table is of {len(networks)} networks; draw one: table[table['network'] == {networks[0]!r}]"
        )
    return metric


def _ordered(tasks: list[str]) -> list[str]:
    """What is over all tasks comes first."""
    over_all = [name for name in ("mean", "all") if name in tasks]
    return [*over_all, *(name for name in tasks if name not in over_all)]


def _trace(rows: pd.DataFrame, condition: str, tasks: list[str], conditions: list[str]) -> go.Scatter:
    """The marks of one condition, each at its own height within the row of its task."""
    import plotly.graph_objects as go

    mark = MARKS.get(condition, _OTHER)
    mine = rows[rows["condition"] == condition].dropna(subset="value")
    offset = ((conditions.index(condition) + 1) / (len(conditions) + 1) - 0.5) * 0.9
    main = condition == "kept"
    return go.Scatter(
        name=condition,
        mode="markers",
        x=mine["value"].tolist(),
        y=[tasks.index(task) + offset for task in mine["task"]],
        customdata=mine[["task", "low", "high", "n"]].values.tolist(),
        hovertemplate=f"%{{customdata[0]}}, {condition}: %{{x:.3f}} "
        "[%{customdata[1]:.3f}, %{customdata[2]:.3f}], n = %{customdata[3]}<extra></extra>",
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (mine["high"] - mine["value"]).tolist(),
            "arrayminus": (mine["value"] - mine["low"]).tolist(),
            "color": mark.colour,
            "thickness": 2 if main else 1.2,
            "width": 0,
        },
        marker={
            "color": mark.colour,
            "symbol": mark.symbol,
            "size": 10 if main else 8,
            "line": {"color": mark.colour, "width": 2 if mark.symbol.endswith("open") else 0},
        },
    )


def _fact(rows: pd.DataFrame, condition: str, task: str) -> tuple[float, float, float] | None:
    found = rows[(rows["condition"] == condition) & (rows["task"] == task)].dropna(subset="value")
    return None if found.empty else tuple(float(found[name].iloc[0]) for name in ("value", "low", "high"))  # type: ignore[return-value]


def _title(rows: pd.DataFrame, metric: str, task: str) -> str:
    """What was found, with numbers and without praise; the second line says what the bars are."""
    parts = []
    kept = "excess of the kept units" if metric == "excess" else "kept units"
    for condition, words in (("whole", "whole network"), ("kept", kept)):
        if fact := _fact(rows, condition, task):
            parts.append(f"{words} {fact[0]:.2f}")
    learned = [(name, _fact(rows, name, task)) for name in ("relabelled", "shared", "untrained")]
    found = [(fact[0], name) for name, fact in learned if fact]
    if found:
        value, name = (min if metric == "false_alarm" else max)(found)
        parts.append(f"best learned control ({name}) {value:.2f}")
    network = html.escape(str(rows["network"].iloc[0]))
    said = f"{network}: {', '.join(parts)}" if parts else f"{network}: {_name(metric)}"
    over = {"mean": "mean over tasks", "all": "all tasks together"}
    what = f"{_name(metric)}, {over.get(task, task)} in the title"
    return f"{said}<br><sup>{what}; bars are 95 % intervals, of random draws their 2.5-97.5 %</sup>"


def _alt(rows: pd.DataFrame, metric: str, conditions: list[str], task: str) -> str:
    facts = [(name, fact) for name in conditions if (fact := _fact(rows, name, task))]
    said = ", ".join(f"{name} {value:.2f} [{low:.2f}, {high:.2f}]" for name, (value, low, high) in facts)
    over = {"mean": "Mean over tasks", "all": "All tasks together"}.get(task, task)
    chance = f" Chance is {_CHANCE[metric]:g}." if metric in _CHANCE and metric != "excess" else ""
    return f"Dot plot of {_name(metric)} in {rows['network'].iloc[0]}. {over}: {said or 'no value'}.{chance}"


def _name(metric: str) -> str:
    return _AXIS.get(metric, metric).split(" (")[0]


def _visible(pixels: Tensor) -> Tensor:
    """uint8 (N, H, W, 3)."""
    values = pixels / 255 if not pixels.is_floating_point() else pixels
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        values = (values - low) / max(high - low, 1e-12)
    if values.shape[1] != 3:
        values = values.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return (values * 255).round().byte().permute(0, 2, 3, 1).cpu()


def _png(canvas: Tensor) -> str:
    """A data URI of uint8 (H, W, 3). Pillow belongs to `images`, and a PNG without it is this short."""
    height, width, _ = canvas.shape
    lines = b"".join(b"\0" + bytes(line.flatten().tolist()) for line in canvas)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    file = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(lines, 9))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(file).decode()
