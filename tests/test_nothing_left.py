"""Every verb, on heads and tokens as on maps, leaves a model as it found it, however it ends."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

import nadkit as nk
from nadkit.heatmaps import unit_attributions
from nadkit.networks import Network, hash_weights
from nadkit.taps import Taps

NAMES = ("a", "b", "c")


class Former(nn.Module):
    """Patches, a layer of torch's own encoder, which feeds no normalisation, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(2, 12, 4, 4)
        self.block = nn.TransformerEncoderLayer(12, 3, 16, 0.1, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(self.patch(x).flatten(2).transpose(1, 2)).mean(1))
        return out


def former() -> Network:
    torch.manual_seed(1)
    places = ["patch", "block.self_attn:heads", "block:relu", "block"]
    return Network.wrap(Former(), NAMES, example=torch.zeros(2, 2, 8, 8), layers=places)


def pictures(network: Network) -> nk.Images:
    """Three classes of pictures that any network tells apart a little: the labels are its own answers."""
    torch.manual_seed(2)
    pixels = torch.rand(90, 2, 8, 8)
    with torch.no_grad():
        logits = network(pixels)
    labels = (logits - logits.mean(0)).argmax(1)
    labels[::7] = (labels[::7] + 1) % 3  # some are misclassified
    return nk.Images(pixels, labels, NAMES)


NETWORK = former()
IMAGES = pictures(NETWORK)
torch.manual_seed(3)
MASKS = [
    nk.MaskSet.from_scores(
        {a: torch.rand(3, one.units).add(0.1).clamp(max=1) for a, one in NETWORK.layers.items()}, NAMES,
        meta={"weights_id": NETWORK.weights_id, "seed": seed},
    )
    for seed in (0, 1)
]  # fmt: skip

VERBS: dict[str, Callable[[], object]] = {
    "layers": lambda: nk.layers(NETWORK),
    "wrap": lambda: Network.wrap(NETWORK.model, NAMES, example=IMAGES.pixels[:2]),
    "learn": lambda: nk.learn_masks(NETWORK, IMAGES, steps=3, batch_size=4, progress=False),
    "whether": lambda: nk.whether(
        NETWORK, MASKS[0], IMAGES, controls=None, draws=3,
        parts=["sufficiency", "layers", "matrix", "necessity", "agreement"],
    ),
    "how": lambda: nk.how(NETWORK, MASKS[0], draws=9),
    "why": lambda: nk.why(NETWORK, MASKS[0], IMAGES, draws=9, flips=3),
    "stability": lambda: nk.stability(NETWORK, MASKS, draws=9),
    "extract": lambda: nk.extract(NETWORK, MASKS[0], IMAGES, "b", pictures=6, progress=False),
    "attributions": lambda: unit_attributions(
        NETWORK, IMAGES, method="gradient-x-activation", per_class=4, progress=False
    ),
}  # fmt: skip


def state(model: nn.Module) -> dict[str, object]:
    return {
        "weights": hash_weights(model.state_dict()),
        "hooks": sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()),
        "backward hooks": sum(len(m._backward_hooks) for m in model.modules()),
        "modes": [m.training for m in model.modules()],
        "flags": [p.requires_grad for p in model.parameters()],
        "gradients": [p.grad for p in model.parameters()],
        "random": (torch.get_rng_state().tolist(), str(np.random.get_state())),
        "of torch": (
            torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_num_threads(),
            torch.is_autocast_enabled("cpu"), torch.get_default_dtype(),
            len(_get_current_function_mode_stack()),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_heads_and_tokens_and_leaves_nothing(verb: str) -> None:
    model = NETWORK.model.train()
    model.block.linear1.weight.requires_grad_(False)
    before = state(model)
    answer = VERBS[verb]()
    assert state(model) == before
    if isinstance(answer, pd.DataFrame) and verb != "layers":
        assert len(answer)
        assert np.isfinite(answer["value"].dropna()).any()


def test_every_place_of_the_transformer_has_its_rows() -> None:
    table = VERBS["whether"]()
    assert isinstance(table, pd.DataFrame)
    assert set(NETWORK.layers) <= set(table["layer"].dropna())


@pytest.mark.parametrize("verb", [name for name in VERBS if name not in ("how", "stability")])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_ends_a_verb_changes_nothing(verb: str, error: type[BaseException]) -> None:
    model, calls = NETWORK.model.train(), 0
    last = 1 if verb in ("layers", "wrap", "why", "extract") else 2  # some have no second forward

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == last:
            raise error("enough")

    handle = model.head.register_forward_hook(stop)
    try:
        before = state(model)
        with pytest.raises(error, match="enough"):
            VERBS[verb]()
        assert calls == last
        gc.collect()  # what a generator held open
        assert state(model) == before
    finally:
        handle.remove()


def test_a_generator_that_is_left_alone_lets_go() -> None:
    model = Former().eval()
    before, held = state(model), weakref.ref(model)

    def walk(model: nn.Module) -> Generator[Tensor]:
        with Taps(model, ["block", "block:relu"]) as taps:
            for _ in range(3):
                model(torch.zeros(1, 2, 8, 8))
                yield taps.activations["block"]

    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            steps = walk(model)
            next(steps)
            del steps
        assert state(model) == before
        del model
        assert held() is None
    finally:
        gc.enable()


def test_masks_are_learned_in_sixteen_bits() -> None:
    """A model in bfloat16 learns, and autocast leaves the gates' own numbers at 32 bits."""
    torch.manual_seed(1)
    half = Network.wrap(
        Former().bfloat16(), NAMES, example=torch.zeros(2, 2, 8, 8), layers=["patch", "block:relu"]
    )
    masks = nk.learn_masks(half, IMAGES, steps=4, progress=False)
    assert all(scores.dtype == torch.float32 for scores in masks.scores.values())
    assert len({round(float(s), 6) for s in masks.scores["block:relu"].flatten()}) > 10
    with torch.autocast("cpu", torch.bfloat16):
        casted = nk.learn_masks(NETWORK, IMAGES, steps=4, progress=False)
        assert torch.is_autocast_enabled("cpu")
    plain = nk.learn_masks(NETWORK, IMAGES, steps=4, progress=False)
    for address, scores in plain.scores.items():
        assert casted.scores[address].dtype == torch.float32
        assert torch.allclose(casted.scores[address], scores, atol=0.1)
        assert not torch.equal(casted.scores[address], scores)  # autocast did act


GROWTH = """
import gc, os, torch, tests_nothing_left as t
def size():
    gc.collect()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    return pages * os.sysconf("SC_PAGE_SIZE"), len(gc.get_objects()), tensors
def use(times):
    for _ in range(times):
        for name in {names}:
            t.VERBS[name]()
use(20)
before = size()
use(100)
print(*(after / was - 1 for was, after in zip(before, size())))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow() -> None:
    names = ("layers", "wrap", "learn", "extract", "attributions")
    code = GROWTH.replace("tests_nothing_left", Path(__file__).stem).replace("{names}", repr(names))
    # Freed memory goes back at once, so that what stays is what something keeps.
    env = os.environ | {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536",
                        "MALLOC_TRIM_THRESHOLD_": "0", "OMP_NUM_THREADS": "1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=Path(__file__).parent, env=env, capture_output=True,
        text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    memory, objects, tensors = map(float, done.stdout.split())
    assert memory <= 0.01
    assert objects <= 0.01
    assert tensors == 0
