"""Places of functions: they belong to one model's forward, and leave in any order and from any thread."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

import nadkit as nk
from nadkit.errors import LayerError
from nadkit.heatmaps import unit_attributions
from nadkit.networks import Network, gated_logits
from nadkit.taps import Taps, Watch

X = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
CLOSED = torch.zeros(4)


class Joins(nn.Module):
    def __init__(self, join: str = "add") -> None:
        super().__init__()
        self.one, self.two, self.join = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1), join
        self.head = nn.Linear(8 if join == "cat" else 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        y = self.two(x)
        y = torch.cat([x, y], 1) if self.join == "cat" else x + y
        out: Tensor = self.head(y.mean((2, 3)))
        return out


@pytest.fixture(autouse=True)
def no_gradient_and_no_mode_left() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield
    assert _get_current_function_mode_stack() == []


def test_other_models_and_the_callers_own_functions_are_left_alone() -> None:
    one, other = Joins().eval(), Joins().eval()
    want = other(X)
    with Taps(one, [":add"], gates={":add": CLOSED}) as taps:
        assert torch.equal(other(X), want)
        assert torch.equal(one(X) + one.head.bias, 2 * one.head.bias.expand(3, 3))
        assert (X + X).any()
    assert not taps.activations[":add"].any()


def test_two_models_at_once() -> None:
    one, other = Joins().eval(), Joins().eval()
    with Taps(one, [":add"]) as first, Taps(other, [":add"]) as second:
        one(X)
        other(X)
    for model, taps in ((one, first), (other, second)):
        made = model.one(X)
        assert torch.equal(taps.activations[":add"], made + model.two(made))


def test_a_part_that_is_tapped_does_not_reach_its_parent() -> None:
    class Parent(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(super().forward(x))

    model = Parent(nn.Conv2d(2, 4, 1)).eval()
    with (
        pytest.raises(LayerError, match="':relu' of Conv2d never ran"),
        Taps(model[0], (), gates={":relu": CLOSED}),
    ):
        assert model(X).any()


def test_a_model_that_broke_off_is_outside_again() -> None:
    model = Joins().eval()
    with Taps(model, [":add"]) as taps:
        with pytest.raises(RuntimeError, match="channels"):
            model(torch.rand(1, 5, 8, 8))
        _ = X + X
        model(X)
    assert taps.activations[":add"].shape == (3, 4, 8, 8)


@pytest.mark.parametrize("join", ["add", "cat"])
def test_questions_of_a_function_in_the_models_own_forward(join: str) -> None:
    place = f":{join}"
    network = Network.wrap(Joins(join).eval(), ["a", "b", "c"], example=X, layers=[place])
    inputs = torch.rand(700, 2, 8, 8)
    ones = torch.ones(1, network.units)
    assert torch.equal(gated_logits(network, inputs, {place: ones})[0, :3], network.logits(inputs)[:3])
    images = nk.Images(torch.rand(18, 2, 8, 8), torch.arange(3).repeat(6), network.class_names)
    methods = ("gradient-x-activation", "integrated-gradients", "activation")
    for method in methods:
        assert nk.heatmap(network, images[:2], "b", layer=place, method=method).shape == (2, 8, 8)
    for method in (*methods, "feature-ablation"):
        found = unit_attributions(network, images, method=method, per_class=2, progress=False)
        assert found[place].shape == (3, network.units)


def using(model: nn.Module, address: str) -> Iterator[None]:
    with Taps(model, [address]):
        model(X)
        yield


def test_a_generator_closed_within_another_block_takes_only_its_own_mode() -> None:
    inner, model = nn.Sequential(Joins()).eval(), nn.Sequential(Joins()).eval()
    shut = model[0].head.bias.expand(3, 3)
    generator = using(inner, "0:add")
    next(generator)
    with Taps(model, (), gates={"0:add": CLOSED}):
        assert torch.equal(model(X), shut)
        generator.close()  # type: ignore[attr-defined]
        assert torch.equal(model(X), shut)
    assert not torch.equal(model(X), shut)


def test_a_generator_closed_by_another_thread_acts_no_more() -> None:
    model = nn.Sequential(Joins()).eval()
    generator = using(model, "0:add")
    next(generator)
    failed: list[BaseException] = []

    def close() -> None:
        try:
            generator.close()  # type: ignore[attr-defined]
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
    assert failed == []
    with Taps(model, ["0:add"]) as taps:  # it takes the dead one off
        model(X)
        model(X)
    assert taps.activations["0:add"].shape == (3, 4, 8, 8)


def test_a_part_in_another_thread_is_refused() -> None:
    model, said = Joins().eval(), []

    def work() -> None:
        try:
            model.one(X)
        except LayerError as error:
            said.append(str(error))

    with Taps(model, (), gates={"one": CLOSED}):
        model(X)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert "Conv2d is tapped in another thread" in said[0]


def test_a_gate_between_heads_and_projection_leaves_the_heads_tappable() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.out = nn.Dropout(), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            q = x.flatten(2).transpose(1, 2).reshape(len(x), 64, 2, 1).transpose(1, 2).repeat(1, 1, 1, 2)
            heads = F.scaled_dot_product_attention(q, q, q)
            mixed = self.drop(heads.transpose(1, 2)).reshape(len(x), 64, 4)
            out: Tensor = self.out(mixed).mean(1)
            return out

    model = Attention().eval()
    want = model(X)
    with Taps(model, [":heads"], gates={"drop": torch.ones(64)}) as taps:
        assert torch.equal(model(X), want)
    assert taps.activations[":heads"].shape == (3, 64, 2, 2)


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)
        self.stem = nn.Conv2d(2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        out: Tensor = self.head(self.attention(tokens, tokens, tokens)[0].mean(1))
        return out


def test_heads_of_torchs_attention_tie_no_knot() -> None:
    def use(model: nn.Module) -> None:
        with Taps(model, ["attention:heads"]):
            model(X)

    held = weakref.ref(model := Attends().eval())
    seen: list[weakref.ref[Tensor]] = []
    model.stem.register_forward_hook(lambda _m, _a, out: seen.append(weakref.ref(out)))
    gc.collect()
    gc.disable()
    try:
        use(model)
        del model
        assert [held(), *(ref() for ref in seen)] == [None, None]
    finally:
        gc.enable()


def scores(q: Tensor) -> Tensor:
    return q @ q.transpose(-2, -1)


class Products(nn.Module):
    """Two heads of width 2 over 64 tokens, multiplied in a way that is given; then merged."""

    def __init__(self, multiply: Callable[[Products, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.out, self.multiply = nn.Conv2d(2, 4, 1), nn.Linear(4, 3), multiply
        self.drop, self.soft = nn.Dropout(0.1), nn.Softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        q = self.stem(x).reshape(len(x), 2, 2, 64).mT  # samples, heads, tokens, width
        merged = self.multiply(self, q).transpose(1, 2).reshape(len(x), 64, 4)
        out: Tensor = self.out(merged).mean(1)
        return out


ATTENTIONS: dict[str, Callable[[Products, Tensor], Tensor]] = {
    "fused": lambda _m, q: F.scaled_dot_product_attention(q, q, q),
    "by hand": lambda _m, q: scores(q).softmax(-1) @ q,
    "modules": lambda m, q: m.drop(m.soft(scores(q))) @ q,
    "masked": lambda _m, q: (F.softmax(scores(q), -1) * torch.ones(64, 64).tril()).to(q.dtype) @ q,
    "normed anew": lambda _m, q: (lambda w: (w / w.sum(-1, keepdim=True)) @ q)(scores(q).softmax(-1)),
    "equation": lambda _m, q: torch.einsum("nhij,nhjc->nhic", scores(q).softmax(-1), q),
    "weights last": lambda _m, q: (q.mT @ scores(q).softmax(-1)).mT,
    "linear": lambda _m, q: q.softmax(-1) @ (q.softmax(-2).mT @ q),
    "queries as they are": lambda _m, q: q @ (q.softmax(-2).mT @ q),
    "folded": lambda _m, q: torch.bmm(torch.softmax(scores(q).flatten(0, 1), -1), q.flatten(0, 1)).view(
        q.shape
    ),
}
OTHERS: dict[str, Callable[[Products, Tensor], Tensor]] = {
    "no softmax": lambda _m, q: scores(q) @ q,
    "softmax alone": lambda _m, q: q.softmax(-1),
    "softmax as a gate": lambda _m, q: (lambda g: scores(q * g.softmax(-1)) @ q)(q.mean(2, keepdim=True)),
    "softmax of other numbers": lambda m, q: scores(m.soft(q).sum() * q) @ q,
    "a constant softmax": lambda _m, q: q * torch.ones(2).softmax(0),
}


@pytest.mark.parametrize("way", [*ATTENTIONS, *OTHERS])
def test_heads_are_products_with_a_softmax(way: str) -> None:
    model = Products({**ATTENTIONS, **OTHERS}[way]).eval()
    table = nk.layers(model, X)
    assert (":heads" in set(table["address"])) is (way in ATTENTIONS)
    if way in ATTENTIONS:
        row = table[table["address"] == ":heads"].iloc[0]
        assert (row["tappable"], row["units"], row["axis"]) == (True, 2, 2)
        with Taps(model, [":heads"]) as taps:
            model(X)
        q = model.stem(X).reshape(3, 2, 2, 64).mT
        assert torch.equal(taps.activations[":heads"], model.multiply(model, q).transpose(1, 2))


def test_bilinear_pooling_has_no_heads() -> None:
    class Bilinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(2, 4, 1), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            t = self.stem(x).flatten(2)
            out: Tensor = self.head(torch.bmm(t, t.mT).flatten(1))
            return out

    assert not nk.layers(Bilinear(), X)["address"].str.contains(":heads").any()


def test_no_mark_is_left_on_what_the_user_gets() -> None:
    class Shows(Products):
        def forward(self, x: Tensor) -> dict[str, object]:  # type: ignore[override]
            q = self.stem(x).reshape(len(x), 2, 2, 64).mT
            weights = self.soft(scores(q))
            return {"weights": (weights,), "heads": [weights @ q]}

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Shows(scores)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x)["heads"][0].transpose(1, 2).reshape(len(x), 64, 4)
            return out

    model = Outer().eval()
    with Taps(model.inner, ["soft"], gates={"stem": torch.ones(4)}) as taps:
        with Watch(model.inner, lambda path, out: None):  # noqa: ARG005
            out = model.inner(X)
        assert [vars(t) for t in (*out["weights"], *out["heads"], taps.activations["soft"])] == [{}] * 3
        with Taps(model, [":heads"]) as outer, Watch(model.inner, lambda path, out: None):  # noqa: ARG005
            model(X)
    assert outer.activations[":heads"].shape == (3, 64, 2, 2)


class Pools(nn.Module):
    """An attention whose answer to one question, of as many heads as values of one, has no axis of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv2d(2, 4, 1), nn.Linear(4, 3)

    def heads(self, x: Tensor) -> Tensor:
        v = self.stem(x).reshape(len(x), 2, 2, 64).mT
        return torch.einsum("nhj,nhjc->nhc", v.sum(-1).softmax(-1), v)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.heads(x).reshape(len(x), 4))
        return out


