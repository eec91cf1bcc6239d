from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.fx
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nadkit.errors import NadkitError
from nadkit.networks import BUNDLED, DATA, fresh_network, model_card
from nadkit.networks.builders import build, dense, plain, residual
from nadkit.networks.cells import DARTS_V2, OPERATIONS, Cell, CellNet, Genotype, check_genotype, operation
from nadkit.taps import Taps

Weights = dict[str, Tensor]
FAMILIES = {"vgg": 9, "resnet": 9, "densenet": 6, "darts": 9}  # and the fewest tapped layers


def lively(model: nn.Module, seed: int = 0) -> tuple[nn.Module, Weights]:
    """The model in float64 and evaluation mode, with normalisations that have something to do."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.running_mean, module.bias):
                    tensor.copy_(torch.randn(tensor.shape, generator=generator))
                for tensor in (module.running_var, module.weight):
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return model, {k: v.clone() for k, v in model.state_dict().items()}


def pictures(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


# A second implementation, from the weights by name and the papers' figures.


def norm(w: Weights, at: str, x: Tensor) -> Tensor:
    mean, spread = w[f"{at}.running_mean"], (w[f"{at}.running_var"] + 1e-5).sqrt()
    scale = w[f"{at}.weight"] / spread
    return x * scale[:, None, None] + (w[f"{at}.bias"] - mean * scale)[:, None, None]


def relu(x: Tensor) -> Tensor:
    return x * (x > 0)


def pointwise(weight: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("oc,nchw->nohw", weight[:, :, 0, 0], x)


def unit(w: Weights, at: str, x: Tensor, stride: int = 1, last: Callable[[Tensor], Tensor] = relu) -> Tensor:
    weight = w[f"{at}.conv.weight"]
    return last(norm(w, f"{at}.norm", F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)))


def head(w: Weights, x: Tensor, at: str = "head.linear") -> Tensor:
    return x.mean((2, 3)) @ w[f"{at}.weight"].T + w[f"{at}.bias"]


def shifted(x: Tensor, kernel: int, stride: int, dilation: int, fill: float) -> list[Tensor]:
    """For each place of a kernel, what it sees over the picture, padded so that stride 1 keeps the size."""
    pad = dilation * (kernel // 2)
    height, width = x.shape[2:]
    x = F.pad(x, (pad,) * 4, value=fill)
    rows, columns = range(0, height, stride), range(0, width, stride)
    return [
        torch.stack(
            [torch.stack([x[:, :, r + dy, c + dx] for c in columns], -1) for r in rows],
            -2,
        )
        for dy, dx in itertools.product(range(0, dilation * kernel, dilation), repeat=2)
    ]


def separable(w: Weights, at: str, first: int, x: Tensor, kernel: int, stride: int, dilation: int) -> Tensor:
    depthwise = w[f"{at}.{first + 1}.weight"].flatten(2)  # (channels, 1, places)
    seen = shifted(relu(x), kernel, stride, dilation, 0.0)
    x = torch.stack([s * depthwise[:, 0, i, None, None] for i, s in enumerate(seen)]).sum(0)
    return norm(w, f"{at}.{first + 3}", pointwise(w[f"{at}.{first + 2}.weight"], x))


def factorized(w: Weights, at: str, x: Tensor) -> Tensor:
    x = relu(x)
    even = x[:, :, ::2, ::2]
    odd = torch.zeros_like(even)  # where an odd size leaves no pixel
    part = x[:, :, 1::2, 1::2]
    odd[:, :, : part.shape[2], : part.shape[3]] = part
    both = [pointwise(w[f"{at}.even.weight"], even), pointwise(w[f"{at}.odd.weight"], odd)]
    return norm(w, f"{at}.norm", torch.cat(both, 1))


def edge(w: Weights, at: str, name: str, x: Tensor, stride: int) -> Tensor:
    if name == "none":
        return torch.zeros_like(x[:, :, ::stride, ::stride])
    if name == "skip_connect":
        return x if stride == 1 else factorized(w, at, x)
    if name == "max_pool_3x3":
        return norm(w, f"{at}.1", torch.stack(shifted(x, 3, stride, 1, -math.inf)).amax(0))
    if name == "avg_pool_3x3":
        seen = torch.stack(shifted(x, 3, stride, 1, math.nan))
        return norm(w, f"{at}.1", seen.nanmean(0))
    kernel = int(name[-1])
    if name.startswith("dil"):
        return separable(w, at, 0, x, kernel, stride, 2)
    return separable(w, at, 4, separable(w, at, 0, x, kernel, stride, 1), kernel, 1, 1)


def aligned(w: Weights, at: str, x: Tensor) -> Tensor:
    return norm(w, f"{at}.2", pointwise(w[f"{at}.1.weight"], relu(x)))


def slow_cells(w: Weights, x: Tensor, genotype: Genotype, n_cells: int) -> dict[str, Tensor]:
    out = {"stem": norm(w, "stem.1", F.conv2d(x, w["stem.0.weight"], stride=2, padding=1))}
    before_last = last = out["stem"]
    for number in range(n_cells):
        reduces = number in (n_cells // 3, 2 * n_cells // 3)
        edges = genotype.reduce if reduces else genotype.normal
        at = f"cells.{number}"
        # By size, not by number: a picture twice as large is halved.
        halve = before_last.shape[-1] > last.shape[-1]
        node = [
            (factorized if halve else aligned)(w, f"{at}.first", before_last),
            aligned(w, f"{at}.second", last),
        ]
        for i, (name, source) in enumerate(edges):
            stride = 2 if reduces and source in (0, 1) else 1
            term = edge(w, f"{at}.operations.{i}", name, node[source], stride)
            if i % 2 == 0:
                half = term
            else:
                node.append(half + term)
        concat = genotype.reduce_concat if reduces else genotype.normal_concat
        before_last, last = last, torch.cat([node[i] for i in concat], 1)
        out[at] = last
    return {**out, "": head(w, last, "head")}


def compare(model: nn.Module, addresses: list[str], x: Tensor, slow: dict[str, Tensor]) -> None:
    with torch.no_grad(), Taps(model, addresses) as taps:
        logits = model(x)
    assert [*addresses, ""] == list(slow)
    for address in addresses:
        torch.testing.assert_close(taps.activations[address], slow[address], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(logits, slow[""], rtol=1e-9, atol=1e-9)


def test_plain_network_equals_slow_one() -> None:
    model, addresses = plain(2, 3, [[4], [5], [6, 7]])
    model, w = lively(model)
    x = pictures(2, 2, 11, 9)
    slow = {"stem": unit(w, "stem", x, 2)}
    slow["stage1.0"] = unit(w, "stage1.0", slow["stem"])
    pooled = F.pad(slow["stage1.0"], (0, 1, 0, 0), value=-math.inf)  # 6×5 → 6×6: rounded up
    pooled = pooled.unflatten(3, (3, 2)).unflatten(2, (3, 2)).amax((3, 5))
    slow["stage2.0"] = unit(w, "stage2.0", pooled)
    slow["stage2.1"] = unit(w, "stage2.1", slow["stage2.0"])
    slow[""] = head(w, slow["stage2.1"])
    compare(model, addresses, x, slow)


def test_residual_network_adds_shortcut_before_last_relu() -> None:
    model, addresses = residual(2, 3, [4, 6], [2, 2])
    model, w = lively(model)
    x = pictures(2, 2, 11, 9)
    slow = {"stem": unit(w, "stem", x, 2)}
    out = slow["stem"]
    for at, stride, projected in (
        ("stage1.0", 1, False), ("stage1.1", 1, False), ("stage2.0", 2, True), ("stage2.1", 1, False),
    ):  # fmt: skip
        y = unit(w, f"{at}.spatial", unit(w, f"{at}.reduce", out), stride)
        y = unit(w, f"{at}.expand", y, last=lambda z: z)
        shortcut = unit(w, f"{at}.shortcut", out, stride, last=lambda z: z) if projected else out
        out = slow[at] = relu(y + shortcut)
    slow[""] = head(w, out)
    compare(model, addresses, x, slow)


def test_dense_network_joins_input_first_then_layers_in_order() -> None:
    model, addresses = dense(2, 3, 4, [3, 2], 2, [5])
    model, w = lively(model)
    x = pictures(2, 2, 11, 9)
    slow = {"stem": unit(w, "stem", x, 2)}
    parts = [slow["stem"]]
    for i in range(2):
        slow[f"block1.layers.{i}"] = unit(w, f"block1.layers.{i}", torch.cat(parts, 1))
        parts.append(slow[f"block1.layers.{i}"])
    slow["transition1"] = unit(w, "transition1", torch.cat(parts, 1))
    size = [math.ceil(n / 2) for n in slow["transition1"].shape[2:]]
    pooled = torch.stack(
        [
            slow["transition1"][:, :, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].mean((2, 3))
            for r in range(size[0])
            for c in range(size[1])
        ],
        -1,
    ).unflatten(-1, size)
    parts = [pooled]
    for i in range(2):
        slow[f"block2.layers.{i}"] = unit(w, f"block2.layers.{i}", torch.cat(parts, 1))
        parts.append(slow[f"block2.layers.{i}"])
    slow[""] = head(w, torch.cat(parts, 1))
    compare(model, addresses, x, slow)


EVERY_OPERATION = Genotype(
    normal=[(name, i // 2) for i, name in enumerate(OPERATIONS)],
    normal_concat=[5, 2, 0],
    reduce=[(name, i % 2) for i, name in enumerate(OPERATIONS)],
    reduce_concat=[3, 5, 4, 2],
)


@pytest.mark.parametrize("genotype", [DARTS_V2, EVERY_OPERATION])
def test_cells_equal_slow_ones(genotype: Genotype) -> None:
    net = CellNet(2, 3, width=3, n_cells=5, genotype=genotype)
    addresses = net.addresses
    model, w = lively(net)
    x = pictures(2, 2, 21, 13)
    compare(model, addresses, x, slow_cells(w, x, genotype, 5))


@st.composite
def genotypes(draw: st.DrawFn) -> Genotype:
    parts: list[list[object]] = []
    for lowest in (0, 2):
        count = draw(st.integers(1, 3))
        edges = [
            (draw(st.sampled_from(OPERATIONS)), draw(st.integers(0, 1 + i // 2))) for i in range(2 * count)
        ]
        parts += [edges, draw(st.lists(st.integers(lowest, 1 + count), min_size=1, max_size=4, unique=True))]
    return Genotype(*parts)  # type: ignore[arg-type]


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(genotypes())
def test_any_genotype_of_the_form_works(genotype: Genotype) -> None:
    torch.manual_seed(0)
    net = CellNet(1, 2, width=2, n_cells=4, genotype=genotype)
    addresses = net.addresses
    model, w = lively(net)
    x = pictures(1, 1, 10, 13)
    compare(model, addresses, x, slow_cells(w, x, genotype, 4))


def test_genotype_is_the_published_one() -> None:
    # A second time, node by node, as `genotypes.py` of quark0/darts has it under DARTS_V2.
    normal = {2: "sep3 0 sep3 1", 3: "sep3 0 sep3 1", 4: "sep3 1 skip 0", 5: "skip 0 dil3 2"}
    reduced = {2: "max3 0 max3 1", 3: "skip 2 max3 1", 4: "max3 0 skip 2", 5: "skip 2 max3 1"}
    short = {
        "sep_conv_3x3": "sep3",
        "dil_conv_3x3": "dil3",
        "skip_connect": "skip",
        "max_pool_3x3": "max3",
    }
    for edges, figure in ((DARTS_V2.normal, normal), (DARTS_V2.reduce, reduced)):
        read = {
            2 + i // 2: " ".join(f"{short[name]} {source}" for name, source in edges[i : i + 2])
            for i in range(0, 8, 2)
        }
        assert read == figure
    assert list(DARTS_V2.normal_concat) == list(DARTS_V2.reduce_concat) == [2, 3, 4, 5]


GOOD = [("none", 0), ("none", 1)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"normal": [("sep_conv_3x4", 0), ("none", 1)]},
            "normal cell: no operation 'sep_conv_3x4'.*sep_conv",
        ),
        ({"reduce": [("none", 2), ("none", 1)]}, "reduce cell: node 2 reads node 2; it can read 0 to 1"),
        ({"normal": [*GOOD, ("none", 0), ("none", 3)]}, "node 3 reads node 3; it can read 0 to 2"),
        ({"normal": [("none", -1), ("none", 1)]}, "node 2 reads node -1"),
        ({"normal": [*GOOD, ("none", 0)]}, "3 operations; every node adds two"),
        ({"reduce": []}, "reduce cell: 0 operations"),
        ({"normal_concat": []}, r"hands on nodes \[\]; name at least one of 0 to 2"),
        ({"normal_concat": [3]}, r"hands on nodes \[3\]"),
        ({"reduce_concat": [1, 2]}, r"hands on nodes \[1, 2\]; name at least one of 2 to 2"),
    ],
)
def test_bad_genotypes_are_refused(changed: dict[str, list[object]], message: str) -> None:
    form = {"normal": GOOD, "normal_concat": [2], "reduce": GOOD, "reduce_concat": [2]}
    check_genotype(Genotype(**form))  # type: ignore[arg-type]
    with pytest.raises(NadkitError, match=message):
        CellNet(1, 2, width=2, n_cells=1, genotype=Genotype(**{**form, **changed}))  # type: ignore[arg-type]


def test_unknown_operation_and_family_name_the_closest() -> None:
    with pytest.raises(NadkitError, match=r"no operation 'skip'.*skip_connect"):
        operation("skip", 4, 1)
    with pytest.raises(NadkitError, match="no family 'vgg16'; closest: vgg"):
        build("vgg16", 1, 10)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
def test_operations_halve_odd_sizes_alike(name: str, stride: int) -> None:
    sizes = {n: operation(name, 2, stride)(torch.zeros(1, 2, n, n + 1)).shape[2:] for n in (4, 7)}
    assert sizes == {n: (math.ceil(n / stride), math.ceil((n + 1) / stride)) for n in (4, 7)}


def test_zero_passes_no_gradient_and_no_nan_from_finite_numbers() -> None:
    x = torch.full((1, 1, 3, 3), 1e38, requires_grad=True)
    out = operation("none", 1, 1)(x)
    assert torch.equal(out, torch.zeros(1, 1, 3, 3))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient, torch.zeros_like(x))


# The eight bundled architectures.


def ends_in_norm(model: nn.Module, address: str) -> bool:
    """Follow the place through everything but convolutions and linear layers, in torch.fx's graph."""

    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, m: nn.Module, name: str) -> bool:
            return name == address or super().is_leaf_module(m, name)

    graph = Tracer().trace(model)
    modules = dict(model.named_modules())
    ahead = [node for node in graph.nodes if node.op == "call_module" and node.target == address]
    assert len(ahead) == 1
    seen = set(ahead)
    while ahead:
        for user in ahead.pop().users:
            module = modules.get(str(user.target)) if user.op == "call_module" else None
            if isinstance(module, nn.BatchNorm2d):
                return True
            if user not in seen and not isinstance(module, (nn.Conv2d, nn.Linear)):
                seen.add(user)
                ahead.append(user)
    return False


