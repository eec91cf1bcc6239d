"""How well objectives and baselines find units that are known, because they were planted."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor

from nadkit.errors import NadkitError, closest
from nadkit.heatmaps import METHODS as BASELINES
from nadkit.heatmaps import ranked_masks
from nadkit.learn import Objective, OneVsRest, learn_masks
from nadkit.masks import MaskSet
from nadkit.measures import Estimate, effective, resample_seeds
from nadkit.questions.asked import check_number
from nadkit.questions.recovery_reading import recovery_answer
from nadkit.toy import GRADES, Planted, compare, graded
from nadkit.toy.checks import SEEDS

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Bounded(OneVsRest):
    """One-vs-rest for networks that answer without a doubt, as planted ones do: its loss does not saturate.

    Examples
    --------
    >>> Bounded().spread, OneVsRest().spread
    (3.0, None)
    """

    name: ClassVar[str] = "one-vs-rest-bounded"
    spread: float | None = 3.0


METHODS: tuple[str, ...] = (
    Bounded.name, "one-vs-rest", "official", "routing",
    *(name for name in BASELINES if name != "other-task"),
)  # fmt: skip
"""What is compared by default: the objectives by name, then what `heatmaps` ranks units by."""

EASY_AND_HARD = ("plain-easy", "residual-easy", "plain-hard", "concat-hard", "merged")
"""The grades of the default: both ends of the ruler, every wiring."""

METRICS = ("average_precision", "precision", "recall", "f1", "kept_share")
COLUMNS = (
    "network", "task", "condition", "metric", "value", "low", "high", "n", "seed", "interval",
)  # fmt: skip
DRAWS = 1000
COUNTED = "none: counted"


class _Found(NamedTuple):
    """One method on one toy: (n_tasks, n_metrics) values, and how many units each task needs."""

    values: Tensor
    needed: Tensor


def recovery(
    *,
    grades: Sequence[str] | None = None,
    methods: Sequence[str | Objective] | None = None,
    seeds: Sequence[int] = (0, 1),
    steps: int = 80,
    progress: bool = False,
) -> pd.DataFrame:
    """Return how well learned masks and baselines find the units of networks whose true units are planted.

    The number of true units is given to no method. One-vs-rest and routing find it by `kept_share="auto"`,
    the smallest faithful mask. All others cannot, and are lent what one-vs-rest with a bound found: the
    official recipe each task's kept share, the rankings each task's number of units in every layer.

    Examples
    --------
    >>> methods = ["one-vs-rest-bounded", "random"]
    >>> table = recovery(grades=["plain-easy"], methods=methods, seeds=[0], steps=40)
    >>> rows = table.query("task == 'mean' and metric == 'average_precision' and seed.isna()")
    >>> [(name, value > 0.8) for name, value in zip(rows["condition"], rows["value"])]
    [('one-vs-rest-bounded', True), ('random', False)]

    Parameters
    ----------
    grades
        Some of `nadkit.toy.GRADES`; by default two easy and two hard ones and the merged networks, all in
        about two minutes.
    methods
        Some of `METHODS`, "other-task", or objectives of your own, which get `kept_share="auto"`; by default
        all of `METHODS`. "one-vs-rest-bounded" is `OneVsRest(spread=3)`, "one-vs-rest" has no bound, which
        is the default of `learn_masks`; see there.
    seeds
        Whole numbers from 0 to 2³² − 1, each once. Each is a network of its own of every grade, and the seed
        of the learning.
    steps
        Of each run of one-vs-rest and of objectives of your own, at least 1. The official recipe and routing
        take their own numbers of steps.
    progress
        Show a bar.

    Returns
    -------
    pandas.DataFrame
        One row one fact: network (the grade), task, condition (the method), metric, value, low, high, n,
        seed, interval. Metrics, all in [0, 1]:

        average_precision
            Of the scores of all units against the true ones, `toy.average_precision`.
        precision, recall, f1
            Of the kept units. Where several sets of units would do for a task, the best-fitting counts.
        kept_share
            Kept units of all units.

        A task of one seed is counted (n: its true units). Without a seed stand the means over seeds: of a
        task (n: seeds) from the lowest to the highest, of task "mean" (n: tasks × seeds) with an interval of
        95 % over networks and tasks. `attrs["answer"]` is the table in one sentence.

    Raises
    ------
    NadkitError
        An unknown grade or method; no grade, method or seed, or one twice; steps below 1.

    Notes
    -----
    Networks of several seeds differ in all that is drawn: weights, order of units, cross-talk, pictures. The
    interval resamples seeds and tasks, and is Wilson's of as many trials as that variance amounts to. With
    two seeds it says little about further networks; the tasks of a grade are of the same kinds in all.

    Rankings order units within each layer. Since the number of units per layer is lent to them, their
    average precision is what they reach with the right one, wherever one-vs-rest with a bound has it right.
    """
    chosen = _checked("grades", EASY_AND_HARD if grades is None else grades, GRADES)
    tried = _methods(METHODS if methods is None else methods)
    numbers = _seeds(seeds)
    check_number("steps", steps, 1)
    from tqdm.auto import tqdm

    rows: list[dict[str, object]] = []
    with tqdm(total=len(chosen) * len(numbers) * len(tried), desc="recovery", disable=not progress) as bar:
        for grade in chosen:
            found: dict[str, list[_Found]] = {name: [] for name in tried}
            tasks: tuple[str, ...] = ()
            for seed in numbers:
                toy = graded(grade, seed)
                tasks = tuple(toy.truth)
                for name, one in _toy(toy, tried, seed, steps, bar.update):
                    found[name].append(one)
            for name, several in found.items():
                rows += _rows(grade, name, tasks, several, numbers)
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64", "n": "int64"})
    table.attrs["answer"] = recovery_answer(table)
    return table


def _toy(
    toy: Planted,
    methods: Mapping[str, str | Objective],
    seed: int,
    steps: int,
    tick: Callable[[], object],
) -> Iterator[tuple[str, _Found]]:
    """Yield every method's masks of one network, compared with the truth."""

    def learn(objective: str | Objective, kept_share: str | dict[str, float], steps: int | None) -> MaskSet:
        return learn_masks(
            toy.network, toy.images, objective=objective, kept_share=kept_share, steps=steps, seed=seed,
            progress=False,
        )  # fmt: skip

    @functools.cache
    def lender() -> MaskSet:
        return learn(Bounded(), "auto", steps)

    for name, method in methods.items():
        if isinstance(method, Objective) or name == "one-vs-rest":
            masks = learn(method, "auto", steps)
        elif name == "routing":
            masks = learn(method, "auto", None)
        elif name == "official":
            masks = learn(method, lender().kept_share(), None)
        elif name == Bounded.name:
            masks = lender()
        else:
            masks = ranked_masks(toy.network, toy.images, method=name, like=lender(), seed=seed)
        table = compare(masks, toy.alternatives)
        table["kept_share"] = list(masks.kept_share().values())
        yield name, _Found(torch.tensor(table[list(METRICS)].values), torch.tensor(table["needed"].values))
        tick()


