"""The tables of `why`: errors against similarities as dots, and one picture's units as bars."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, NamedTuple

from nadkit.errors import NadkitError, closest
from nadkit.figures._marks import INK, MARKS, OTHER, broken, room_for, title_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_NAMES = {
    "overlap": "overlap of masks (φ)",
    "jaccard": "overlap of masks (Jaccard)",
    "classifier_weights": "classifier weights (cosine)",
    "mean_features": "mean features (cosine)",
    "mean_confusions": "the network's mean confusions",
}
_MOST = 8
"""Silent and active units that are drawn; the rest is counted in the title."""

_WIDEST = 20
"""Letters of an address that fit beside a panel; of longer ones the end is shown."""


class _Fact(NamedTuple):
    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def why(table: pd.DataFrame, task: str = "all") -> go.Figure:
    """Return a table of `nk.why` as dots, a row a similarity; of one picture, as bars, one a unit.

    Examples
    --------
    >>> import pandas as pd
    >>> columns = ["network", "task", "condition", "metric", "value", "low", "high", "n"]
    >>> rows = [("net", "all", "overlap", "top_share", 0.7, 0.6, 0.8, 90),
    ...         ("net", "all", "overlap", "top_share_chance", 0.3, 0.3, 0.3, 10)]
    >>> why(pd.DataFrame(rows, columns=columns)).layout.meta["alt"]
    'Dot plot of 90 errors of net. One of the 3 nearest classes: overlap of masks (φ) 0.70 [0.60, 0.80], ...'

    Parameters
    ----------
    table
        As `nk.why` returns it, of one network, with or without `image`.
    task
        A task of the table, whose errors alone are drawn, without p-values; "all" for all errors.

    Returns
    -------
    plotly.graph_objects.Figure
        Of all errors: on the left the share that falls on the nearest classes, on the right the AUC without
        hubs, with chance marked and p-values named. Of one picture: on the left the response of its silent
        and active units, at most 8 of each; on the right the margin as units are removed.

    Raises
    ------
    NadkitError
        No table of `why`, several networks in one table, or no such task (the closest is named).
    """
    _check(table)
    if "unit" in table.columns:
        return _picture(table)
    tasks = table["task"].unique().tolist()
    if task not in tasks:
        raise NadkitError(f"no task {task!r} in the table; {closest(str(task), tasks)}")
    return _errors(table, task)


def _check(table: pd.DataFrame) -> None:
    needed = ("network", "task", "condition", "metric", "value", "low", "high", "n")
    missing = [name for name in needed if name not in getattr(table, "columns", ())]
    metric = "margin" if "unit" in getattr(table, "columns", ()) else "top_share"
    if missing or metric not in set(table["metric"]):
        raise NadkitError(
            "figures.why draws a table of nk.why; this has no "
            + (f"column {', '.join(missing)}" if missing else f"row of {metric}")
        )
    networks = table["network"].unique().tolist()
    if len(networks) > 1:
        raise NadkitError(
            f"the table is of {len(networks)} networks; draw one: table[table['network'] == {networks[0]!r}]"
        )


def _fact(table: pd.DataFrame, task: str, condition: str, metric: str) -> _Fact | None:
    rows = table[
        (table["task"] == task) & (table["condition"] == condition) & (table["metric"] == metric)
    ].dropna(subset="value")
    if rows.empty:
        return None
    value, low, high = (float(rows[name].iloc[0]) for name in ("value", "low", "high"))
    return _Fact(value, low, high, int(rows["n"].iloc[0]))


def _errors(table: pd.DataFrame, task: str) -> go.Figure:
    from plotly.subplots import make_subplots

    network = str(table["network"].iloc[0])
    named = [name for name in _NAMES if name in set(table["condition"])]
    shares = [_fact(table, task, name, "top_share") for name in named]
    aucs = [_fact(table, task, name, "auc_centred") for name in named]
    chances = [_fact(table, "all", name, "top_share_chance") for name in named]
    tops = [min(round(chance.value * chance.n), chance.n) for chance in chances if chance]
    nearest = (
        "the nearest class" if tops[:1] == [1] else f"one of the {tops[0] if tops else 'top'} nearest classes"
    )
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04)
    halves = [half.value if half else None for half in chances]
    panels: list[tuple[str, list[_Fact | None], list[float | None]]] = [
        (f"errors on {nearest}", shares, halves),
        ("AUC without hubs", aucs, [0.5] * len(named)),
    ]
    for column, (axis, facts, chance) in enumerate(panels, 1):
        figure.add_trace(_chances(chance, column == 1), row=1, col=column)
        for place, (name, fact) in enumerate(zip(named, facts, strict=True)):
            if fact:
                figure.add_trace(_dot(place, name, fact), row=1, col=column)
        lowest = min([0.4, *(value for value in chance if value), *(fact.low for fact in facts if fact)])
        unit = "(share of errors)" if column == 1 else "(chance to be the nearer of two)"
        figure.update_xaxes(
            title=f"{broken(axis, 20)}<br>{broken(unit, 20)}", range=[lowest - 0.05, 1.03], row=1, col=column
        )
    ticks = [_tick(table, task, name, share) for name, share in zip(named, shares, strict=True)]
    figure.update_yaxes(
        tickvals=list(range(len(named))), ticktext=ticks, range=[len(named) - 0.5, -0.5],
        showgrid=True, zeroline=False, automargin=True,
    )  # fmt: skip
    figure.update_yaxes(title="similarity of classes", row=1, col=1)
    first = shares[0] if shares else None
    of = "" if task == "all" else f" of {task}"
    said = f"{network}: no error{of} to rank"
    if first and halves[0] is not None:
        said = f"{network}: {100 * first.value:.0f} % of {first.n:,} errors{of} are on {nearest} by overlap, "
        said += f"{100 * halves[0]:.0f} % by chance"
    title = title_of(said, "bars are 95 % intervals for these classes; p from permuted classes, of the AUC")
    _lay_out(figure, title, 110 + 46 * len(named), _errors_alt(table, task, named, nearest))
    return figure


def _tick(table: pd.DataFrame, task: str, name: str, share: _Fact | None) -> str:
    p = _fact(table, task, name, "p_value")
    below = "no value" if share is None else f"p = {p.value:.2g}" if p else f"{share.n} errors"
    strong = f"<b>{_NAMES[name]}</b>" if name == "overlap" else _NAMES[name]
    return f"{strong}<br>{below}"


def _chances(values: list[float | None], legend: bool) -> go.Scatter:
    import plotly.graph_objects as go

    return go.Scatter(
        name="chance",
        mode="markers",
        x=values,
        y=list(range(len(values))),
        showlegend=legend,
        hovertemplate="chance: %{x:.2f}<extra></extra>",
        marker={"symbol": "line-ns-open", "size": 30, "color": OTHER.colour, "line": {"width": 2}},
    )


def _dot(place: int, name: str, fact: _Fact) -> go.Scatter:
    import plotly.graph_objects as go

    mark = MARKS["kept"] if name in ("overlap", "jaccard") else MARKS["whole"]
    symbol = "circle" if name in ("overlap", "jaccard") else "diamond"
    return go.Scatter(
        name=name,
        mode="markers",
        x=[fact.value],
        y=[place],
        showlegend=False,
        hovertemplate=f"{_NAMES[name]}: {fact}, n = {fact.n}<extra></extra>",
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [fact.high - fact.value],
            "arrayminus": [fact.value - fact.low],
            "color": mark.colour,
            "thickness": 2,
            "width": 0,
        },
        marker={"symbol": symbol, "size": 8, "color": mark.colour},
    )


def _errors_alt(table: pd.DataFrame, task: str, named: list[str], nearest: str) -> str:
    parts, errors = [], 0
    for name in named:
        share, p = _fact(table, task, name, "top_share"), _fact(table, task, name, "p_value")
        auc, chance = _fact(table, task, name, "auc_centred"), _fact(table, "all", name, "top_share_chance")
        if share is None:
            parts.append(f"{_NAMES[name]} no value")
            continue
        errors = max(errors, share.n)
        said = f"{_NAMES[name]} {share}"
        said += f", chance {chance.value:.2f}" if chance and name == named[0] else ""
        said += f", AUC without hubs {auc}" if auc else ""
        parts.append(said + (f", p = {p.value:.2g}" if p else ""))
    what = nearest[0].upper() + nearest[1:]
    of = "" if task == "all" else f" on pictures of {task}"
    return f"Dot plot of {errors:,} errors{of} of {table['network'].iloc[0]}. {what}: {'; '.join(parts)}."


def _picture(table: pd.DataFrame) -> go.Figure:
    from plotly.subplots import make_subplots

    first = table[(table["condition"] == "whole") & (table["metric"] == "margin")].iloc[0]
    true, other = str(first["task"]), str(first["other_task"])
    kinds = {"silent": (true, MARKS["removed"].colour), "active": (other, MARKS["kept"].colour)}
    figure = make_subplots(rows=1, cols=2, column_widths=[0.56, 0.44], horizontal_spacing=0.29)
    counts, names = {}, list[str]()
    for kind, (task, colour) in kinds.items():
        found = table[table["metric"] == kind].dropna(subset="value")
        counts[kind] = len(found)
        shown = found[:_MOST] if kind == "silent" else found[:_MOST][::-1]
        labels = _units(shown)
        bar = _bar(f"{kind}, kept by {html.escape(task)}", labels, shown, len(names), [colour] * len(labels))
        figure.add_trace(bar, row=1, col=1)
        names += labels
    steps = table[table["metric"] == "margin"]
    labels = ["whole network", *(f"− {name}" for name in _units(steps[1:]))]
    colours = ["#767676" if value <= 0 else "#009E73" for value in steps["value"]]
    margin = _bar("margin", labels, steps, 0, colours)
    figure.add_trace(margin.update(showlegend=False), row=1, col=2)
    rows = max(len(names), len(labels), 6)
    for column, ticks in enumerate((names, labels), 1):
        short = [tick if len(tick) <= _WIDEST else f"…{tick[-_WIDEST:]}" for tick in ticks]
        figure.update_yaxes(
            tickvals=list(range(len(ticks))), ticktext=[html.escape(tick) for tick in short],
            range=[rows - 0.5, -0.5], showgrid=False, automargin=True, tickfont={"size": 12},
            row=1, col=column,
        )  # fmt: skip
    figure.update_xaxes(title=broken(f"response (spreads from a usual picture of {true})", 24), row=1, col=1)
    figure.update_xaxes(title=broken(f"margin of {true} (logits; above 0 it is answered)", 20), row=1, col=2)
    figure.update_xaxes(zeroline=True, zerolinecolor="#1b1f24", zerolinewidth=1.5)
    figure.update_yaxes(title="unit", row=1, col=1)
    figure.update_yaxes(title="removed so far", row=1, col=2)
    title, said = _picture_words(table, true, other, counts)
    _lay_out(figure, title, 110 + 24 * rows, said)
    return figure


def _units(rows: pd.DataFrame) -> list[str]:
    return [f"{layer}/{unit}" for layer, unit in zip(rows["layer"], rows["unit"], strict=True)]


def _bar(name: str, labels: list[str], rows: pd.DataFrame, first: int, colours: list[str]) -> go.Bar:
    """Bars one below the other, from the row `first` on."""
    import plotly.graph_objects as go

    return go.Bar(
        name=name,
        orientation="h",
        x=rows["value"].tolist(),
        y=list(range(first, first + len(labels))),
        width=0.8,
        marker={"color": colours},
        customdata=labels,
        hovertemplate="%{customdata}: %{x:.2f}<extra></extra>",
    )


def _picture_words(
    table: pd.DataFrame, true: str, other: str, counts: dict[str, int]
) -> tuple[dict[str, object], str]:
    """The title and the alternative text."""
    network = str(table["network"].iloc[0])
    flipped, random = (
        _fact(table, true, condition, "flipped") for condition in ("removed", "removed_random")
    )
    found = _fact(table, true, "removed_random", "found")
    head = f"{network} answers a picture of {true} with {other}"
    turn = "no removal brings the answer nearer"
    if flipped:
        verb = "turns" if flipped.value else "does not turn"
        turn = f"removing {flipped.n} unit{'s' * (flipped.n != 1)} {verb} it"
    random_words = (
        f"random sets of as many turn it in {100 * random.value:.1f} %" if random else "no random sets"
    )
    if found:
        random_words += f", searches among random units in {100 * found.value:.0f} %"
    seen = f"{counts['silent']} silent and {counts['active']} active units, at most {_MOST} of each drawn"
    title = title_of(f"{head}; {turn}", f"{random_words}; {seen}")
    margins = [float(value) for value in table[table["metric"] == "margin"]["value"]]
    path = ", ".join(f"{value:.2f}" for value in margins)
    alt = (
        f"Bars of one picture: {head}. {counts['silent']} units that {true} keeps are silent and "
        f"{counts['active']} that {other} keeps are active. The margin of {true} goes {path}: {turn}; "
        f"{random_words}."
    )
    return title, alt


def _lay_out(figure: go.Figure, title: dict[str, object], height: int, alt: str) -> None:
    top = room_for(title) + 30  # and the legend
    figure.update_layout(
        template="plotly_white",
        height=top + height,
        margin={"l": 10, "r": 10, "t": top, "b": 90},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        title=title,
        font=INK,
        meta={"alt": alt},
    )