def test_a_gate_of_heads_without_tokens_is_on_the_heads() -> None:
    model = Pools().eval()
    want = model.heads(X)
    want[:, 1] = 0
    assert nk.layers(model, X).set_index("address").loc[":heads", "axis"] == 1
    network = Network.wrap(model, ["a", "b", "c"], example=X, layers=[":heads"])
    for target in (model, network):
        with Taps(target, [":heads"], gates={":heads": torch.tensor([1.0, 0])}) as taps:
            model(X)
        assert torch.equal(taps.activations[":heads"], want)


# What is merged, and whether its last axes but one are heads.
MERGED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool]] = {
    "tokens of one head": (lambda w, v: (w @ v).flatten(1), False),
    "rows of one head": (lambda w, v: (v.mT @ w).reshape(3, 4, 8, 8).flatten(2).mT.flatten(1), False),
    "rows, weights in front": (lambda w, v: (w @ v).mT.reshape(3, 4, 8, 8).flatten(2).mT.flatten(1), False),
    "rows by letters": (
        lambda w, v: torch.einsum("nct,nqt->ncq", v.mT, w).reshape(3, 4, 8, 8).flatten(2).mT.flatten(1),
        False,
    ),
    "heads of the same values": (
        lambda w, v: (
            (w[:, None].expand(3, 2, 64, 64) @ v[:, None, :, :2]).transpose(1, 2).reshape(3, 64, 4).flatten(1)
        ),
        True,
    ),
    "heads of one width": (lambda w, v: (w @ v).reshape(3, 64, 4, 1).flatten(2).flatten(1), True),
    "tokens of heads": (
        lambda w, v: (w[:, None] @ v.reshape(3, 64, 2, 2).transpose(1, 2)).flatten(2).flatten(1),
        False,
    ),
}


