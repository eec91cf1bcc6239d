"""`recovery`, its sentence and its figure."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
import torch

from nadkit import toy
from nadkit.errors import NadkitError
from nadkit.figures import _recovery
from nadkit.figures._recovery import recovery as draw
from nadkit.heatmaps import ranked_masks
from nadkit.learn import OneVsRest, learn_masks
from nadkit.learn.objectives import Batch
from nadkit.questions import recovery_runs
from nadkit.questions.recovery_reading import ATTRIBUTIONS, LEVELS, of_level, recovery_answer
from nadkit.questions.recovery_runs import EASY_AND_HARD, METHODS, METRICS, Bounded, over_both, recovery

DOCS = Path(__file__).parents[1] / "docs"
STEPS = 50
TRIED = [Bounded.name, "feature-ablation", "gradient-x-activation", "activation", "random"]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return recovery(grades=["plain-easy", "plain-hard"], methods=TRIED, seeds=[0, 3], steps=STEPS)


def cell(table: pd.DataFrame, **wanted: Any) -> pd.Series[Any]:
    for name, value in wanted.items():
        table = table[table[name].isna() if value is None else table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def mean_of(table: pd.DataFrame, grade: str, method: str, metric: str) -> float:
    row = cell(table, network=grade, condition=method, metric=metric, task="mean", seed=None)
    return float(row["value"])


# What it must show


def test_bounded_one_vs_rest_finds_all_on_easy_and_most_on_hard_grades(table: pd.DataFrame) -> None:
    assert mean_of(table, "plain-easy", Bounded.name, "average_precision") >= 0.98
    ours = mean_of(table, "plain-hard", Bounded.name, "average_precision")
    assert ours > max(mean_of(table, "plain-hard", name, "average_precision") for name in TRIED[1:])
    assert ours >= 0.9


def test_the_ruler_is_not_too_easy(table: pd.DataFrame) -> None:
    assert mean_of(table, "plain-easy", "activation", "f1") < 0.8
    assert mean_of(table, "plain-easy", "random", "average_precision") < 0.4
    assert mean_of(table, "plain-hard", "gradient-x-activation", "f1") < 0.95


# The table


def test_every_fact_stands_once(table: pd.DataFrame) -> None:
    assert list(table.columns) == [
        "network", "task", "condition", "metric", "value", "low", "high", "n", "seed", "interval",
    ]  # fmt: skip
    keys = ["network", "task", "condition", "metric", "seed"]
    assert not table.duplicated(keys).any()
    # (tasks and their mean) × (two seeds and their mean) × methods × metrics
    assert len(table) == (7 + 10) * 3 * len(TRIED) * len(METRICS)
    assert table["value"].between(0, 1).all()
    assert (table["low"] <= table["value"] + 1e-12).all()
    assert (table["value"] <= table["high"] + 1e-12).all()
    assert list(dict.fromkeys(table["condition"])) == TRIED


def test_values_are_those_of_the_masks_compared_with_the_truth(table: pd.DataFrame) -> None:
    planted = toy.graded("plain-hard", 3)
    masks = learn_masks(
        planted.network, planted.images, objective=OneVsRest(spread=3.0), kept_share="auto", steps=STEPS,
        seed=3, progress=False,
    )  # fmt: skip
    ranked = ranked_masks(planted.network, planted.images, method="feature-ablation", like=masks, seed=3)
    for method, one in ((Bounded.name, masks), ("feature-ablation", ranked)):
        found = toy.compare(one, planted.alternatives).set_index("task")
        for task, metric in itertools.product(("task0", "task6", "task7"), METRICS[:-1]):
            row = cell(table, network="plain-hard", task=task, condition=method, metric=metric, seed=3)
            assert row["value"] == row["low"] == row["high"] == pytest.approx(found.loc[task, metric])
            assert (row["n"], row["interval"]) == (found.loc[task, "needed"], "none: counted")
        row = cell(table, network="plain-hard", task="mean", condition=method, metric="kept_share", seed=3)
        assert row["value"] == pytest.approx(statistics.mean(one.kept_share().values()))
        assert row["n"] == 9


def test_rankings_keep_as_many_units_as_the_bounded_masks(table: pd.DataFrame) -> None:
    rows = table[(table["metric"] == "kept_share") & table["seed"].notna()]
    wide = rows.pivot(index=["network", "task", "seed"], columns="condition", values="value")
    for name in TRIED[1:]:
        assert (wide[name] == wide[Bounded.name]).all()


def test_means_are_over_tasks_and_seeds(table: pd.DataFrame) -> None:
    for grade, method, metric in itertools.product(("plain-easy", "plain-hard"), TRIED, METRICS):
        rows = table[
            (table["network"] == grade) & (table["condition"] == method) & (table["metric"] == metric)
        ]
        single = rows[(rows["task"] != "mean") & rows["seed"].notna()]
        mean = cell(rows, task="mean", seed=None)
        assert mean["value"] == pytest.approx(single["value"].mean())
        assert mean["n"] == len(single)
        assert mean["interval"] == "networks (2 seeds) × tasks"
        one = cell(rows, task="mean", seed=3)
        assert one["value"] == pytest.approx(single[single["seed"] == 3]["value"].mean())
        assert one["interval"] == "tasks"
        task = cell(rows, task="task1", seed=None)
        values = single[single["task"] == "task1"]["value"].tolist()
        assert (task["value"], task["low"], task["high"]) == pytest.approx(
            (statistics.mean(values), min(values), max(values))
        )
        assert (task["n"], task["interval"]) == (2, "lowest to highest of 2 networks")


def test_the_interval_is_wilsons_of_the_variance_of_seeds_and_tasks() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(4, 12, generator=generator).double()
    found = over_both(values)
    # Slow: draw seeds and tasks with replacement, one fewer than there are.
    draws = []
    for _ in range(4000):
        seeds = torch.randint(4, (3,), generator=generator)
        tasks = torch.randint(12, (11,), generator=generator)
        draws.append(float(values[seeds][:, tasks].mean()))
    half = 1.96 * statistics.stdev(draws)
    assert found.value == pytest.approx(float(values.mean()))
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.12)
    # Seeds that differ widen it, and so do tasks.
    seeds_apart = over_both(torch.tensor([[0.2] * 6, [0.8] * 6]))
    alike = over_both(torch.tensor([[0.2, 0.8] * 3, [0.2, 0.8] * 3]))
    assert seeds_apart.high - seeds_apart.low > alike.high - alike.low > 0.2
    perfect = over_both(torch.ones(2, 9))
    assert perfect.value == perfect.high == 1
    assert 0.8 < perfect.low < 0.9


def learn_shortly(*args: Any, **settings: Any) -> Any:
    return learn_masks(*args, **{**settings, "steps": 3, "kept_share": 0.3})


def test_the_same_again_and_no_trace_of_the_global_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_runs, "learn_masks", learn_shortly)
    methods = [Bounded.name, "activation", "random", "other-task"]
    before = torch.random.get_rng_state()
    one, other = (recovery(grades=["concat-easy"], methods=methods, seeds=[3]) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    pd.testing.assert_frame_equal(one, other)


def test_published_objectives_and_ones_of_your_own_are_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(OneVsRest):
        name = "mine"

    asked = []

    def learn(*args: Any, **settings: Any) -> Any:
        asked.append((settings["objective"], settings["kept_share"], settings["steps"]))
        return learn_masks(*args, **{**settings, "steps": 3, "kept_share": 0.3})

    monkeypatch.setattr(recovery_runs, "learn_masks", learn)
    mine = Mine()
    table = recovery(
        grades=["plain-easy"], methods=["official", "routing", mine, "other-task"], seeds=[0], steps=7
    )
    assert list(dict.fromkeys(table["condition"])) == ["official", "routing", "mine", "other-task"]
    assert [(share == "auto", steps) for _, share, steps in asked] == [
        (True, 7), (False, None), (True, None), (True, 7),
    ]  # fmt: skip
    assert isinstance(asked[0][0], Bounded)  # who lends its sizes, learned once
    assert asked[1][1] == pytest.approx(dict.fromkeys(toy.planted().truth, 0.3), abs=0.01)
    assert asked[3][0] is mine


# The bound of the spread


def test_a_bound_keeps_the_loss_from_saturating_and_is_off_by_default() -> None:
    logits = torch.tensor([[8.0, 0.0], [6.0, 0.0], [-9.0, 0.0], [-7.0, 0.0]] * 2, requires_grad=True)
    rows = torch.tensor([0] * 4 + [1] * 4)
    own = torch.tensor([True, True, False, False] * 2)
    extras = torch.tensor([[0.0, 0.0], [-4.0, 0.0]])
    nothing: dict[str, torch.Tensor] = {}
    batch = Batch(
        rows=rows, logit=torch.zeros(8, dtype=torch.long), own=own, target=own.float(), whole=own.float(),
        right=own, logits=logits, activations=nothing, reference=nothing, gates=nothing, extras=extras,
        count=2,
    )  # fmt: skip
    free, bounded = OneVsRest().loss(batch), OneVsRest(spread=3.0).loss(batch)
    odds = torch.tensor([8.0, 6.0, -9.0, -7.0]) * 3 / torch.tensor([8.0, 6.0, -9.0, -7.0]).std(correction=0)
    slow = torch.nn.functional.softplus(-odds[:2]).mean() + torch.nn.functional.softplus(odds[2:]).mean()
    assert bounded[0].item() == pytest.approx(slow.item(), rel=1e-2)
    assert bounded[0] > 10 * free[0]
    # Where the learned scale is smaller than the bound, nothing changes.
    assert bounded[1].item() == free[1].item()
    assert OneVsRest(spread=1e9).loss(batch)[0].item() == free[0].item()


# The sentence


TWO_SEEDS = "networks (2 seeds) × tasks"


def made(levels: dict[str, dict[str, tuple[float, float]]]) -> pd.DataFrame:
    rows = []
    for grade, methods in levels.items():
        for name, (precision, f1) in methods.items():
            for metric, value in (("average_precision", precision), ("f1", f1)):
                for task, seed in (("mean", None), ("mean", 0), ("task0", None)):
                    rows.append((
                        grade, task, name, metric, value if seed is None and task == "mean" else 0.5,
                        max(0.0, value - 0.1), min(1.0, value + 0.05), 18, seed, TWO_SEEDS,
                    ))  # fmt: skip
    columns = ["network", "task", "condition", "metric", "value", "low", "high", "n", "seed", "interval"]
    return pd.DataFrame(rows, columns=columns).astype({"seed": "Int64"})


TWO = {
    "plain-easy": {"one-vs-rest": (1.0, 0.99), "feature-ablation": (0.998, 0.97), "random": (0.1, 0.1)},
    "residual-easy": {"one-vs-rest": (1.0, 0.99), "feature-ablation": (0.998, 0.97), "random": (0.1, 0.1)},
    "plain-hard": {"one-vs-rest": (0.9, 0.85), "feature-ablation": (0.8, 0.75), "random": (0.2, 0.1)},
    "concat-hard": {"one-vs-rest": (0.7, 0.81), "feature-ablation": (0.6, 0.65), "random": (0.0, 0.1)},
}


def test_the_sentence_ranks_by_level_and_names_what_falls_short() -> None:
    assert recovery_answer(made(TWO)) == (
        "On easy grades one-vs-rest and feature-ablation have the highest mean average precision, 1.00 "
        "[0.90, 1.00], next random 0.10; on hard grades one-vs-rest has the highest mean average precision, "
        "0.80 [0.70, 0.85], in whose interval lies feature-ablation 0.70; an F1 below 0.8 have, easy: random "
        "0.10; hard: feature-ablation 0.70, random 0.10; so the ruler discriminates between attributions of "
        "the answer on hard grades."
    )
    assert of_level(made(TWO), "hard", "f1") == pytest.approx(
        {"one-vs-rest": 0.83, "feature-ablation": 0.7, "random": 0.1}
    )
    with pytest.raises(NadkitError, match="no average precision in this table"):
        recovery_answer(made({}))
    with pytest.raises(NadkitError, match="this table has no column low, high; give a table of recovery"):
        recovery_answer(made(TWO).drop(columns=["low", "high"]))


def test_the_sentence_calls_nothing_behind_that_lies_within_the_best_ones_interval() -> None:
    methods = {"routing": (0.94, 1.0), "one-vs-rest-bounded": (0.93, 1.0), "magnitude": (0.85, 1.0)}
    said = recovery_answer(made({"merged": {**methods, "random": (0.83, 1.0)}}))
    assert "0.94 [0.84, 0.99], in whose interval lie one-vs-rest-bounded 0.93, magnitude 0.85;" in said
    assert "random" not in said


def test_the_sentence_gives_the_place_of_the_default_of_learn_masks() -> None:
    methods = {"one-vs-rest-bounded": (1.0, 1.0), "integrated-gradients": (0.95, 1.0), "random": (0.1, 1.0)}
    third = recovery_answer(made({"plain-hard": {"one-vs-rest": (0.7, 1.0), **methods}}))
    assert (
        "in whose interval lies integrated-gradients 0.95; one-vs-rest as it is by default 0.70, third;"
        in (third)
    )
    first = recovery_answer(made({"plain-hard": {"one-vs-rest": (0.999, 1.0), **methods}}))
    assert "one-vs-rest-bounded and one-vs-rest have the highest" in first
    assert "by default" not in first + recovery_answer(made({"plain-hard": methods}))


@pytest.mark.parametrize("blind", ["activation", "magnitude", "random", "official", "routing"])
def test_only_attributions_of_the_answer_make_a_ruler_that_discriminates(blind: str) -> None:
    others = {"one-vs-rest": (1.0, 1.0), blind: (0.1, 0.1)}
    assert recovery_answer(made({"merged": others})).endswith("no attribution of the answer was tried.")
    for name in ("gradient-x-activation", "integrated-gradients", "feature-ablation"):
        easy = recovery_answer(made({"merged": {**others, name: (0.9, 0.9)}}))
        assert easy.endswith("no attribution of the answer falls short: too easy a ruler.")
        assert recovery_answer(made({"merged": {**others, name: (0.9, 0.7)}})).endswith(
            "so the ruler discriminates between attributions of the answer on merged networks."
        )


def test_a_gradient_method_falls_short_on_merged_networks_even_with_the_right_number_of_units() -> None:
    merged = toy.merged(0)
    ranked = ranked_masks(
        merged.network, merged.images, method="integrated-gradients", like=merged.masks, seed=0
    )
    assert toy.compare(ranked, merged.alternatives)["f1"].mean() < 0.8


def test_the_page_says_what_its_table_says() -> None:
    shipped = pd.read_csv(DOCS / "recovery.csv")
    assert f"\n{recovery_answer(shipped)}\n" in (DOCS / "recovery.md").read_text(encoding="utf-8")
    merged = of_level(shipped, "merged", "f1")
    assert all(merged[name] < 0.8 for name in ATTRIBUTIONS)


def test_the_figure_and_the_sentence_have_the_same_levels_and_means() -> None:
    assert _recovery._LEVELS == LEVELS
    assert {grade.split("-")[-1] for grade in toy.GRADES} == set(LEVELS)
    shipped = pd.read_csv(DOCS / "recovery.csv")
    rows = _recovery._means(shipped)
    for level in ("easy", "hard", "merged"):
        said = of_level(shipped, level, "average_precision")
        assert said == {name: _recovery._mean(rows, name, level) for name in METHODS}


def test_the_sentence_is_of_the_table_also_after_a_file(table: pd.DataFrame, tmp_path: Any) -> None:
    assert table.attrs["answer"] == recovery_answer(table)
    table.to_csv(tmp_path / "table.csv", index=False)
    assert recovery_answer(pd.read_csv(tmp_path / "table.csv")) == table.attrs["answer"]


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grades": ["plain-eesy"]}, "no grade 'plain-eesy'; closest: plain-easy"),
        ({"grades": []}, "at least one of: plain-easy"),
        ({"grades": ["merged", "merged"]}, "each once"),
        ({"grades": "merged"}, "grades must be a list of names; got 'merged'"),
        ({"grades": 3}, "grades must be a list of names; got 3"),
        ({"methods": 3}, "methods must be a list of names and objectives; got 3"),
        ({"methods": [3]}, "no method 3"),
        ({"methods": ["one-vs-all"]}, "no method 'one-vs-all'; closest: one-vs-rest"),
        ({"methods": []}, "each once, at least one"),
        ({"methods": "random"}, "methods must be a list"),
        ({"methods": ["one-vs-rest", OneVsRest()]}, "each once"),
        ({"seeds": []}, "seeds are"),
        ({"seeds": 3}, "give a list of whole numbers"),
        ({"seeds": [0, 0]}, "each once"),
        ({"seeds": [0.5]}, "a seed = 0.5; give a whole number"),
        ({"seeds": [True]}, "a seed = True; give a whole number"),
        ({"seeds": [0, 2**70]}, "a seed = 1180591620717411303424; give a whole number of 0 to 4294967295"),
        ({"seeds": [-1]}, "a seed = -1; give a whole number of 0"),
        ({"steps": 0}, "steps = 0; give a whole number of 1 or more"),
        ({"steps": True}, "steps = True; give a whole number of 1 or more"),
        ({"steps": "x"}, "steps = 'x'; give a whole number of 1 or more"),
    ],
)
def test_wrong_settings_say_what_is_there(
    settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: Any) -> None:
        raise AssertionError("refuse before anything is learned")

    monkeypatch.setattr(recovery_runs, "_toy", too_late)
    with pytest.raises(NadkitError, match=message):
        recovery(**settings)


def test_the_default_is_both_ends_of_the_ruler() -> None:
    assert set(EASY_AND_HARD) < set(toy.GRADES)
    assert {grade.split("-")[-1] for grade in EASY_AND_HARD} == {"easy", "hard", "merged"}
    assert {grade.split("-")[0] for grade in EASY_AND_HARD} == {"plain", "residual", "concat", "merged"}
    assert METHODS[:4] == ("one-vs-rest-bounded", "one-vs-rest", "official", "routing")
    assert "integrated-gradients" in METHODS


# The figure


def test_a_mark_a_grade_in_the_row_of_its_method() -> None:
    figure = draw(made(TWO))
    assert isinstance(figure, go.Figure)
    assert len(figure.data) == 2 * 4
    assert [trace.name for trace in figure.data[::2]] == list(TWO)
    assert list(figure.layout.yaxis.ticktext) == ["one-vs-rest", "feature-ablation", "random"]
    first, second = figure.data[:2]
    assert list(first.x) == [1.0, 0.998, 0.1]
    assert list(second.x) == [0.99, 0.97, 0.1]
    assert list(first.error_x.arrayminus) == pytest.approx([0.1, 0.1, 0.1])
    assert list(first.error_x.array) == pytest.approx([0.0, 0.002, 0.05])
    # No two marks of a row at one height, and none in the row of another method.
    heights = [trace.y[0] for trace in figure.data[::2]]
    assert sorted(heights) == heights
    assert len(set(heights)) == 4
    assert all(-0.5 < height < 0.5 for height in heights)
    assert [round(trace.y[2]) for trace in figure.data] == [2] * 8
    looks = {(trace.marker.symbol, trace.marker.color) for trace in figure.data}
    assert len(looks) == 4
    assert [trace.showlegend for trace in figure.data] == [True, False] * 4


def test_ten_grades_are_told_apart() -> None:
    methods = {"one-vs-rest": (1.0, 1.0), "random": (0.1, 0.1)}
    figure = draw(made(dict.fromkeys(toy.GRADES, methods)))
    assert len({(trace.marker.symbol, trace.marker.color) for trace in figure.data}) == len(toy.GRADES)


def test_the_words_of_the_figure() -> None:
    figure = draw(made(TWO))
    title = figure.layout.title.text.split("<br><sup>")[0].replace("<br>", " ")
    assert title == (
        "Planted units, best average precision: easy one-vs-rest 1.00, then feature-ablation 1.00; "
        "hard one-vs-rest 0.80, then feature-ablation 0.70"
    )
    alt = figure.layout.meta["alt"]
    assert "Average precision on plain-hard: one-vs-rest 0.90 [0.80, 0.95], feature-ablation 0.80" in alt
    assert "F1 on concat-hard: one-vs-rest 0.81 [0.71, 0.86]" in alt
    below = "mean over {}; bars are 95 % intervals"
    assert figure.layout.title.text.endswith(f"<sup>{below.format(TWO_SEEDS)}</sup>")
    one_seed = draw(made(TWO).assign(interval="tasks")).layout.title.text
    assert one_seed.endswith(f"<sup>{below.format('tasks')}</sup>")
    axes = [axis.title.text.replace("<br>", " ") for axis in (figure.layout.xaxis, figure.layout.xaxis2)]
    assert axes == ["average precision of the scores (share)", "F1 of the kept units (share)"]
    empty = made(TWO)
    empty.loc[empty["network"] == "plain-easy", "value"] = float("nan")
    assert "Average precision on plain-easy: no value" in draw(empty).layout.meta["alt"]


def test_tables_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(NadkitError, match=r"draws a table of nk.recovery; this has no column condition"):
        draw(made(TWO).drop(columns="condition"))
    rows = made(TWO)
    with pytest.raises(NadkitError, match="no f1 of task 'mean'"):
        draw(rows[rows["metric"] != "f1"])
    with pytest.raises(NadkitError, match="no average_precision of task 'mean'"):
        draw(rows[rows["seed"].notna()])
