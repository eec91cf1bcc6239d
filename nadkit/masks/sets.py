"""`MaskSet`: the scores of several tasks over all layers of one network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nadkit.errors import MaskFileError, NadkitError
from nadkit.masks import files
from nadkit.masks.checks import checked_names, reasons_against
from nadkit.masks.encoding import encode
from nadkit.masks.joining import join_meta, select_meta
from nadkit.masks.scores import Scores
from nadkit.masks.tables import kept_html, overlap_table, score_table

if TYPE_CHECKING:
    import pandas as pd

    from nadkit.masks.checks import NetworkLike


@dataclass(frozen=True, eq=False, repr=False)
class MaskSet(Scores):
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
        return cls(checked_names(tasks, "task"), scores, None, {} if meta is None else meta)

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
            raise MaskFileError(f"mask file {str(path)!r} is refused: {error}") from None
        except (MemoryError, RuntimeError) as error:  # torch's is a RuntimeError
            raise MaskFileError(f"mask file {str(path)!r} is refused: it takes too much memory") from error

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the masks to one .safetensors file, and return its path.

        The file holds the scores, the tasks, the meta, a summary of the history, versions, and the SHA-256
        over all of it. It is complete or not there; the same masks give the same bytes.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     masks = MaskSet.from_scores({"conv": torch.eye(2)}, ["a", "b"])
        ...     masks.save(Path(folder) / "m.safetensors").name
        'm.safetensors'

        Parameters
        ----------
        path
            Where to; a file that is there is replaced.

        Raises
        ------
        MaskFileError
            The place cannot be written to; the meta or the history are too long to be read back (some
            megabytes). A file that was there is as before.
        """
        data = encode(self.tasks, self.scores, self.history, self.meta)
        files.check(path, data)
        return files.write(path, data)

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
            # The order of random numbers is a random permutation; in float64 ties hardly happen.
            order = torch.rand(kept.shape, generator=generator, dtype=torch.float64).argsort(1)
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
        **Source** The correlation of two masks as numbers 0 and 1: phi = (Cn − ab) / √(ab(C − a)(C − b)),
        z = phi · √(C − 1).
        """
        kept = self._kept(threshold, layer)
        if other is None:
            return overlap_table(self.tasks, kept)
        _same_units(self, other)
        return overlap_table(self.tasks, kept, other.tasks, other._kept(threshold))

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
        return score_table(self.tasks, self.scores, self._kept(threshold))

    def check(self, network: NetworkLike) -> None:
        """Raise unless these masks are for this network: its name, weights, layers, units and class names.

        What the meta does not say (masks made by `from_scores`) is not compared.

        Examples
        --------
        >>> from types import SimpleNamespace as Thing
        >>> network = Thing(name="net", weights_id="ab", class_names=("a",), layers={"conv": Thing(units=3)})
        >>> MaskSet.from_scores({"conv": torch.eye(2)[:1]}, ["a"]).check(network)
        Traceback (most recent call last):
        nadkit.errors.MaskFileError: these masks are not for the network 'net': layer 'conv' has 3 units ...

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
        return MaskSet(tuple(chosen), scores, history, select_meta(self.meta, self.tasks, chosen))

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
        return kept_html(f"{self._headline()}; units kept at 0.5", self.tasks, self._kept(0.5))

    def _headline(self) -> str:
        layers, units = len(self.scores), sum(self.unit_counts.values())
        words = [str(self.meta[key]) for key in ("network", "objective", "control") if self.meta.get(key)]
        return (
            f"MaskSet of {len(self)} task{'s' * (len(self) != 1)} over {units} units "
            f"in {layers} layer{'s' * (layers != 1)}" + (f" ({', '.join(words)})" if words else "")
        )


def _same_units(first: MaskSet, second: MaskSet) -> None:
    if list(first.unit_counts.items()) != list(second.unit_counts.items()):
        mine, theirs = first.unit_counts, second.unit_counts
        differing = [a for a in {**mine, **theirs} if mine.get(a) != theirs.get(a)] or ["their order"]
        raise NadkitError(
            f"these masks are over different layers or units ({', '.join(differing[:3])}); "
            "give masks over the same layers of one network"
        )
