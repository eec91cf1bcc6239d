"""`MaskSet`: the scores of several tasks over all layers of one network."""

from __future__ import annotations

import html
import math
import numbers
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nadkit.errors import LayerError, MaskFileError, NadkitError, closest
from nadkit.masks import files
from nadkit.masks.checks import reasons_against
from nadkit.masks.joining import join_meta, select_meta
from nadkit.masks.overlaps import overlap
from nadkit.masks.units import Unit

if TYPE_CHECKING:
    import pandas as pd

    from nadkit.masks.checks import NetworkLike


@dataclass(frozen=True, eq=False, repr=False)
class MaskSet:
    """One score in [0, 1] for every task and unit; a unit is kept where its score is above a threshold.

    Scores are stored on the CPU as float32, copied from what is given; thresholds are arguments. 1 keeps,
    0 removes. ``len``, ``in`` and iteration are over task names.

    Examples
    --------
    >>> masks = MaskSet(("shirt", "sneaker"), {"conv": torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.8, 1.0]])})
    >>> masks
    MaskSet of 2 tasks over 3 units in 1 layer; kept share at 0.5: shirt 0.333, sneaker 0.667
    >>> [str(unit) for unit in masks.kept("sneaker")]
    ['conv/1', 'conv/2']
    >>> masks["shirt"].gates("shirt")
    {'conv': tensor([1., 0., 0.])}

    Parameters
    ----------
    tasks
        The names of the tasks, each once.
    scores
        (n_tasks, n_units) for every layer's address, in forward order; finite, in [0, 1].
    history
        How the scores were learned, as a table, or None. A file keeps a summary: at most 11 whole steps.
    meta
        JSON data: network, weights_id, class_names, objective, settings, seed, control, permutation, …
        NumPy numbers become plain ones and tuples lists, so that a file gives back what was put in.

    Raises
    ------
    NadkitError
        A task twice or without a name, no layer, scores of another shape, not finite or outside [0, 1],
        meta that JSON cannot hold.
    """

    tasks: tuple[str, ...]
    scores: Mapping[str, Tensor]
    history: pd.DataFrame | None = None
    meta: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check, copy and freeze what was given."""
        tasks = _checked_names(self.tasks, "task")
        if not isinstance(self.scores, Mapping) or not self.scores:
            raise NadkitError("masks have no layer; give scores as {address: (n_tasks, n_units) tensor}")
        addresses = _checked_names(tuple(self.scores), "layer")
        scores = {address: _checked_scores(address, self.scores[address], tasks) for address in addresses}
        pandas = sys.modules.get("pandas")
        # Without an imported pandas nothing can be a DataFrame, and importing it to ask would cost 0.4 s.
        if self.history is not None and not (pandas and isinstance(self.history, pandas.DataFrame)):
            raise NadkitError(f"history is a {type(self.history).__name__}; give a pandas DataFrame or None")
        if not isinstance(self.meta, Mapping):
            raise NadkitError(f"meta is a {type(self.meta).__name__}; give a mapping")
        object.__setattr__(self, "tasks", tasks)
        object.__setattr__(self, "scores", MappingProxyType(scores))
        object.__setattr__(self, "meta", MappingProxyType(dict(_plain_meta(self.meta))))

    @classmethod
    def from_scores(
        cls, scores: Mapping[str, Tensor], tasks: Sequence[str], meta: Mapping[str, object] | None = None
    ) -> MaskSet:
        """Return masks made of scores at hand.

        Examples
        --------
        >>> MaskSet.from_scores({"conv": torch.eye(2)}, ["shirt", "sneaker"]).kept_share()
        {'shirt': 0.5, 'sneaker': 0.5}

        Parameters
        ----------
        scores, tasks, meta
            As in `MaskSet`.

        Raises
        ------
        NadkitError
            As in `MaskSet`.
        """
        return cls(tuple(tasks) if not isinstance(tasks, str) else (tasks,), scores, None, meta or {})

    @classmethod
    def join(cls, parts: Sequence[MaskSet]) -> MaskSet:
        """Return one set with the tasks of several, in the order given.

        Examples
        --------
        >>> masks = MaskSet.from_scores({"conv": torch.eye(2)}, ["shirt", "sneaker"])
        >>> MaskSet.join([masks["sneaker"], masks["shirt"]]).tasks
        ('sneaker', 'shirt')

        Parameters
        ----------
        parts
            Masks over the same layers of the same network, with different tasks.

        Returns
        -------
        MaskSet
            Its meta holds what all parts agree on; entries that differ are listed part by part under `parts`.
            Its history is that of all parts, if every part has one.

        Raises
        ------
        NadkitError
            No part, a task twice, other layers or units, another network or other weights.
        """
        parts = list(parts)
        if not parts:
            raise NadkitError("no masks to join; give at least one MaskSet")
        first = parts[0]
        for part in parts[1:]:
            _same_units(first, part)
        meta = join_meta([part.tasks for part in parts], [part.meta for part in parts])
        history = None
        tables = [part.history for part in parts if part.history is not None]
        if len(tables) == len(parts):
            import pandas as pd

            history = pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
        scores = {address: torch.cat([part.scores[address] for part in parts]) for address in first.scores}
        return cls(tuple(task for part in parts for task in part.tasks), scores, history, meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MaskSet:
        """Return the masks of a file that `save` wrote.

        Examples
        --------
        >>> import tempfile
        >>> masks = MaskSet.from_scores({"conv": torch.eye(2)}, ["shirt", "sneaker"], {"seed": 0})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     MaskSet.load(masks.save(Path(folder) / "masks.safetensors")) == masks
        True

        Parameters
        ----------
        path
            A .safetensors file.

        Raises
        ------
        MaskFileError
            The file is missing, foreign, truncated, altered, of another format version, or its scores are
            not in [0, 1]; the message says which. No code in a file is ever run.
        """
        contents = files.read(path)
        try:
            return cls(*contents)
        except NadkitError as error:
            raise MaskFileError(f"{path} is refused: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the masks to one .safetensors file, and return its path.

        The file holds the scores, the tasks, the meta, a summary of the history, versions, and the SHA-256
        over all of it. It is complete or not there; the same masks give the same bytes.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     MaskSet.from_scores({"conv": torch.eye(2)}, ["a", "b"]).save(Path(folder) / "m.safetensors").name
        'm.safetensors'

        Parameters
        ----------
        path
            Where to; a file that is there is replaced.

        Raises
        ------
        MaskFileError
            The place cannot be written to.
        """
        return files.write(path, files.encode(self.tasks, self.scores, self.history, self.meta))

    @property
    def unit_counts(self) -> dict[str, int]:
        """The number of units of every layer, in forward order."""
        return {address: rows.shape[1] for address, rows in self.scores.items()}

    def with_meta(self, **entries: object) -> MaskSet:
        """Return the same masks with entries of meta added or replaced.

        Examples
        --------
        >>> MaskSet.from_scores({"conv": torch.eye(1)}, ["shirt"]).with_meta(seed=3).meta["seed"]
        3

        Raises
        ------
        NadkitError
            An entry is not JSON data.
        """
        return MaskSet(self.tasks, self.scores, self.history, {**self.meta, **entries})

    def gates(self, task: str | None = None, threshold: float = 0.5, keep: bool = True) -> dict[str, Tensor]:
        """Return the tensors to multiply in: 1 where a unit is kept and 0 elsewhere, or the complement.

        Examples
        --------
        >>> masks = MaskSet.from_scores({"conv": torch.tensor([[0.9, 0.5]])}, ["shirt"])
        >>> masks.gates("shirt"), masks.gates("shirt", keep=False)
        ({'conv': tensor([1., 0.])}, {'conv': tensor([0., 1.])})

        Parameters
        ----------
        task
            A task's name, or None for all tasks.
        threshold
            In [0, 1]; a unit is kept if its score is strictly above it, both read as float32.
        keep
            False gives the complement, which removes what the task keeps.

        Returns
        -------
        dict
            For every address a new float32 tensor, (n_units,) for one task and (n_tasks, n_units) for all.

        Raises
        ------
        NadkitError
            There is no such task, or the threshold is outside [0, 1].
        """
        row = None if task is None else self._row(task)
        kept = self._kept(threshold)
        chosen = {address: rows if row is None else rows[row] for address, rows in kept.items()}
        return {address: (rows if keep else ~rows).float() for address, rows in chosen.items()}

    def kept(self, task: str, threshold: float = 0.5) -> list[Unit]:
        """Return the units that a task keeps, layer by layer in forward order.

        Examples
        --------
        >>> MaskSet.from_scores({"conv": torch.tensor([[0.9, 0.5]])}, ["shirt"]).kept("shirt")
        [Unit(layer='conv', index=0)]

        Parameters
        ----------
        task
            A task's name.
        threshold
            In [0, 1]; strictly above it is kept.

        Raises
        ------
        NadkitError
            There is no such task, or the threshold is outside [0, 1].
        """
        row = self._row(task)
        return [
            Unit(address, index)
            for address, rows in self._kept(threshold).items()
            for index in rows[row].nonzero().flatten().tolist()
        ]

    def kept_share(self, threshold: float = 0.5, layer: str | None = None) -> dict[str, float]:
        """Return every task's kept units divided by all units, of the network or of one layer.

        Examples
        --------
        >>> masks = MaskSet.from_scores({"conv": torch.tensor([[0.9, 0.5]]), "fc": torch.zeros(1, 2)}, ["shirt"])
        >>> masks.kept_share(), masks.kept_share(layer="conv")
        ({'shirt': 0.25}, {'shirt': 0.5})

        Parameters
        ----------
        threshold
            In [0, 1]; strictly above it is kept.
        layer
            An address; None takes all layers together, every unit counting once.

        Raises
        ------
        NadkitError
            The threshold is outside [0, 1]; `LayerError` if there is no such layer.
        """
        kept = torch.cat([self._kept(threshold)[address] for address in self._addresses(layer)], dim=1)
        counts = kept.sum(1).tolist()
        return {task: count / kept.shape[1] for task, count in zip(self.tasks, counts, strict=True)}

    def random(self, seed: int, threshold: float = 0.5) -> MaskSet:
        """Return masks of random units, as many for every layer and task as are kept here.

        Examples
        --------
        >>> masks = MaskSet.from_scores({"conv": torch.tensor([[0.9, 0.5, 0.1, 0.7]])}, ["shirt"])
        >>> masks.random(seed=0).kept_share()
        {'shirt': 0.5}

        Parameters
        ----------
        seed
            Of a generator of its own; the same seed gives the same units.
        threshold
            In [0, 1]; strictly above it counts as kept.

        Returns
        -------
        MaskSet
            With scores 1 (chosen) and 0. Its meta is that of these masks, with control "random", and the
            seed and threshold of the draw under `random`; entries about another control are left out.

        Raises
        ------
        NadkitError
            The threshold is outside [0, 1].
        """
        generator = torch.Generator().manual_seed(seed)
        scores = {}
        for address, kept in self._kept(threshold).items():
            # Ranks of random numbers are a random permutation; float64 makes a tie practically impossible.
            order = torch.rand(kept.shape, generator=generator, dtype=torch.float64).argsort(1).argsort(1)
            scores[address] = (order < kept.sum(1, keepdim=True)).float()
        meta = {key: value for key, value in self.meta.items() if key not in ("permutation", "reinitialised")}
        draw = {"seed": seed, "threshold": threshold}
        return MaskSet(self.tasks, scores, None, {**meta, "control": "random", "random": draw})

    def overlap(
        self, layer: str | None = None, threshold: float = 0.5, *, other: MaskSet | None = None
    ) -> pd.DataFrame:
        """Return how far the masks of two tasks agree, layer by layer, plain and corrected for chance.

        Examples
        --------
        >>> scores = {"conv": torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])}
        >>> masks = MaskSet.from_scores(scores, ["shirt", "coat", "none"])
        >>> masks.overlap()[["task", "other_task", "shared", "jaccard", "phi", "defined"]].round(3)
            task other_task  shared  jaccard  phi  defined
        0  shirt       coat       1    0.333  0.0     True
        1  shirt       none       0    0.000  NaN    False
        2   coat       none       0    0.000  NaN    False

        Parameters
        ----------
        layer
            An address; None gives rows for every layer.
        threshold
            In [0, 1]; strictly above it is kept.
        other
            Masks over the same layers, such as those of another seed. Then every task here is compared with
            every task there, itself included; without it every pair of tasks here is one row.

        Returns
        -------
        pandas.DataFrame
            Columns task, other_task, layer, units (C), kept (a), other_kept (b), shared (n), jaccard, phi, z,
            defined. Two empty masks are equal: their jaccard is 1. Where a mask keeps none or all of the
            layer's units, chance leaves no spread, so phi and z do not exist: `defined` is false and both are
            NaN, in these rows alone.

        Raises
        ------
        NadkitError
            The threshold is outside [0, 1], or the other masks have other layers; `LayerError` if there is
            no such layer.

        Notes
        -----
        **Source** NAD.md section 5: phi = (Cn − ab) / √(ab(C − a)(C − b)), z = phi · √(C − 1).
        """
        import numpy as np
        import pandas as pd

        if other is not None:
            _same_units(self, other)
        there = self if other is None else other
        mine, theirs = self._kept(threshold), there._kept(threshold)
        shape = (len(self), len(there))
        first, second = np.triu_indices(len(self), 1) if other is None else np.indices(shape).reshape(2, -1)
        tables = []
        for address in self._addresses(layer):
            found = overlap(mine[address], theirs[address])
            values = {name: value.numpy()[first, second] for name, value in found._asdict().items()}
            tables.append(
                pd.DataFrame(
                    {
                        "task": np.array(self.tasks, dtype=object)[first],
                        "other_task": np.array(there.tasks, dtype=object)[second],
                        "layer": address,
                        "units": mine[address].shape[1],
                        **{name: values[name].astype("int64") for name in ("kept", "other_kept", "shared")},
                        **{name: values[name] for name in ("jaccard", "phi", "z", "defined")},
                    }
                )
            )
        return pd.concat(tables, ignore_index=True)

    def to_frame(self, threshold: float = 0.5) -> pd.DataFrame:
        """Return one row for every task and unit, with the columns task, layer, index, score, kept.

        Examples
        --------
        >>> MaskSet.from_scores({"conv": torch.tensor([[0.75, 0.5]])}, ["shirt"]).to_frame()
            task layer  index  score   kept
        0  shirt  conv      0   0.75   True
        1  shirt  conv      1   0.50  False

        Parameters
        ----------
        threshold
            In [0, 1]; strictly above it is kept.

        Raises
        ------
        NadkitError
            The threshold is outside [0, 1].
        """
        import numpy as np
        import pandas as pd

        counts = list(self.unit_counts.values())
        total = sum(counts)
        return pd.DataFrame(
            {
                "task": np.repeat(np.array(self.tasks, dtype=object), total),
                "layer": np.tile(np.repeat(np.array(list(self.scores), dtype=object), counts), len(self)),
                "index": np.tile(np.concatenate([np.arange(count) for count in counts]), len(self)),
                "score": torch.cat(list(self.scores.values()), dim=1).flatten().numpy(),
                "kept": torch.cat(list(self._kept(threshold).values()), dim=1).flatten().numpy(),
            }
        )

    def check(self, network: NetworkLike) -> None:
        """Raise unless these masks are for this network: its name, weights, layers, units and class names.

        What the meta does not say (masks made by `from_scores`) is not compared.

        Examples
        --------
        >>> from types import SimpleNamespace as Thing
        >>> network = Thing(name="net", weights_id="ab", class_names=("a",), layers={"conv": Thing(units=3)})
        >>> MaskSet.from_scores({"conv": torch.eye(2)[:1]}, ["a"]).check(network)
        Traceback (most recent call last):
        nadkit.errors.MaskFileError: these masks are not for the network 'net': layer 'conv' has 3 units there \
and 2 here; learn masks on this network, or load the network they were learned on

        Parameters
        ----------
        network
            A `Network`, or anything with its name, weights_id, class_names and layers.

        Raises
        ------
        MaskFileError
            They are for another network; the message lists every reason.
        """
        if reasons := reasons_against(self.tasks, self.unit_counts, self.meta, network):
            raise MaskFileError(
                f"these masks are not for the network {network.name!r}: {'; '.join(reasons)}; "
                "learn masks on this network, or load the network they were learned on"
            )

    def equal(self, other: object) -> bool:
        """Return whether both have the same tasks, layers, scores and meta, in the same order.

        The history is not compared: it tells how the scores came about, and a file keeps a summary of it.

        Examples
        --------
        >>> masks = MaskSet.from_scores({"conv": torch.eye(2)}, ["shirt", "sneaker"])
        >>> masks.equal(masks["shirt"])
        False
        """
        return (
            isinstance(other, MaskSet)
            and self.tasks == other.tasks
            and list(self.unit_counts.items()) == list(other.unit_counts.items())
            and all(torch.equal(rows, other.scores[address]) for address, rows in self.scores.items())
            and dict(self.meta) == dict(other.meta)
        )

    __eq__ = equal
    # Equal sets would need equal hashes over tensors; nobody keeps masks in a set.
    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, task: str | Sequence[str]) -> MaskSet:
        """Return the masks of one task, or of several in the order asked for."""
        chosen = [task] if isinstance(task, str) else task
        if not isinstance(chosen, list | tuple) or not chosen:
            raise NadkitError(f"masks[{task!r}]: tasks are chosen by name, masks['a'] or masks[['a', 'b']]")
        rows = [self._row(name) for name in chosen]
        scores = {address: values[rows] for address, values in self.scores.items()}
        history = self.history
        if history is not None and "task" in history:
            history = history[history["task"].isin(chosen)].reset_index(drop=True)
        return MaskSet(tuple(chosen), scores, history, select_meta(self.meta, rows, len(self)))

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.tasks)

    def __iter__(self) -> Iterator[str]:
        """Return an iterator over the tasks' names."""
        return iter(self.tasks)

    def __contains__(self, task: object) -> bool:
        """Return whether there is a task of this name."""
        return task in self.tasks

    def __reduce__(self) -> tuple[Any, ...]:
        """Let copies and worker processes rebuild the masks, since a mapping proxy cannot be copied."""
        return MaskSet, (self.tasks, dict(self.scores), self.history, dict(self.meta))

    def __repr__(self) -> str:
        """Return one line: how many tasks, layers and units, whose, and what is kept."""
        shares = [f"{task} {share:.3g}" for task, share in self.kept_share().items()]
        more = f", … ({len(shares)} tasks)" if len(shares) > 10 else ""
        return f"{self._headline()}; kept share at 0.5: {', '.join(shares[:10])}{more}"

    def _repr_html_(self) -> str:
        """Return a table of kept units, one row a layer and one column a task (the first twelve)."""
        shown = self.tasks[:12]
        counts = {address: rows[: len(shown)].sum(1).tolist() for address, rows in self._kept(0.5).items()}
        lines = [("layer", "units", *shown)]
        lines += [(a, str(self.unit_counts[a]), *map(str, kept)) for a, kept in counts.items()]
        lines += [("kept share", "", *(f"{self.kept_share()[task]:.3f}" for task in shown))]
        body = "".join(
            "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line) + "</tr>"
            for line, tag in zip(lines, ["th", *["td"] * (len(lines) - 1)], strict=True)
        )
        return f"<table><caption>{html.escape(self._headline())}; units kept</caption>{body}</table>"

    def _headline(self) -> str:
        layers, units = len(self.scores), sum(self.unit_counts.values())
        words = [str(self.meta[key]) for key in ("network", "objective", "control") if self.meta.get(key)]
        return (
            f"MaskSet of {len(self)} task{'s' * (len(self) != 1)} over {units} units "
            f"in {layers} layer{'s' * (layers != 1)}" + (f" ({', '.join(words)})" if words else "")
        )

    def _row(self, task: str) -> int:
        if task not in self.tasks:
            raise NadkitError(f"no task {task!r} in these masks; {closest(str(task), self.tasks)}")
        return self.tasks.index(task)

    def _addresses(self, layer: str | None) -> list[str]:
        if layer is None:
            return list(self.scores)
        if layer not in self.scores:
            raise LayerError(f"no layer {layer!r} in these masks; {closest(str(layer), self.scores)}")
        return [layer]

    def _kept(self, threshold: float) -> dict[str, Tensor]:
        if not isinstance(threshold, numbers.Real) or not 0 <= threshold <= 1:
            raise NadkitError(f"threshold is {threshold!r}; scores are in [0, 1], give a number there")
        return {address: rows > float(threshold) for address, rows in self.scores.items()}


