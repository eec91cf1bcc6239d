"""The evidence for one class: rows of `whether`, and its sentence."""

from __future__ import annotations

import math
from typing import Any

from nadkit.widgets.answers import Answers
from nadkit.widgets.choice import Choice
from nadkit.widgets.views.needs import State, found, missing

METRICS = {
    "balanced_accuracy_calibrated": "balanced accuracy, calibrated",
    "auroc": "AUROC",
    "balanced_accuracy": "balanced accuracy",
    "recall": "recall",
    "false_alarm": "false alarms",
}

ONLY_HALF = (
    " Learned controls are masks of the size that was learned, so they stand beside a threshold of 0.50 only."
)


def evidence_state(choice: Choice, answers: Answers) -> State:
    """Return what keeping, removing and every control do to the class, for one metric."""
    task = choice.task
    state: State = {
        "title": f"Evidence: can the units of {task} do {task} alone?", "stamp": choice.stamp, "rows": [],
        "metrics": [],
    }  # fmt: skip
    if why := missing(answers):
        return state | {"note": why}
    table = found(answers, [("evidence", task, choice.threshold)], state)[0]
    if table is None:
        return state
    own = plain(table, task)
    metrics = [metric for metric in METRICS if (own["metric"] == metric).any()]
    metric = choice.metric if choice.metric in metrics else metrics[0]
    rows = [row_of(row) for row in own[own["metric"] == metric].itertuples()]
    share = own[(own["condition"] == "kept") & (own["metric"] == "kept_share")]["value"]
    n = int(own[(own["condition"] == "kept") & (own["metric"] == metric)]["n"].max())
    state |= {
        "metrics": [[name, METRICS[name]] for name in metrics],
        "metric": metric,
        "rows": rows,
        "summary": f"{METRICS[metric]} of {task}: "
        + "; ".join(f"{row['name']} {row['text']}" for row in rows),
        "sentence": ("Over all classes: " if len(set(table["task"]) - {"mean", "all"}) > 1 else "")
        + str(table.attrs.get("answer", ""))
        + (ONLY_HALF if choice.threshold != 0.5 else ""),
    }
    if "note" not in state:
        kept = (
            "" if share.empty else f"; kept share {float(share.iloc[0]):.2f}, as of random and learned masks"
        )
        state["note"] = f"{n} test pictures{kept}. Intervals of 95 %; of random, from draw to draw."
    return state


def plain(table: Any, task: str) -> Any:
    """Return the rows of one task that are of no single layer and no other class."""
    rows = table[table["task"] == task]
    for column in ("other_task", "dose", "share"):
        if column in rows:
            rows = rows[rows[column].isna()]
    return rows[rows["layer"].isna() | (rows["layer"] == "all")] if "layer" in rows else rows


def row_of(row: Any) -> dict[str, Any]:
    """Return one row of a table as what is drawn; there is no NaN in JSON."""
    value, low, high = (
        None if math.isnan(one) else round(float(one), 4) for one in (row.value, row.low, row.high)
    )
    text = "no value" if value is None else f"{value:.2f}"
    if value is not None and low is not None and high is not None and (low, high) != (value, value):
        text += f" [{low:.2f}, {high:.2f}]"
    return {"name": str(row.condition), "value": value, "low": low, "high": high, "text": text}