@pytest.mark.parametrize("way", MERGED)
def test_tokens_and_rows_are_no_heads(way: str) -> None:
    merge, heads = MERGED[way]

    class Merges(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.out = nn.Conv2d(2, 4, 1), nn.Linear(256, 3)

        def forward(self, x: Tensor) -> Tensor:
            v = self.stem(x).flatten(2).mT
            out: Tensor = self.out(merge((v @ v.mT).softmax(-1), v))
            return out

    table = nk.layers(Merges(), X)
    places = table[table["address"].str.contains(":heads")]
    assert len(places)  # Taps count them
    assert bool(places["tappable"].any()) is heads
    assert not places["recommended"].any()


@pytest.mark.parametrize("place", ["soft", "drop"])
@pytest.mark.parametrize("how", ["gates", "edits"])
def test_gates_of_the_weights_of_an_attention_leave_its_heads_tappable(place: str, how: str) -> None:
    model = Products(ATTENTIONS["modules"]).eval()
    want = model(X)
    passing: dict[str, object] = {"gates": {place: torch.ones(2)}, "edits": {place: lambda out: out * 1}}
    with Taps(model, [":heads"], **{how: passing[how]}) as taps:  # type: ignore[arg-type]
        assert torch.equal(model(X), want)
    assert taps.activations[":heads"].shape == (3, 64, 2, 2)


def test_scores_of_an_attention_are_named_as_such() -> None:
    def attend(_m: Products, q: Tensor) -> Tensor:
        biased = (scores(q) * 0.5 + torch.zeros(64, 64)).unflatten(1, (1, 2)) + torch.zeros(64, 1)
        return biased.flatten(1, 2).softmax(-1) @ q + q

    table = nk.layers(Products(attend), X).set_index("address")
    for number in (1, 2):
        assert table.loc[f":add#{number}", "reason"] == (
            "gives scores, as of an attention, with units on no axis that is known; "
            "say which: layers={address: axis}"
        )
    assert "split over axes 1 and 3" in table.loc[":add#3", "reason"]