def test_following_sees_a_norm_behind_a_join() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.conv, self.norm = nn.ReLU(), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(torch.cat([self.relu(x), self.conv(x)], 1))

    assert ends_in_norm(Joined(), "relu")
    assert ends_in_norm(Joined(), "conv")
    assert not ends_in_norm(nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)), "0")


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_architectures(name: str) -> None:
    network = fresh_network(name)
    family, source = name.split("-")
    shape = {"fashion": (1, 28, 28), "scenes": (3, 32, 32)}[source]
    assert network.input_shape == shape
    assert len(network.layers) >= FAMILIES[family]
    with torch.no_grad(), Taps(network) as taps:
        logits = network.logits(torch.zeros(2, *shape))
    assert logits.shape == (2, len(network.class_names))
    assert list(network.layers) == list(taps.activations)  # in forward order
    for address, layer in network.layers.items():
        assert (layer.axis, layer.units) == (1, taps.activations[address].shape[1])
        assert not layer.feeds_norm
        assert not ends_in_norm(network.model, address)
    if family != "darts":  # whose cells hand on signed outputs, as published
        assert all(bool((a >= 0).all()) for a in taps.activations.values())


def operations_by_hand(model: nn.Module, x: Tensor) -> int:
    """Two for each multiplication with its addition, in convolutions and linear layers."""
    total = 0

    def count(module: nn.Module, _args: object, out: Tensor) -> None:
        nonlocal total
        assert isinstance(module, (nn.Conv2d, nn.Linear))
        total += 2 * out.numel() * module.weight[0].numel()

    handles = [
        m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return total


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_networks_are_small(name: str) -> None:
    network = fresh_network(name)
    operations = operations_by_hand(network.model, torch.zeros(1, *network.input_shape))
    assert operations <= 10e6
    path = DATA / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"{path.name} is not trained yet")
    card = model_card(name)
    assert card["mflop_per_image"] == pytest.approx(operations / 1e6)
    assert card["parameters"] == sum(p.numel() for p in network.model.parameters())
    assert path.stat().st_size <= 1_000_000


def test_cell_before_last_is_aligned_after_reduction_only() -> None:
    for after in (False, True):
        cell = Cell(DARTS_V2, (4, 4), 2, reduces=False, after_reduction=after)
        size = 8 if after else 4
        assert cell(torch.zeros(1, 4, size, size), torch.zeros(1, 4, 4, 4)).shape == (1, 8, 4, 4)
