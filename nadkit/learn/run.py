"""The loop: from a problem and an objective to mask logits, with history, checkpoints and a callback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from nadkit.errors import NadkitError
from nadkit.learn.objectives import Batch, Objective
from nadkit.learn.problem import Problem, Stream
from nadkit.taps import Taps, frozen

_STATE = ("logits", "moments", "extras", "extra_moments")  # the tensors of a checkpoint
SAVES = 20  # checkpoints, and rows of history per task, in a run


@dataclass(frozen=True)
class Progress:
    """Where a run stands; what a `callback` gets.

    Attributes
    ----------
    step, steps : steps taken and to take
    tasks : names
    loss, kept_share : one number per task
    scores : (n_tasks, n_units) over all layers, as the masks would be if the run ended here
    """

    step: int
    steps: int
    tasks: tuple[str, ...]
    loss: list[float]
    kept_share: list[float]
    scores: Tensor


@dataclass
class Run:
    """One run of the loop: its settings and its state, which is all that a checkpoint holds."""

    problem: Problem
    objective: Objective
    share: Tensor  # (rows,) of all units
    steps: list[int]  # per row
    seed: int
    shared: bool = False
    title: str = "learn"
    done: int = 0
    stopped: bool = False  # by the callback

    def __post_init__(self) -> None:
        self.sizes = [layer.units for layer in self.problem.network.layers.values()]
        self.rows = 1 if self.shared else len(self.problem.tasks)
        starts = []
        for row in range(self.rows):
            # A seed of the task's own, so that its mask does not depend on the tasks beside it.
            key = 0 if self.shared else int(self.problem.logit[row]) + 1
            starts.append(
                self.objective.start(
                    sum(self.sizes), torch.Generator().manual_seed((self.seed * 7919 + key) % 2**64)
                )
            )
        self.logits = torch.stack(starts).to(self.problem.network.device)
        self.moments = torch.zeros(2, *self.logits.shape, device=self.logits.device)
        first = torch.tensor(self.objective.extras, dtype=torch.float32, device=self.logits.device)
        self.extras = first.expand(len(self.problem.tasks), -1).clone()
        self.extra_moments = torch.zeros(2, *self.extras.shape, device=self.logits.device)
        self.history: list[dict[str, Any]] = []

    def kept(self, progress: float) -> Tensor:
        """Return the number of units each row keeps at a moment of the run, at least one."""
        share = self.objective.kept_share(self.share, progress)
        return (share * sum(self.sizes)).round().long().clamp(1, sum(self.sizes)).to(self.logits.device)

    def go(
        self, *, progress: bool, checkpoint: Path | None, settings: Mapping[str, Any],
        callback: Callable[[Progress], object] | None, until: int | None = None,
    ) -> None:  # fmt: skip
        """Take the steps that are left; a callback that returns True ends the run early."""
        if checkpoint is not None:
            self._resume(checkpoint, settings)
        total = max(self.steps)
        end = total if until is None else min(until, total)
        streams = self._streams()
        every = max(1, total // SAVES)
        bar = tqdm(total=total, initial=self.done, desc=self.title, disable=not progress, leave=False)
        try:
            with frozen(self.problem.network.model):
                while self.done < end:
                    loss = self._step(streams, total)
                    bar.update()
                    if self.done % every == 0 or self.done == total:
                        if self._report(loss, total, bar, callback):
                            self.stopped = True
                            break
                        if checkpoint is not None:
                            self._save(checkpoint, settings)
        finally:
            bar.close()

    def _streams(self) -> list[tuple[Stream, Stream]]:
        """Return the own and the other pictures of every task, in orders that are the task's own."""
        problem, objective = self.problem, self.objective
        streams = []
        for task in range(len(problem.tasks)):
            seed = self.seed * 7919 + 2 * int(problem.logit[task])
            others = problem.others(task)
            likely = problem.soft[others, problem.accepts[task]] if objective.hard else None
            streams.append(
                (
                    Stream(problem.own(task), objective.own, seed),
                    Stream(others, objective.rest, seed + 1, likely, objective.hard),
                )
            )
        return streams

    def _step(self, streams: list[tuple[Stream, Stream]], total: int) -> Tensor:
        problem, objective, network = self.problem, self.objective, self.problem.network
        device = self.logits.device
        picked, rows, own = [], [], []
        for task, (mine, others) in enumerate(streams):
            for stream, is_own in ((mine, True), (others, False)):
                if stream.batch:
                    picked.append(stream.take(self.done))
                    rows += [task] * len(picked[-1])
                    own += [is_own] * len(picked[-1])
        index, row = torch.cat(picked), torch.tensor(rows)
        inputs = network.prepare(problem.pixels[index])
        gate_rows = (torch.zeros_like(row) if self.shared else row).to(device)
        at = self.done / total
        logits = self.logits.detach().requires_grad_(True)
        extras = self.extras.detach().requires_grad_(True)
        addresses = list(network.layers) if objective.needs_activations else []
        reference: Mapping[str, Tensor] = {}
        if addresses:
            with torch.no_grad(), Taps(network, addresses) as whole:
                network.logits(inputs)
            reference = whole.activations
        with torch.enable_grad():
            opened = objective.gates(logits, self.kept(at)).split(self.sizes, 1)
            gates = dict(zip(network.layers, opened, strict=True))
            with Taps(network, addresses, gates=gates, rows=gate_rows) as taps:
                out = network.logits(inputs)
            target = problem.answer[index].eq(problem.accepts[row]).to(out)
            right = (problem.answer == problem.labels)[index].to(device)
            batch = Batch(
                row.to(device), problem.logit[row].to(device), torch.tensor(own, device=device),
                target, problem.wanted(index, row).to(out), right, out,
                taps.activations if addresses else {}, reference,
                {a: g.expand(len(streams), -1) for a, g in gates.items()}, extras, len(streams),
            )  # fmt: skip
            loss = objective.loss(batch)
            gradient, of_extras = torch.autograd.grad(loss.sum(), [logits, extras], allow_unused=True)
        self.done += 1
        after = objective.step(self.logits, gradient, self.moments, self.done, at, self.sizes)
        running = torch.tensor([self.done <= n for n in self.steps], device=device)
        self.logits = after if self.shared else torch.where(running[:, None], after, self.logits)
        if of_extras is not None:
            self.extras = torch.where(running[:, None], self._adam(of_extras), self.extras)
        return loss.detach()

    def _adam(self, gradient: Tensor) -> Tensor:
        """Return the extras after a step of Adam (0.02; 0.9, 0.99), whose memory is changed in place."""
        self.extra_moments[0].mul_(0.9).add_(gradient, alpha=0.1)
        self.extra_moments[1].mul_(0.99).add_(gradient.square(), alpha=0.01)
        mean = self.extra_moments[0] / (1 - 0.9**self.done)
        root = (self.extra_moments[1] / (1 - 0.99**self.done)).sqrt()
        return self.extras - 0.02 * mean / (root + 1e-8)

    def _report(
        self, loss: Tensor, total: int, bar: Any, callback: Callable[[Progress], object] | None
    ) -> bool:
        scores = self.objective.scores(self.logits, self.kept(self.done / total))
        share = (scores > 0.5).double().mean(1).expand(len(self.problem.tasks)).tolist()
        losses = loss.double().tolist()
        for task, value, kept in zip(self.problem.tasks, losses, share, strict=True):
            self.history.append({"step": self.done, "task": task, "loss": value, "kept_share": kept})
        bar.set_postfix(kept=f"{sum(share) / len(share):.2f}", loss=f"{sum(losses) / len(losses):.3f}")
        if callback is None:
            return False
        now = scores.float().cpu().expand(len(self.problem.tasks), -1).clone()
        return callback(Progress(self.done, total, self.problem.tasks, losses, share, now)) is True

    def _save(self, path: Path, settings: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        state = {"settings": dict(settings), "done": self.done, "history": self.history}
        tensors = {name: getattr(self, name).cpu().contiguous() for name in _STATE}
        try:
            save_file(tensors, part, {"nadkit.checkpoint": json.dumps(state)})
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)  # only an interrupt leaves one

    def _resume(self, path: Path, settings: Mapping[str, Any]) -> None:
        if not path.exists():
            return
        try:
            with safe_open(path, "pt") as file:
                state = json.loads(file.metadata()["nadkit.checkpoint"])
                tensors = {name: file.get_tensor(name) for name in _STATE}
            there, done, history = dict(state["settings"]), int(state["done"]), list(state["history"])
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise NadkitError(
                f"{path} is no checkpoint of learn_masks ({error}); remove it or name another file"
            ) from None
        wanted = json.loads(json.dumps(dict(settings)))
        if there != wanted:
            keys = sorted(k for k in {*wanted, *there} if wanted.get(k) != there.get(k))
            change = "; ".join(f"{k}: {there.get(k)!r} there, {wanted.get(k)!r} asked" for k in keys)
            raise NadkitError(
                f"{path} is a checkpoint of other settings ({change}); remove it or name another file"
            )
        self.done, self.history = done, history
        for name, tensor in tensors.items():
            setattr(self, name, tensor.to(getattr(self, name)))
