"""Critical routing paths, per class and per picture: gates close from one while the answer stays.

The nearest published alternative to masks of a task. It looks at own pictures alone, so nothing keeps its
masks from answering their class for every picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nadkit.errors import NadkitError
from nadkit.images import Images
from nadkit.learn.objectives import Batch, Objective, OneVsRest
from nadkit.masks import MaskSet
from nadkit.networks import Network
from nadkit.taps import Taps, frozen


@dataclass
class Routing(Objective):
    """Close gates, which start at one, while own pictures keep the answer that the whole network gives them.

    J = mean KL + γ Σ_c g_c with gates g ≥ 0 of all layers, where KL is the divergence of the gated network's
    probabilities from the whole network's. It runs over the own pictures that the whole network answers with
    what the task must accept; without any, the task's gradient is 0. Plain momentum, after each step the
    gates are clipped at 0. There is no upper bound: a gate may exceed 1.

    Mask logits are the gates where these are open. A closed gate's logit is at most 0 and falls by 1 with
    every step that it stays closed, so that gates closed last rank first. A closed gate opens again as soon
    as its gradient outweighs γ.

    Parameters
    ----------
    own : pictures of the task per step
    gamma : weight γ of the sum of gates, above 0
    rate, momentum : of the step: b ← momentum · b + gradient, g ← max(0, g − rate · b)
    steps_per_task : how many steps to take

    Notes
    -----
    **Source**: Wang et al., "Interpret Neural Networks by Identifying Critical Data Routing Paths", CVPR
    2018: channel gates from one, cross-entropy to the network's own output (which differs from the
    divergence by a constant), γ times the gates' L1 norm, momentum, one picture at a time
    (`routing_per_picture`). Ours, per class: batches of a class's pictures, and masks of the size asked, cut
    from the ranked gates.

    Examples
    --------
    >>> routing = Routing(gamma=0.5, rate=1.0)
    >>> routing.step(torch.ones(1, 2), torch.tensor([[0.25, 1.5]]), torch.zeros(2, 1, 2), 1, 0.0, [2])
    tensor([[ 0.7500, -0.3333]])
    """

    name: ClassVar[str] = "routing"
    own: int = 16
    rest: int = 0
    gamma: float = 0.05
    rate: float = 0.1
    momentum: float = 0.9
    steps_per_task: int = 60

    def steps(self, pictures: int) -> int:
        """Return the number of steps: a fixed one, whatever the number of pictures."""
        del pictures
        return self.steps_per_task

    def start(self, units: int, generator: torch.Generator) -> Tensor:
        """Return gates that are all one, whatever the seed."""
        del generator
        return torch.ones(units)

    def gates(self, logits: Tensor, kept: Tensor) -> Tensor:
        """Return the gates, 0 or more; the gradient reaches closed ones as well, so that they can open."""
        del kept
        return logits.clamp(min=0).detach() + (logits - logits.detach())

    def loss(self, batch: Batch) -> Tensor:
        """Return J per task; 0 for a task whose answer the whole network gives to none of its pictures."""
        error = nn.functional.kl_div(batch.logits.log_softmax(1), batch.whole, reduction="none").sum(1)
        answered = batch.target > 0
        size = torch.stack([gate.sum(1) for gate in batch.gates.values()]).sum(0)
        any_answered = batch.per_task(answered.to(error), answered) > 0
        return (batch.per_task(error, answered) + self.gamma * size) * any_answered

    def step(
        self,
        logits: Tensor,
        gradient: Tensor,
        moments: Tensor,
        number: int,
        progress: float,
        sizes: list[int],
    ) -> Tensor:
        """Take a step of momentum and clip at 0; what is closed counts how long it has been."""
        del number, progress, sizes
        moments[0].mul_(self.momentum).add_(gradient)
        moved = logits.clamp(min=0) - self.rate * moments[0]
        # Gates that close in the same step are told apart by how far they would have gone, within (-1, 0].
        closed = torch.where(logits > 0, moved / (1 - moved), logits - 1)
        return torch.where(moved > 0, moved, closed)

    def scores(self, logits: Tensor, kept: Tensor) -> Tensor:
        """Return scores whose order is the logits' and of which exactly `kept` a task lie above 0.5."""
        return OneVsRest().scores(logits, kept)