def _rows(
    grade: str, method: str, tasks: Sequence[str], found: Sequence[_Found], seeds: Sequence[int]
) -> Iterator[dict[str, object]]:
    """Yield the facts of one method on one grade, over its seeds."""
    stack = torch.stack([one.values for one in found])  # (n_seeds, n_tasks, n_metrics)

    def row(
        task: str, metric: str, found: Estimate, n: int, seed: int | None, interval: str
    ) -> dict[str, object]:
        return {
            "network": grade, "task": task, "condition": method, "metric": metric, "value": found.value,
            "low": found.low, "high": found.high, "n": n, "seed": seed, "interval": interval,
        }  # fmt: skip

    several = f"lowest to highest of {len(seeds)} networks"
    for place, metric in enumerate(METRICS):
        values = stack[..., place]
        for at, seed in enumerate(seeds):
            for k, task in enumerate(tasks):
                value = float(values[at, k])
                yield row(
                    task, metric, Estimate(value, value, value), int(found[at].needed[k]), seed, COUNTED
                )
            yield row("mean", metric, over_both(values[at : at + 1]), len(tasks), seed, "tasks")
        for k, task in enumerate(tasks):
            one = values[:, k]
            estimate = Estimate(float(one.mean()), float(one.min()), float(one.max()))
            yield row(task, metric, estimate, len(seeds), None, several if len(seeds) > 1 else COUNTED)
        words = f"networks ({len(seeds)} seeds) × tasks" if len(seeds) > 1 else "tasks"
        yield row("mean", metric, over_both(values), values.numel(), None, words)


def over_both(values: Tensor) -> Estimate:
    """Return the mean of shares (n_seeds, n_tasks) with its interval of 95 %: seeds and tasks vary.

    Examples
    --------
    >>> found = over_both(torch.tensor([[0.5, 1.0, 0.75], [0.5, 1.0, 0.75]]))
    >>> found.value, 0.4 < found.low < 0.6, 0.8 < found.high < 1
    (0.75, True, True)
    """
    seeds, tasks = values.shape
    drawn_seeds = resample_seeds(seeds, DRAWS, 0)
    drawn_tasks = resample_seeds(tasks, DRAWS, 1)
    draws = torch.einsum("ds,st,dt->d", drawn_seeds, values.double(), drawn_tasks)
    mean = min(1.0, math.fsum(values.flatten().tolist()) / values.numel())
    return effective(mean, float(draws.var()), values.numel())


def _checked(what: str, given: Sequence[str], there: Sequence[str]) -> list[str]:
    """Return names that exist, each once and at least one."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise NadkitError(f"{what} must be a list of names; got {given!r}")
    names = list(given)
    for name in names:
        if name not in there:
            raise NadkitError(f"no {what[:-1]} {name!r}; {closest(str(name), there)}")
    if not names or len(set(names)) < len(names):
        raise NadkitError(f"{what} are {names}; give each once, at least one of: {', '.join(there)}")
    return names


def _methods(given: Sequence[str | Objective]) -> dict[str, str | Objective]:
    if isinstance(given, (str, Objective)) or not isinstance(given, Sequence):
        raise NadkitError(f"methods must be a list of names and objectives; got {given!r}")
    names = [one.name if isinstance(one, Objective) else one for one in given]
    own = {one.name for one in given if isinstance(one, Objective)}
    _checked("methods", names, list(dict.fromkeys([*METHODS, "other-task", *own])))
    return dict(zip(names, given, strict=True))


def _seeds(given: Sequence[int]) -> list[int]:
    numbers = list(given) if isinstance(given, Sequence) else []
    for one in numbers:
        if check_number("a seed", one, 0) >= SEEDS:
            raise NadkitError(f"a seed = {one}; give a whole number of 0 to {SEEDS - 1}")
    if not numbers or len(set(numbers)) < len(numbers):
        raise NadkitError(f"seeds are {given!r}; give a list of whole numbers, each once, at least one")
    return numbers