def _checked_names(names: object, kind: str) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise NadkitError(f"masks need the names of their {kind}s as a tuple, and got {names!r}")
    for place, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise NadkitError(f"{kind} number {place} is named {name!r}; give a text that is not empty")
        if not name.isprintable():
            raise NadkitError(
                f"the {kind} name {name!r} has characters that cannot be printed; leave them out"
            )
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise NadkitError(f"the {kind} {double!r} comes twice; name every {kind} once")
    return tuple(names)


def _checked_scores(address: str, given: object, tasks: tuple[str, ...]) -> Tensor:
    try:
        rows = torch.as_tensor(given).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise NadkitError(f"the scores of layer {address!r} are no tensor: {error}") from None
    if rows.ndim != 2 or rows.shape[0] != len(tasks) or rows.shape[1] < 1 or rows.is_complex():
        raise NadkitError(
            f"the scores of layer {address!r} are {tuple(rows.shape)} of {rows.dtype}; "
            f"expected real numbers of shape ({len(tasks)} tasks, at least 1 unit)"
        )
    bad = ~((rows >= 0) & (rows <= 1))  # not <, > : NaN must count as bad
    if bad.any():
        task, index = bad.nonzero()[0].tolist()
        value = float(rows[task, index])
        what = "is not a number" if math.isnan(value) else f"is {value:g}, outside [0, 1]"
        raise NadkitError(
            f"the score of {address}/{index} for task {tasks[task]!r} {what}; give scores in [0, 1]"
        )
    return rows.to("cpu", torch.float32, copy=True).contiguous()


def _plain_meta(meta: Mapping[str, object]) -> dict[str, object]:
    entries = files.plain(meta)
    return entries if isinstance(entries, dict) else {}


def _same_units(first: MaskSet, second: MaskSet) -> None:
    if list(first.unit_counts.items()) != list(second.unit_counts.items()):
        mine, theirs = first.unit_counts, second.unit_counts
        differing = [a for a in {**mine, **theirs} if mine.get(a) != theirs.get(a)] or ["their order"]
        raise NadkitError(
            f"these masks are over different layers or units ({', '.join(differing[:3])}); "
            "give masks over the same layers of one network"
        )