def routing_per_picture(
    network: Network,
    images: Images,
    *,
    kept_share: float = 0.3,
    steps: int = 30,
    gamma: float = 0.05,
    batch_size: int = 64,
    progress: bool = True,
) -> MaskSet:
    """Return one mask for every picture: the units on the path that leads the network to its answer there.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, images = nk.load_network("vgg-fashion"), nk.load_images("fashion", per_class=1)
    >>> masks = routing_per_picture(network, images[7:9], steps=2, progress=False)
    >>> masks.tasks, masks.meta["pictures"]["bag-1"]["answer"]
    (('sneaker-0', 'bag-1'), 'bag')

    Parameters
    ----------
    network : the trained network; it is frozen meanwhile and restored afterwards
    images : any pictures that the network takes; their classes only name the masks
    kept_share : share of all units that each picture keeps, in (0, 1]: those with the largest gates
    steps : 1 or more
    gamma : weight of the sum of gates, above 0
    batch_size : pictures routed side by side, 1 or more; each has gates of its own, so it changes no result
    progress : show a bar

    Returns
    -------
    MaskSet
        Tasks are pictures, named by class and place among `images`: "sneaker-12". They are no classes of the
        network, so `check` refuses them; `overlap`, `kept` and `gates` serve as for any masks, for instance
        to compare the pictures of one class with those of others. `meta["pictures"]` tells for each its
        class, the network's answer, and the share of gates that were open.

    Raises
    ------
    ImageError
        Pictures that do not fit the network.
    NadkitError
        A share outside (0, 1]; steps, batch_size below 1 or gamma not above 0; a network whose logits are NaN
        or infinite.

    Notes
    -----
    **Source**: Wang et al., CVPR 2018. For picture x, gates g ≥ 0 from one: minimise
    CE(p(x), p(x; g)) + γ Σ_c g_c, where p are the probabilities of the whole and the gated network; steps of
    momentum, clipped at 0. Of all steps, the gates of the smallest loss are taken among those that leave the
    largest logit where it is; this rule is read from a re-implementation (PathwayGrad, `cdrp/main.py`). The
    default steps, rate and γ are ours. No random number is drawn.
    """
    if isinstance(kept_share, bool) or not isinstance(kept_share, (int, float)) or not 0 < kept_share <= 1:
        raise NadkitError(f"kept_share must lie in (0, 1]: a share of all units; got {kept_share!r}")
    if isinstance(gamma, bool) or not isinstance(gamma, (int, float)) or not 0 < gamma < math.inf:
        raise NadkitError(f"gamma must be above 0 and finite, got {gamma!r}; at 0 no gate would close")
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise NadkitError(f"{name} must be a whole number from 1, got {value!r}")
    images.check()
    routing = Routing(gamma=gamma, steps_per_task=steps)
    units = network.units
    kept = min(max(round(kept_share * units), 1), units)
    scores, notes = [], []
    bar = tqdm(total=len(images), desc="routing", disable=not progress, leave=False)
    with bar, torch.inference_mode(False), frozen(network.model):
        for pixels, labels in images.batches(batch_size):
            inputs = network.prepare(pixels)
            logits, answers = _route(network, inputs, routing)
            scores.append(routing.scores(logits, torch.full((len(logits),), kept, device=logits.device)))
            for label, answer, row in zip(labels.tolist(), answers.tolist(), logits, strict=True):
                notes.append({
                        "class": images.class_names[label],
                        "answer": network.class_names[answer],
                        "open_share": float((row > 0).double().mean()),
                    })  # fmt: skip
            bar.update(len(pixels))
    tasks = tuple(f"{note['class']}-{place}" for place, note in enumerate(notes))
    sizes = [layer.units for layer in network.layers.values()]
    parts = torch.cat(scores).float().cpu().split(sizes, 1)
    settings = {
        "kept_share": kept_share, "steps": steps, "gamma": gamma, "rate": routing.rate,
        "momentum": routing.momentum, "per": "picture",
    }  # fmt: skip
    meta = {
        "network": network.name, "weights_id": network.weights_id, "class_names": list(network.class_names),
        "objective": routing.name, "control": None, "threshold": 0.5, "settings": settings,
        "pictures": dict(zip(tasks, notes, strict=True)),
    }  # fmt: skip
    return MaskSet(tasks, dict(zip(network.layers, parts, strict=True)), None, meta)


def _route(network: Network, inputs: Tensor, routing: Routing) -> tuple[Tensor, Tensor]:
    """Return each picture's mask logits (N, units) at its best step, and the whole network's answers (N,)."""
    with torch.no_grad():
        whole = network.logits(inputs)
    if not bool(torch.isfinite(whole).all()):
        raise NadkitError(
            f"{network.name} gives NaN or infinite logits; no path leads there: check its weights"
        )
    count, device = len(inputs), inputs.device
    answers, target = whole.argmax(1), whole.softmax(1)
    sizes = [layer.units for layer in network.layers.values()]
    rows, none = torch.arange(count, device=device), torch.empty(0, device=device)
    logits = inputs.new_ones(count, sum(sizes))
    moments = inputs.new_zeros(2, *logits.shape)
    best, least = logits, inputs.new_full((count,), torch.inf)
    for number in range(1, routing.steps_per_task + 2):
        leaf = logits.detach().requires_grad_(True)
        with torch.enable_grad():
            gates = routing.gates(leaf, none)
            with Taps(
                network, (), gates=dict(zip(network.layers, gates.split(sizes, 1), strict=True)), rows=rows
            ):
                out = network.logits(inputs)
            loss = nn.functional.cross_entropy(out, target, reduction="none") + routing.gamma * gates.sum(1)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        better = (out.argmax(1) == answers) & (loss.detach() < least)
        best = torch.where(better[:, None], logits, best)
        least = torch.where(better, loss.detach(), least)
        logits = routing.step(logits, gradient, moments, number, 0.0, sizes)
    return best, answers
