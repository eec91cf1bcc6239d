"""From one run to what was asked: a fixed share, a given β, or a search for either."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nadkit.learn.objectives import Objective
from nadkit.learn.problem import Problem
from nadkit.learn.run import Progress, Run
from nadkit.networks import log_odds
from nadkit.networks.outputs import at_once
from nadkit.taps import Taps, frozen

BISECTIONS = 6
ENOUGH = 0.95  # of the whole network's balanced accuracy, for kept_share="auto"


@dataclass
class Learned:
    """Scores (rows, units), the history (of a search with the number of the run), and what a search found."""

    scores: Tensor
    history: list[dict[str, Any]]
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Learner:
    """Everything that the runs of one call of `learn_masks` share."""

    problem: Problem
    objective: Objective
    steps: int | None
    seed: int
    shared: bool
    progress: bool
    checkpoint: Path | None
    callback: Callable[[Progress], object] | None
    settings: dict[str, Any] = field(default_factory=dict)
    stopped: bool = False  # by the callback, which ends a search as well

    @property
    def count(self) -> int:
        """Number of tasks."""
        return len(self.problem.tasks)

    def once(self, share: Tensor, phase: str = "", objective: Objective | None = None) -> Learned:
        """Run the loop once at a share per task; every phase of a search has a checkpoint of its own."""
        objective = objective or self.objective
        steps = [self.steps or objective.steps(len(self.problem.own(t))) for t in range(self.count)]
        rows = 1 if self.shared else self.count
        title = f"{objective.name} {phase}".strip()
        run = Run(self.problem, objective, share[:rows], steps, self.seed, self.shared, title)
        path = (
            self.checkpoint.with_name(f"{self.checkpoint.name}.{phase}")
            if self.checkpoint and phase
            else self.checkpoint
        )
        settings = {**self.settings, "share": share.tolist()}
        run.go(progress=self.progress, checkpoint=path, settings=settings, callback=self.callback)
        self.stopped = run.stopped
        return Learned(objective.scores(run.logits, run.kept(1.0)), run.history)

    def with_beta(self, beta: Tensor, phase: str = "") -> Learned:
        """Run the released recipe once, with a β per task."""
        objective = dataclasses.replace(self.objective, beta=beta)  # type: ignore[type-var]
        learned = self.once(torch.ones(self.count), phase, objective)
        weights = dict(zip(self.problem.tasks, beta.tolist(), strict=True))
        history = [{**row, "beta": weights[row["task"]]} for row in learned.history]
        return Learned(learned.scores, history, {"beta": beta.tolist()})

    def bisect_beta(self, share: Tensor) -> Learned:
        """Bisect each task's β on a logarithmic scale and keep, for each, the run that came nearest."""
        low, high = torch.full((self.count,), -3.0).double(), torch.full((self.count,), 3.0).double()
        best = torch.full((self.count,), torch.inf).double()
        beta = torch.ones(self.count).double()
        scores, history = None, []
        for number in range(1, BISECTIONS + 1):
            exponent = (low + high) / 2
            learned = self.with_beta(10.0**exponent, f"beta{number}of{BISECTIONS}")
            history += [{"run": number, **row} for row in learned.history]
            kept = (learned.scores > 0.5).double().mean(1).cpu().expand(self.count)
            nearer = (kept - share).abs() < best
            best = torch.where(nearer, (kept - share).abs(), best)
            beta = torch.where(nearer, 10.0**exponent, beta)
            scores = learned.scores if scores is None else self._choose(nearer, learned.scores, scores)
            # More weight on sparsity keeps fewer units.
            low, high = torch.where(kept > share, exponent, low), torch.where(kept > share, high, exponent)
            if self.stopped:
                break
        assert scores is not None  # BISECTIONS is above 0
        return Learned(scores, history, {"beta": beta.tolist(), "missed_share_by": best.tolist()})

    def smallest_share(self) -> Learned:
        """Bisect each task's share on a logarithmic scale for the smallest that is faithful enough."""
        goal = ENOUGH * balanced_accuracy(self.problem, None)
        low = torch.full((self.count,), 1 / self.problem.network.units).double().log()
        high = torch.zeros(self.count).double()
        ever = torch.zeros(self.count, dtype=torch.bool)
        scores, history = None, []
        for number in range(1, BISECTIONS + 1):
            middle = (low + high) / 2
            learned = self.once(middle.exp(), f"auto{number}of{BISECTIONS}")
            history += [{"run": number, **row} for row in learned.history]
            reached = balanced_accuracy(self.problem, learned.scores) >= goal
            reached = reached.all().expand(self.count) if self.shared else reached
            # A task that never gets there keeps the largest share tried, which is the latest.
            scores = (
                learned.scores if scores is None else self._choose(reached | ~ever, learned.scores, scores)
            )
            ever = ever | reached
            low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
            if self.stopped:
                break
        assert scores is not None  # BISECTIONS is above 0
        return Learned(scores, history, {"goal": goal.tolist(), "reached": ever.tolist()})

    @staticmethod
    def _choose(which: Tensor, new: Tensor, old: Tensor) -> Tensor:
        return torch.where(which[: len(new), None].to(new.device), new, old)


def balanced_accuracy(problem: Problem, scores: Tensor | None, *, most: int = 200) -> Tensor:
    """Return each task's balanced accuracy at log-odds 0 on the pictures it is learned from, (n_tasks,).

    Whole network (`scores` None) or gated to the units above 0.5; up to `most` own pictures and others.
    """
    network = problem.network
    sizes = [layer.units for layer in network.layers.values()]
    values = []
    with frozen(network.model), torch.no_grad():
        for task in range(len(problem.tasks)):
            sides = []
            gates = None
            if scores is not None:
                kept = (scores[task if len(scores) > 1 else 0] > 0.5).to(scores)
                gates = dict(zip(network.layers, kept.split(sizes), strict=True))
            for pool in (problem.own(task), problem.others(task)):
                index = pool[torch.linspace(0, len(pool) - 1, min(most, len(pool))).long()]
                with Taps(network, (), gates=gates):
                    out = [
                        network.logits(network.prepare(problem.pixels[part]))
                        for part in index.split(at_once(network.input_shape, most))
                    ]
                sides.append((log_odds(torch.cat(out))[:, problem.logit[task]] > 0).double().mean())
            values.append((sides[0] + 1 - sides[1]) / 2)
    return torch.stack(values).cpu()
