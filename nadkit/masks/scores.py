"""Scores of tasks over layers, and what a threshold makes of them."""

from __future__ import annotations

import numbers
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nadkit.errors import LayerError, NadkitError, closest
from nadkit.masks.checks import checked_names, checked_scores
from nadkit.masks.encoding import plain_mapping
from nadkit.masks.units import Unit

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """What `MaskSet` is made of: checked and frozen fields, comparison, and thresholds.

    Examples
    --------
    >>> scores = Scores(("shirt",), {"conv": torch.tensor([[0.9, 0.5]])})
    >>> scores.kept_share()
    {'shirt': 0.5}
    """

    tasks: tuple[str, ...]
    scores: Mapping[str, Tensor]
    history: pd.DataFrame | None = None
    meta: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check, copy and freeze what was given."""
        tasks = checked_names(self.tasks, "task")
        if not isinstance(self.scores, Mapping) or not self.scores:
            raise NadkitError("masks have no layer; give scores as {address: (n_tasks, n_units) tensor}")
        addresses = checked_names(tuple(self.scores), "layer")
        scores = {address: checked_scores(address, self.scores[address], tasks) for address in addresses}
        pandas = sys.modules.get("pandas")
        # Without an imported pandas nothing can be a DataFrame, and importing it to ask would cost 0.4 s.
        if self.history is not None and not (pandas and isinstance(self.history, pandas.DataFrame)):
            raise NadkitError(f"history is a {type(self.history).__name__}; give a pandas DataFrame or None")
        if not isinstance(self.meta, Mapping):
            raise NadkitError(f"meta is a {type(self.meta).__name__}; give a mapping")
        if self.history is not None:
            object.__setattr__(self, "history", self.history.copy())
        object.__setattr__(self, "tasks", tasks)
        object.__setattr__(self, "scores", MappingProxyType(scores))
        object.__setattr__(self, "meta", MappingProxyType(plain_mapping(self.meta)))

    @property
    def unit_counts(self) -> dict[str, int]:
        """The number of units of every layer, in forward order."""
        return {address: rows.shape[1] for address, rows in self.scores.items()}

    def gates(self, task: str | None = None, threshold: float = 0.5, keep: bool = True) -> dict[str, Tensor]:
        """Return the tensors to multiply in: 1 where a unit is kept and 0 elsewhere, or the complement.

        Examples
        --------
        >>> masks = Scores(("shirt",), {"conv": torch.tensor([[0.9, 0.5]])})
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
        kept = self._kept(threshold, row=None if task is None else self._row(task))
        return {address: (rows if keep else ~rows).float() for address, rows in kept.items()}

    def kept(self, task: str, threshold: float = 0.5) -> list[Unit]:
        """Return the units that a task keeps, layer by layer in forward order.

        Examples
        --------
        >>> Scores(("shirt",), {"conv": torch.tensor([[0.9, 0.5]])}).kept("shirt")
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
        return [
            Unit(address, index)
            for address, units in self._kept(threshold, row=self._row(task)).items()
            for index in units.nonzero().flatten().tolist()
        ]

    def kept_share(self, threshold: float = 0.5, layer: str | None = None) -> dict[str, float]:
        """Return every task's kept units divided by all units, of the network or of one layer.

        Examples
        --------
        >>> masks = Scores(("shirt",), {"conv": torch.tensor([[0.9, 0.5]]), "fc": torch.zeros(1, 2)})
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
        kept = torch.cat(list(self._kept(threshold, layer).values()), dim=1)
        counts = kept.sum(1).tolist()
        return {task: count / kept.shape[1] for task, count in zip(self.tasks, counts, strict=True)}

    def equal(self, other: object) -> bool:
        """Return whether both have the same tasks, layers, scores and meta, in the same order.

        The history is not compared: it tells how the scores came about, and a file keeps a summary of it.

        Examples
        --------
        >>> masks = Scores(("shirt",), {"conv": torch.eye(1)})
        >>> masks.equal(Scores(("coat",), masks.scores))
        False
        """
        return (
            isinstance(other, Scores)
            and self.tasks == other.tasks
            and list(self.unit_counts.items()) == list(other.unit_counts.items())
            and all(torch.equal(rows, other.scores[address]) for address, rows in self.scores.items())
            and dict(self.meta) == dict(other.meta)
        )

    __eq__ = equal
    # Equal sets would need equal hashes over tensors; nobody keeps masks in a set.
    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.tasks)

    def __iter__(self) -> Iterator[str]:
        """Return an iterator over the tasks' names."""
        return iter(self.tasks)

    def __contains__(self, task: object) -> bool:
        """Return whether there is a task of this name."""
        return task in self.tasks

    def _row(self, task: str) -> int:
        if task not in self.tasks:
            raise NadkitError(f"no task {task!r} in these masks; {closest(str(task), self.tasks)}")
        return self.tasks.index(task)

    def _kept(self, threshold: float, layer: str | None = None, row: int | None = None) -> dict[str, Tensor]:
        if layer is not None and layer not in self.scores:
            raise LayerError(f"no layer {layer!r} in these masks; {closest(str(layer), self.scores)}")
        if not isinstance(threshold, numbers.Real) or not 0 <= threshold <= 1:
            raise NadkitError(f"threshold is {threshold!r}; scores are in [0, 1], give a number there")
        chosen = self.scores if layer is None else {layer: self.scores[layer]}
        # Of one row alone if asked: a thousand tasks one by one would otherwise compare a million rows.
        return {a: (rows if row is None else rows[row]) > float(threshold) for a, rows in chosen.items()}
