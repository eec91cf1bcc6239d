"""Random modules against a second implementation: gates of one change no bit, records are what was there.

Modules are drawn as programs: shared parts, in-place operations, tuples and dictionaries handed on, early
exits, dropout, branches that never run, functions and joins. The reference runs the same program without a
hook or a mode, and copies every module's output by a forward of its own.
"""

from __future__ import annotations

import os
from collections import Counter

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import nadkit as nk
from nadkit.networks import hash_weights
from nadkit.networks.places import choose_layers
from nadkit.taps import Taps

CASES = int(os.environ.get("NADKIT_CASES", "1000"))
WIDTH = 3


class Part(nn.Module):
    """A step with a way of handing on: a tensor, a tuple or a dictionary."""

    def __init__(self, kind: str, inner: nn.Module) -> None:
        super().__init__()
        self.kind, self.inner = kind, inner

    def forward(self, x: Tensor) -> object:
        y = self.inner(x)
        return {"tuple": (y, x), "dict": {"y": y, "x": x}}.get(self.kind, y)


def make(kind: str) -> nn.Module:
    return {
        "conv": lambda: nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        "norm": lambda: nn.BatchNorm2d(WIDTH),
        "relu": lambda: nn.ReLU(inplace=True),
        "gelu": lambda: nn.GELU(),
        "dropout": lambda: nn.Dropout(0.5, inplace=True),
        "tuple": lambda: Part("tuple", nn.Conv2d(WIDTH, WIDTH, 1)),
        "dict": lambda: Part("dict", nn.ReLU(inplace=True)),
        "nested": lambda: nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1), nn.ReLU(inplace=True)),
        "last": lambda: nn.Linear(WIDTH, WIDTH),
    }[kind]()


MODULES = ("conv", "norm", "relu", "gelu", "dropout", "tuple", "dict", "nested", "last")
FUNCTIONS = ("add", "add_", "relu", "relu_", "cat", "drop result", "leave early", "never")


class Program(nn.Module):
    """Steps over a tensor and one kept from before."""

    def __init__(self, steps: list[tuple[str, int]], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.steps = steps
        self.parts = nn.ModuleDict({f"{k}{i}": make(k) for k, i in dict.fromkeys(steps) if k in MODULES})
        self.idle = nn.Conv2d(1, 1, 1)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        kept = x
        for kind, number in self.steps:
            if kind in MODULES:
                part = self.parts[f"{kind}{number}"]
                if kind == "last":
                    x = part(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
                    continue
                given_on = part(x.clone() if x is kept and number else x)
                x = given_on[0] if kind == "tuple" else given_on["y"] if kind == "dict" else given_on
            elif kind == "add":
                x = x + kept
            elif kind == "add_":
                x = x.clone()
                x += kept
            elif kind == "relu":
                x = F.relu(x)
            elif kind == "relu_":
                x = torch.relu_(x)
            elif kind == "cat":
                x = torch.cat([x, kept], 1)[:, :WIDTH]
            elif kind == "drop result":
                self.head(x.mean((2, 3)))
            elif kind == "leave early" and bool(x.sum() > 1e6):
                return self.head(kept.mean((2, 3)))
            elif kind == "never" and x.ndim == 5:
                x = self.idle(x)
            if number == 1:
                kept = x
        return self.head(x.mean((2, 3)))


def reference(model: Program, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The answer and every module's tensor outputs, copied before anything writes into them."""
    seen: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()
    changed = []
    for path, module in model.named_modules():
        if not path or type(module).forward is nn.Module.forward:
            continue

        def forward(*args: Tensor, path: str = path, plain: object = module.forward) -> object:
            out = plain(*args)  # type: ignore[operator]
            calls[path] += 1
            if isinstance(out, Tensor):
                seen[f"{path}#{calls[path]}"] = out.clone()
            return out

        module.forward = forward  # type: ignore[method-assign]
        changed.append(module)
    try:
        return model(x), seen
    finally:
        for module in changed:
            del module.forward


def traces(model: nn.Module) -> tuple[object, ...]:
    return (
        hash_weights(model.state_dict()),
        sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()),
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        torch.get_rng_state().tolist(),
        len(torch.overrides._get_current_function_mode_stack()),  # type: ignore[attr-defined]
        sorted(name for m in model.modules() for name in vars(m)),
    )


steps = st.lists(
    st.tuples(st.sampled_from(MODULES + FUNCTIONS), st.integers(0, 2)), min_size=1, max_size=8
)  # fmt: skip


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=steps, seed=st.integers(0, 99), count=st.integers(1, 3))
def test_random_modules(steps: list[tuple[str, int]], seed: int, count: int) -> None:
    model = Program(steps, seed).eval()
    x = torch.randn(count, WIDTH, 4, 4, generator=torch.Generator().manual_seed(seed))
    before = traces(model)
    with torch.no_grad():
        expected, seen = reference(model, x.clone())
        table = nk.layers(model, x.clone())
        usable = list(table[table["tappable"]]["address"])
        layers, _ = choose_layers(model, x.clone(), usable)
        network = type("Named", (), {"model": model, "layers": layers})()
        with Taps(network) as plain:
            assert torch.equal(model(x.clone()), expected)
        ones = {address: torch.ones(count, layer.units) for address, layer in layers.items()}
        with Taps(network, gates=ones, rows=torch.arange(count)) as gated:
            assert torch.equal(model(x.clone()), expected)
    for address in usable:
        assert torch.equal(plain.activations[address], gated.activations[address])
        if ":" not in address:
            name = address if "#" in address else f"{address}#1"
            assert torch.equal(plain.activations[address], seen[name]), address
    # Every module that ran has its row, and every module that did not is named.
    rows = set(table[table["type"] != "function"]["address"].str.partition("#")[0])
    assert rows == {p for p, m in model.named_modules() if p and type(m).forward is not nn.Module.forward}
    assert {name.partition("#")[0] for name in seen} <= set(
        table[table["calls"] > 0]["address"].str.partition("#")[0]
    )
    assert table.loc[table["address"] == "idle", "calls"].item() == 0
    assert traces(model) == before
