"""Taps read and gate, then leave no trace: each guarantee stands here as a test that can fail."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils.hooks import RemovableHandle

from nadkit.errors import LayerError
from nadkit.taps import Layer, Taps, frozen, parse_address

TASKS, BATCH = 4, 6
ROWS = torch.tensor([3, 0, 0, 2, 1, 3])


class Residual(nn.Module):
    """Every trap at once: one ReLU that runs twice and in place, an in-place sum, a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(5)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(5, 5, 3, padding=1)
        self.head = nn.Linear(5, TASKS)
        self.unused = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.conv2(x)
        y += x
        y = self.relu(y)
        return self.head(y.mean((2, 3)))


ONCE = {"conv1": 5, "bn1": 5, "relu#1": 5, "conv2": 5, "relu#2": 5, "head": TASKS}


def slow(
    model: Residual, x: Tensor, gates: dict[str, Tensor] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The forward of `Residual` a second time: no hook, nothing in place, a gate wherever one is named."""
    seen: dict[str, Tensor] = {}

    def tap(address: str, output: Tensor) -> Tensor:
        if gates and address in gates:
            output = output * gates[address].reshape(1, -1, *[1] * (output.ndim - 2))
        seen[address] = output
        return output

    bn = model.bn1
    x = tap("conv1", F.conv2d(x, model.conv1.weight, model.conv1.bias, padding=1))
    x = tap("bn1", F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.1, bn.eps))
    x = tap("relu#1", F.relu(x))
    y = tap("conv2", F.conv2d(x, model.conv2.weight, model.conv2.bias, padding=1))
    y = tap("relu#2", F.relu(y + x))
    return tap("head", F.linear(y.mean((2, 3)), model.head.weight, model.head.bias)), seen


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 7)
        self.second = nn.Linear(7, TASKS)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu_(self.first(x))).mean(1)


@dataclass(frozen=True)
class Named:
    """What Taps knows of a network."""

    model: nn.Module
    layers: dict[str, Layer] = field(default_factory=dict)


@pytest.fixture
def model() -> Residual:
    generator = torch.Generator().manual_seed(1)
    net = Residual().double().eval()
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * 0.5)
        net.bn1.running_var.abs_().add_(0.5)
    return net


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(BATCH, 3, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def random_gates(*lead: int, seed: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {a: torch.rand(*lead, u, generator=generator, dtype=torch.float64) for a, u in ONCE.items()}


def hooks(model: nn.Module) -> list[tuple[str, str, tuple[int, ...]]]:
    """Every hook dictionary of every module, by content."""
    return [
        (name, key, tuple(map(id, value.values())))
        for name, module in model.named_modules()
        for key, value in sorted(vars(module).items())
        if "hooks" in key and value
    ]


def flags(model: nn.Module) -> list[bool]:
    return [m.training for m in model.modules()] + [p.requires_grad for p in model.parameters()]


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "parsed"),
    [("a", ("a", None)), ("layer1.0.relu#2", ("layer1.0.relu", 2)), ("a#12", ("a", 12))],
)
def test_address_parsed(address: str, parsed: tuple[str, int | None]) -> None:
    assert parse_address(address) == parsed


@pytest.mark.parametrize("address", ["", "#1", "a#", "a#0", "a#-1", "a#x", "a#1#2", "a#²", "a# 1", 3, None])
def test_address_refused(address: object) -> None:
    with pytest.raises(LayerError, match="address"):
        parse_address(address)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["record", "gate"])
def test_unknown_address_names_the_closest(model: Residual, kind: str) -> None:
    layers, gates = (["conv1", "conv3"], {}) if kind == "record" else (None, {"conv3": torch.ones(5)})
    with pytest.raises(LayerError, match=r"no layer 'conv3' in Residual; closest: conv2, conv1"):
        Taps(model, layers, gates=gates)
    with pytest.raises(LayerError, match=r"'relux#2' .*closest: relu"):
        Taps(model, ["relux#2"])
    assert hooks(model) == []


def test_a_weight_is_not_a_layer(model: Residual) -> None:
    with pytest.raises(LayerError, match=r"no layer 'conv1.weight'"):
        Taps(model, ["conv1.weight"])


def test_one_address_may_stand_alone(model: Residual, pixels: Tensor) -> None:
    with Taps(model, "conv1") as taps:
        model(pixels)
    assert list(taps.activations) == ["conv1"]


# --- what comes out is the same -------------------------------------------------------------------


def tokens() -> tuple[nn.Module, Tensor, dict[str, int], dict[str, Layer]]:
    net = Tokens().eval()
    return (
        net,
        torch.randn(BATCH, 9, 3),
        {"first": 7, "second": TASKS},
        {a: Layer(u, -1) for a, u in (("first", 7), ("second", TASKS))},
    )


def residual(
    memory_format: torch.memory_format,
) -> tuple[nn.Module, Tensor, dict[str, int], dict[str, Layer]]:
    net = Residual().eval().to(memory_format=memory_format)
    return net, torch.randn(BATCH, 3, 16, 16).to(memory_format=memory_format), ONCE, {}


NETS: dict[str, Callable[[], tuple[nn.Module, Tensor, dict[str, int], dict[str, Layer]]]] = {
    "residual": lambda: residual(torch.contiguous_format),
    "channels_last": lambda: residual(torch.channels_last),
    "tokens": tokens,
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("how", ["nothing", "record", "flat", "rows", "rows and record"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_bit_identical_without_gates_and_with_gates_of_one(
    net: str, how: str, mode: Callable[[], torch.no_grad]
) -> None:
    module, x, units, layers = NETS[net]()
    shape = {"flat": (), "rows": (TASKS,), "rows and record": (TASKS,)}.get(how)
    gates = None if shape is None else {a: torch.ones(*shape, u) for a, u in units.items()}
    with mode():
        plain = module(x)
        with Taps(
            Named(module, layers),
            list(units) if "record" in how else (),
            gates=gates,
            rows=ROWS if "rows" in how else None,
        ):
            tapped = module(x)
    assert torch.equal(plain, tapped)
    if tapped.requires_grad:
        parameters = [p for n, p in module.named_parameters() if "unused" not in n]
        for a, b in zip(
            torch.autograd.grad(plain.sum(), parameters),
            torch.autograd.grad(tapped.sum(), parameters),
            strict=True,
        ):
            assert torch.equal(a, b)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("gated", [False, True])
def test_records_are_copies_from_before_every_in_place_operation(
    model: Residual, pixels: Tensor, mode: Callable[[], torch.no_grad], gated: bool
) -> None:
    gates = random_gates() if gated else None
    with mode():
        answer, seen = slow(model, pixels, gates)
        with Taps(model, list(ONCE), gates=gates) as taps:
            tapped = model(pixels)
    assert list(taps.activations) == list(ONCE), "records stand in the order of the forward"
    torch.testing.assert_close(tapped, answer)
    assert seen["conv1"].min() < -0.1, "or the in-place ReLU could not show"
    for address, tensor in taps.activations.items():
        torch.testing.assert_close(tensor, seen[address])
        tensor.detach().zero_()
    assert not torch.equal(tapped, torch.zeros_like(tapped)), "writing to a record must not reach the answer"


def test_record_is_a_copy_where_the_model_writes_through_an_alias() -> None:
    class Alias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = x * 1
            self.relu(y)
            y += 1
            return y

    net, x = Alias(), torch.tensor([[-1.0, 2.0]], requires_grad=True)
    with Taps(net, ["relu"]) as taps:
        assert net(x).tolist() == [[1.0, 3.0]]
    assert taps.activations["relu"].tolist() == [[0.0, 2.0]]


# --- gates ----------------------------------------------------------------------------------------


def test_gates_by_hand() -> None:
    net = nn.Sequential(
        nn.Linear(2, 2, bias=False), nn.ReLU(inplace=True), nn.Linear(2, 1, bias=False)
    ).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        net[2].weight.copy_(torch.tensor([[10.0, 100.0]]))
    gates = {"1": torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, -2.0]])}
    with Taps(net, gates=gates, rows=torch.tensor([0, 1, 2, 1])) as taps:
        answer = net(torch.ones(4, 2))
    assert answer.flatten().tolist() == [30.0, 700.0, 15.0 - 1400.0, 700.0]
    assert taps.activations["1"].tolist() == [[3.0, 0.0], [0.0, 7.0], [1.5, -14.0], [0.0, 7.0]]


def test_rows_gate_each_sample_as_if_it_were_alone(model: Residual, pixels: Tensor) -> None:
    gates = random_gates(TASKS)
    with torch.no_grad(), Taps(model, list(ONCE), gates=gates, rows=ROWS) as taps:
        answer = model(pixels)
    for n, row in enumerate(ROWS.tolist()):
        alone, seen = slow(model, pixels[n : n + 1], {a: g[row] for a, g in gates.items()})
        torch.testing.assert_close(answer[n : n + 1], alone)
        for address in ONCE:
            torch.testing.assert_close(taps.activations[address][n : n + 1], seen[address])


def test_flat_and_row_gates_stand_together(model: Residual, pixels: Tensor) -> None:
    flat, many = random_gates()["conv1"], random_gates(TASKS)["conv2"]
    with torch.no_grad(), Taps(model, (), gates={"conv1": flat, "conv2": many}, rows=ROWS) as taps:
        answer = model(pixels)
    assert taps.activations == {}
    for n, row in enumerate(ROWS.tolist()):
        alone, _ = slow(model, pixels[n : n + 1], {"conv1": flat, "conv2": many[row]})
        torch.testing.assert_close(answer[n : n + 1], alone)


def test_gradient_of_gates_before_in_place_consumers(model: Residual, pixels: Tensor) -> None:
    """Against finite differences; conv2 is written by `+=`, conv1 and both ReLUs by the ReLU itself."""
    addresses = ["bn1", "relu#1", "conv2", "relu#2"]

    def answer(*values: Tensor) -> Tensor:
        with Taps(model, ["conv1"], gates=dict(zip(addresses, values, strict=True)), rows=ROWS):
            return model(pixels)

    gates = [random_gates(TASKS)[a].requires_grad_() for a in addresses]
    assert torch.autograd.gradcheck(answer, gates)


def test_gradient_reaches_what_was_recorded(model: Residual, pixels: Tensor) -> None:
    for gates in (None, random_gates()):
        with Taps(model, list(ONCE), gates=gates) as taps:
            answer = model(pixels)
        plain, seen = slow(model, pixels, gates)
        for address in ONCE:
            found = torch.autograd.grad(answer.sum(), taps.activations[address], retain_graph=True)
            right = torch.autograd.grad(plain.sum(), seen[address], retain_graph=True)
            torch.testing.assert_close(found, right)


def test_records_carry_no_graph_where_gradients_are_off(model: Residual, pixels: Tensor) -> None:
    with torch.no_grad(), Taps(model, ["conv1"]) as taps:
        model(pixels)
    assert not taps.activations["conv1"].requires_grad
    with Taps(model, ["conv1"]) as taps:
        model(pixels)
    assert taps.activations["conv1"].requires_grad


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("net", [torch.float32, torch.float64, torch.bfloat16])
def test_gates_follow_the_dtype_of_the_layer(dtype: torch.dtype, net: torch.dtype) -> None:
    layer = nn.Sequential(nn.Linear(2, 3)).to(net)
    x = torch.ones(2, 2, dtype=net)
    with torch.no_grad(), Taps(layer, gates={"0": torch.tensor([1, 0, 1]).to(dtype)}):
        answer = layer(x)
    assert answer.dtype == net
    assert torch.equal(answer, layer(x).detach() * torch.tensor([1, 0, 1], dtype=net))


def test_any_finite_gate_is_taken_even_where_their_sum_overflows() -> None:
    layer, gate = nn.Sequential(nn.Identity()), torch.full((3,), 3e38)
    with Taps(layer, gates={"0": gate}):
        assert torch.equal(layer(torch.ones(2, 3)), gate.expand(2, 3))


def test_nested_gates_multiply(model: Residual, pixels: Tensor) -> None:
    one, two = random_gates(seed=4), random_gates(TASKS, seed=5)
    with torch.no_grad(), Taps(model, ["conv2"], gates=one) as outer:
        with Taps(model, ["conv2"], gates=two, rows=ROWS) as inner:
            both = model(pixels)
        again = model(pixels)
        product = {a: one[a] * two[a] for a in ONCE}
        with Taps(model, ["conv2"], gates={a: one[a].reciprocal() for a in ONCE}):
            neither = model(pixels)
    with torch.no_grad(), Taps(model, ["conv2"], gates=product, rows=ROWS) as taps:
        torch.testing.assert_close(both, model(pixels))
    torch.testing.assert_close(inner.activations["conv2"], taps.activations["conv2"])
    torch.testing.assert_close(again, slow(model, pixels, one)[0])
    torch.testing.assert_close(neither, model(pixels))
    assert "conv2" in outer.activations


def test_units_on_another_axis() -> None:
    net, x = Tokens().double().eval(), torch.randn(BATCH, 7, 3, dtype=torch.float64)
    gates = {"first": torch.rand(TASKS, 7, dtype=torch.float64)}
    with torch.no_grad(), Taps(Named(net, {"first": Layer(7, -1)}), gates=gates, rows=ROWS):
        answer = net(x)
    with torch.no_grad(), Taps(Named(net, {"first#1": Layer(7, -1)}), gates=gates, rows=ROWS):
        again = net(x)
    right = net.second(torch.relu(net.first(x) * gates["first"][ROWS][:, None, :])).mean(1)
    torch.testing.assert_close(answer, right)
    torch.testing.assert_close(again, right)


# --- calls ----------------------------------------------------------------------------------------


def test_repeated_module_needs_the_call(model: Residual, pixels: Tensor) -> None:
    with (
        pytest.raises(LayerError, match=r"'relu' runs more than once.*relu#1, relu#2"),
        Taps(model, ["relu"]),
    ):
        model(pixels)
    with (
        pytest.raises(LayerError, match="runs more than once"),
        Taps(model, (), gates={"relu": torch.ones(5)}),
    ):
        model(pixels)
    assert hooks(model) == []


def test_only_the_call_asked_for_is_gated(model: Residual, pixels: Tensor) -> None:
    gate = random_gates()["relu#1"]
    for address in ("relu#1", "relu#2"):
        with torch.no_grad(), Taps(model, gates={address: gate}):
            torch.testing.assert_close(model(pixels), slow(model, pixels, {address: gate})[0])


def test_first_call_of_a_module_that_runs_once(model: Residual, pixels: Tensor) -> None:
    gate = random_gates()["conv1"]
    network = Named(model, {"conv1": Layer(5, 1)})
    with torch.no_grad(), Taps(network, ["conv1", "conv1#1"], gates={"conv1#1": gate}) as taps:
        answer = model(pixels)
    torch.testing.assert_close(answer, slow(model, pixels, {"conv1": gate})[0])
    assert torch.equal(taps.activations["conv1"], taps.activations["conv1#1"])


def test_two_gates_for_one_call_are_refused(model: Residual) -> None:
    with pytest.raises(LayerError, match="multiply"):
        Taps(model, gates={"conv1": torch.ones(5), "conv1#1": torch.ones(5)})


def test_calls_are_counted_anew_in_every_forward(model: Residual, pixels: Tensor) -> None:
    with torch.no_grad(), Taps(model, ["relu#2", "conv1"]) as taps:
        for _ in range(3):
            model(pixels)
        with pytest.raises(TypeError):
            model(pixels, "an argument too many")
        model(pixels)
    torch.testing.assert_close(taps.activations["relu#2"], slow(model, pixels)[1]["relu#2"])


def test_count_restarts_after_a_forward_that_broke_off(model: Residual, pixels: Tensor) -> None:
    with torch.no_grad(), Taps(model, ["relu#2", "conv1"]) as taps:
        with pytest.raises(RuntimeError):
            model.relu(model.conv1(pixels)).view(7, 11, 13)
        model(pixels)
    torch.testing.assert_close(taps.activations["relu#2"], slow(model, pixels)[1]["relu#2"])


def test_shared_module_under_two_names() -> None:
    first = nn.Linear(2, 2, bias=False)
    net = nn.Sequential()
    net.add_module("a", first)
    net.add_module("b", nn.Tanh())
    net.add_module("c", first)
    x = torch.randn(3, 2)
    with pytest.raises(LayerError, match=r"'c' runs more than once.*c#1, c#2"), Taps(net, ["c"]):
        net(x)
    with pytest.raises(LayerError, match=r"closest: c$"):
        Taps(net, ["cc"])
    with torch.no_grad(), Taps(net, ["a#1", "c#1", "c#2"], gates={"a#2": torch.tensor([0.0, 1.0])}) as taps:
        answer = net(x)
    assert torch.equal(taps.activations["a#1"], first(x))
    assert torch.equal(taps.activations["c#1"], first(x))
    assert torch.equal(answer, first(torch.tanh(first(x))) * torch.tensor([0.0, 1.0]))
    assert torch.equal(taps.activations["c#2"], answer)


def test_last_forward_wins_in_a_dictionary_of_its_own(model: Residual, pixels: Tensor) -> None:
    with torch.no_grad(), Taps(model, ["conv1"]) as taps:
        assert taps.activations == {}
        model(pixels)
        first = taps.activations
        model(pixels[:2])
    assert len(first["conv1"]) == BATCH
    torch.testing.assert_close(taps.activations["conv1"], slow(model, pixels[:2])[1]["conv1"])


# --- layers that do not run -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["record", "gate"])
def test_layer_that_never_ran_raises_at_exit(model: Residual, pixels: Tensor, kind: str) -> None:
    taps = Taps(model, ["unused"]) if kind == "record" else Taps(model, (), gates={"unused": torch.ones(5)})
    taps.__enter__()
    model(pixels)
    with pytest.raises(LayerError, match=r"'unused' of Residual never ran"):
        taps.__exit__(None, None, None)
    assert hooks(model) == []


def test_call_that_never_came_raises_at_exit(model: Residual, pixels: Tensor) -> None:
    taps = Taps(model, ["relu#1", "relu#3"])
    with pytest.raises(LayerError, match=r"relu#3 of Residual never ran; it ended with relu#2"), taps:
        model(pixels)


def test_layer_that_ran_in_one_forward_of_several_has_run() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tanh = nn.Tanh()

        def forward(self, x: Tensor, calls: int) -> Tensor:
            for _ in range(calls):
                x = self.tanh(x)
            return x

    net = Twice()
    with Taps(net, ["tanh#2"]) as taps:
        net(torch.ones(2, 2), 2)
        net(torch.ones(2, 2), 1)
        assert taps.activations == {}, "the last forward did not run it"


def test_no_forward_at_all_raises_at_exit(model: Residual) -> None:
    with pytest.raises(LayerError, match="run the model"), Taps(model, ["conv1"]):
        pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_another_error_is_not_hidden_by_the_layer_that_never_ran(
    model: Residual, error: type[BaseException]
) -> None:
    with pytest.raises(error, match="mine"), Taps(model, ["unused"]):
        raise error("mine")


def test_taps_of_nothing(model: Residual, pixels: Tensor) -> None:
    with Taps(model, ()) as taps:
        model(pixels)
    assert taps.activations == {}
    with pytest.raises(LayerError, match="layers= or gates="):
        Taps(model)


def test_layers_none_records_all_of_a_network_or_the_gated_ones(model: Residual, pixels: Tensor) -> None:
    network = Named(model, {"conv1": Layer(5, 1, feeds_norm=True), "relu#2": Layer(5, 1)})
    with torch.no_grad(), Taps(network) as taps:
        model(pixels)
    assert list(taps.activations) == ["conv1", "relu#2"]
    with torch.no_grad(), Taps(network, gates={"conv2": torch.ones(5)}) as taps:
        model(pixels)
    assert list(taps.activations) == ["conv1", "relu#2"]
    with torch.no_grad(), Taps(model, gates={"conv2": torch.ones(5)}) as taps:
        model(pixels)
    assert list(taps.activations) == ["conv2"]


# --- leaving no trace -----------------------------------------------------------------------------


class Boom(BaseException):
    pass


def boom(*_: object) -> None:
    raise Boom


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


ENDS: dict[str, Callable[[Residual, Tensor], object]] = {
    "well": lambda model, pixels: model(pixels),
    "error": lambda model, pixels: boom(model(pixels)),
    "error in the forward": lambda model, pixels: model(pixels[:, :2]),
    "never ran": lambda *_: None,
    "interrupt": lambda model, pixels: interrupt(model(pixels)),
    "repeated": lambda model, pixels: (model(pixels), model.conv1(pixels)),
}


@pytest.mark.parametrize("end", ENDS)
def test_hooks_modes_and_flags_come_back(model: Residual, pixels: Tensor, end: str) -> None:
    model.conv1.train()
    model.head.weight.requires_grad_(False)
    mine: list[Tensor] = []
    model.conv2.register_forward_hook(lambda *given: mine.append(given[2]))
    before, state, hooked = flags(model), {k: v.clone() for k, v in model.state_dict().items()}, hooks(model)
    try:
        with Taps(model, ["conv1", "conv2", "relu#1"], gates={"relu#2": torch.ones(5)}):
            assert hooks(model) != hooked
            ENDS[end](model, pixels)
    except (Boom, RuntimeError, LayerError, KeyboardInterrupt):
        assert end != "well"
    else:
        assert end == "well"
    assert hooks(model) == hooked
    assert flags(model) == before
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert "forward" not in vars(model)


def test_interrupt_while_closing_removes_every_hook(model: Residual, pixels: Tensor) -> None:
    remove, calls = RemovableHandle.remove, []

    def interrupted(self: RemovableHandle) -> None:
        remove(self)
        calls.append(self)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RemovableHandle, "remove", interrupted)
        taps = Taps(model, ["conv1", "conv2", "head"])
        with pytest.raises(KeyboardInterrupt), taps:
            model(pixels)
    assert hooks(model) == []
    with pytest.raises(LayerError, match="opened before"):
        taps.__enter__()


def test_interrupt_while_opening_removes_every_hook(model: Residual, pixels: Tensor) -> None:
    taps = Taps(model, ["conv1", "conv2", "head"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.head, "register_forward_hook", boom)
        with pytest.raises(Boom):
            taps.__enter__()
    assert hooks(model) == []
    with taps:
        model(pixels)
    assert hooks(model) == []


@pytest.mark.parametrize("at", range(30))
def test_interrupt_before_a_hook_is_removed_removes_it(model: Residual, pixels: Tensor, at: int) -> None:
    remove, closed = RemovableHandle.remove, iter(range(1000))

    def interrupted(handle: RemovableHandle) -> None:
        if next(closed) == at:
            raise KeyboardInterrupt
        remove(handle)

    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(RemovableHandle, "remove", interrupted)
        with Taps(model, ["conv1", "conv2", ":add"]):
            model(pixels)
    assert next(closed) > 10
    assert hooks(model) == []
    assert not _get_current_function_mode_stack()


def test_closing_twice_does_nothing(model: Residual, pixels: Tensor) -> None:
    with Taps(model, ["conv1"]) as taps:
        model(pixels)
        mine = model.conv1.register_forward_hook(lambda *_: None)
    taps.__exit__(None, None, None)
    assert len(hooks(model)) == 1, "a hook that somebody else made stays"
    mine.remove()


def test_opening_twice_raises(model: Residual, pixels: Tensor) -> None:
    taps = Taps(model, ["conv1"])
    with taps:
        model(pixels)
        opened = hooks(model)
        with pytest.raises(LayerError, match="opened before"), taps:
            pass
        assert hooks(model) == opened, "the block that is open stays open"
    with pytest.raises(LayerError, match="opened before"), taps:
        pass
    assert hooks(model) == []
    assert "conv1" in taps.activations


@pytest.fixture
def collector() -> Iterator[None]:
    """Collection by reference counts alone: a cycle would keep a network in memory for a long time."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("end", ["well", "error"])
def test_nothing_is_kept_alive_after_the_block(pixels: Tensor, end: str) -> None:
    net = Residual().double().eval()
    held = {"network": Named(net, {"conv1": Layer(5, 1)}), "model": net, "layer": net.conv1}
    gate, rows = torch.ones(TASKS, 5), ROWS.clone()
    held |= {"gate": gate, "rows": rows}
    with suppress(Boom), torch.no_grad(), Taps(held["network"], gates={"conv2": gate}, rows=rows) as taps:
        net(pixels)
        if end == "error":
            boom()
    gone = {name: weakref.ref(thing) for name, thing in held.items()}
    del net, gate, rows, held
    assert [name for name, thing in gone.items() if thing() is not None] == []
    record, itself = weakref.ref(taps.activations["conv1"]), weakref.ref(taps)
    assert record() is not None
    del taps
    assert itself() is None
    assert record() is None


@pytest.mark.usefixtures("collector")
def test_hooks_do_not_hold_the_taps(model: Residual, pixels: Tensor) -> None:
    taps = Taps(model, ["conv1"])
    taps.__enter__()
    model(pixels)
    seen = weakref.ref(taps)
    del taps
    assert seen() is None


@pytest.mark.usefixtures("collector")
def test_records_of_the_last_forward_are_dropped_before_the_next(model: Residual, pixels: Tensor) -> None:
    with torch.no_grad(), Taps(model, ["head"]) as taps:
        model(pixels)
        record = weakref.ref(taps.activations["head"])
        model.conv1.register_forward_hook(lambda *_: alive.append(record() is not None))
        alive: list[bool] = []
        model(pixels)
    assert alive == [False]


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gates", "rows", "says"),
    [
        ({"conv1": torch.ones(4)}, None, "has 4 units, the layer has 5"),
        ({"relu#2": torch.ones(5)}, None, None),
        ({"conv1": torch.ones(TASKS, 5)}, None, "4 rows; say with rows="),
        ({"conv1": torch.ones(1, 5, 1)}, None, r"torch.float32 \(1, 5, 1\)"),
        ({"conv1": torch.tensor(1.0)}, None, "give a tensor"),
        ({"conv1": [1.0] * 5}, None, "a list"),
        ({"conv1": torch.ones(5, dtype=torch.complex64)}, None, "complex"),
        ({"conv1": torch.ones(5, device="meta")}, None, "meta"),
        ({"conv1": torch.tensor([1, 1, float("nan"), 1, 1])}, None, "NaN"),
        ({"conv1": torch.tensor([1, 1, float("inf"), 1, 1])}, None, "infinite"),
        (
            {"conv1": torch.tensor([[1.0] * 5, [-float("inf")] * 5])},
            torch.zeros(BATCH, dtype=torch.int64),
            "inf",
        ),
        ([("conv1", torch.ones(5))], None, "give a dictionary"),
        ({"conv1": torch.ones(TASKS, 5)}, ROWS + 1, "rows run from 1 to 4; .* 4 rows"),
        ({"conv1": torch.ones(TASKS, 5)}, ROWS - 1, "rows run from -1 to 2"),
        ({"conv1": torch.ones(TASKS, 5)}, ROWS.int(), "torch.int32"),
        ({"conv1": torch.ones(TASKS, 5)}, ROWS.double(), "torch.float64"),
        ({"conv1": torch.ones(TASKS, 5)}, ROWS[None], r"\(1, 6\)"),
        ({"conv1": torch.ones(TASKS, 5)}, ROWS.tolist(), "a list"),
        ({"conv1": torch.ones(TASKS, 5)}, ROWS.to("meta"), "meta"),
        (None, ROWS, "there are no gates"),
    ],
)
def test_bad_gates_and_rows_are_refused_at_the_door(
    model: Residual, gates: object, rows: object, says: str | None
) -> None:
    network = Named(model, {"conv1": Layer(5, 1), "relu#1": Layer(4, 1)})
    if says is None:
        Taps(network, (), gates=gates, rows=rows)  # type: ignore[arg-type]
        return
    with pytest.raises(LayerError, match=says):
        Taps(network, (), gates=gates, rows=rows)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layers", "units", "says"),
    [
        ({}, 4, r"has 4 units, the layer has 5 on axis 1 of its output \(6, 5, 4, 4\)"),
        ({}, 1, "has 1 units, the layer has 5 "),
        ({"conv1": Layer(5, 4)}, 5, "has none on axis 4"),
        ({"conv1": Layer(6, -4)}, 6, "has none on axis -4"),
    ],
)
def test_gate_of_a_size_that_only_the_forward_can_tell(
    model: Residual, pixels: Tensor, layers: dict[str, Layer], units: int, says: str
) -> None:
    taps = Taps(Named(model, layers), (), gates={"conv1": torch.ones(units)})
    with pytest.raises(LayerError, match=says), taps:
        model(pixels)
    assert hooks(model) == []


def test_rows_of_another_batch(model: Residual, pixels: Tensor) -> None:
    gates = {"conv1": torch.ones(TASKS, 5)}
    with Taps(model, (), gates=gates, rows=ROWS):
        model(pixels)
        with pytest.raises(LayerError, match="rows are for 6 samples, 'conv1' gives 2"):
            model(pixels[:2])
        with pytest.raises(LayerError, match="rows are for 6 samples, 'conv1' gives 1"):
            model(pixels[:1])
    taps = Taps(model, (), gates=gates, rows=ROWS[:1])
    with pytest.raises(LayerError, match="rows are for 1 samples, 'conv1' gives 6"), taps:
        model(pixels)


def test_empty_batch(model: Residual, pixels: Tensor) -> None:
    with torch.no_grad(), Taps(model, gates={"conv1": torch.ones(TASKS, 5)}, rows=ROWS[:0]):
        assert model(pixels[:0]).shape == (0, TASKS)


@pytest.mark.parametrize(("value", "kind"), [((1, 2), "tuple"), ({"a": 1}, "dict"), (None, "NoneType")])
def test_output_that_is_not_one_tensor(value: object, kind: str) -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> object:  # noqa: ARG002
            return value

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: Tensor) -> Tensor:
            self.inner(x)
            return x

    net, x = Outer(), torch.ones(2, 2)
    for taps in (Taps(net, ["inner"]), Taps(net, gates={"inner": torch.ones(2)})):
        with pytest.raises(LayerError, match=f"'inner' gives a {kind}, not one tensor"), taps:
            net(x)
    assert hooks(net) == []


def test_whole_numbers_can_be_read_but_not_gated() -> None:
    class Choose(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sort(1).indices

    net, x = nn.Sequential(nn.Linear(2, 3), Choose()), torch.randn(4, 2)
    with Taps(net, ["1"]) as taps:
        assert torch.equal(net(x), taps.activations["1"])
    with (
        pytest.raises(LayerError, match=r"torch.int64; only floating-point"),
        Taps(net, gates={"1": torch.ones(3)}),
    ):
        net(x)


@pytest.mark.parametrize(
    "target", [None, "resnet-fashion", torch.ones(2), SimpleNamespace(model=3, layers={})]
)
def test_target_that_is_no_network(target: object) -> None:
    with pytest.raises(LayerError, match=r"cannot tap .*; give a network"):
        Taps(target, ["conv1"])  # type: ignore[arg-type]
    with pytest.raises(LayerError, match=r"cannot tap"), frozen(target):  # type: ignore[arg-type]
        pass


# --- edits ----------------------------------------------------------------------------------------


def test_an_edit_takes_what_the_gate_left_and_is_what_goes_on(model: Residual, pixels: Tensor) -> None:
    gate = torch.tensor([1.0, 0, 1, 0, 1])
    got: list[Tensor] = []

    def double(output: Tensor) -> Tensor:
        got.append(output)
        return output * 2

    with torch.no_grad():
        plain, seen = slow(model, pixels, {"conv2": gate})
        twice, _ = slow(model, pixels, {"conv2": 2 * gate})
        with Taps(model, ["conv2", "head"], gates={"conv2": gate}, edits={"conv2": double}) as taps:
            answer = model(pixels)
    assert torch.equal(got[0], seen["conv2"])
    assert torch.allclose(taps.activations["conv2"], 2 * seen["conv2"])
    assert torch.allclose(answer, twice)
    assert not torch.allclose(answer, plain)


def test_an_edit_may_cut_the_way_of_gradients(model: Residual, pixels: Tensor) -> None:
    leaves: dict[str, Tensor] = {}

    def cut(output: Tensor) -> Tensor:
        leaves["relu#1"] = output.detach().requires_grad_()
        return leaves["relu#1"].clone()  # the sum after it works in place

    x = pixels.requires_grad_()
    with frozen(model), Taps(model, (), edits={"relu#1": cut}):
        total = model(x).sum()
    of_leaf, of_input = torch.autograd.grad(total, [leaves["relu#1"], x], allow_unused=True)
    assert of_input is None
    assert of_leaf is not None
    assert of_leaf.abs().sum() > 0
    assert model.relu._forward_hooks == {}


@pytest.mark.parametrize(
    ("edit", "words"),
    [(lambda z: z[:, :2], "edit of 'conv2' gives"), (print, "a NoneType"), (3, "give a function")],
)
def test_an_edit_that_is_none_is_refused(model: Residual, pixels: Tensor, edit: object, words: str) -> None:
    with (
        pytest.raises(LayerError, match=words),
        Taps(model, edits={"conv2": edit}),  # type: ignore[dict-item]
    ):
        model(pixels)


def test_two_edits_of_one_call_are_refused(model: Residual) -> None:
    with pytest.raises(LayerError, match="one function of the two"):
        Taps(model, edits={"conv2": torch.relu, "conv2#1": torch.relu})


# --- frozen ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("wrapped", [False, True])
def test_frozen_restores_each_flag(model: Residual, error: type[BaseException] | None, wrapped: bool) -> None:
    model.bn1.train()
    model.relu.train()
    model.conv1.weight.requires_grad_(False)
    before = flags(model)
    assert len(set(before)) == 2
    try:
        with frozen(Named(model) if wrapped else model):
            assert not any(flags(model))
            model.conv2.train()
            model.head.weight.requires_grad_(True)
            if error:
                raise error
    except BaseException as raised:
        assert type(raised) is error  # noqa: PT017
    assert flags(model) == before


def test_frozen_does_not_listen_to_modules_that_refuse_a_mode() -> None:
    class Stubborn(nn.Linear):
        def train(self, mode: bool = True) -> Stubborn:  # noqa: ARG002
            self.changed = True
            return super().train(True)

    net = nn.Sequential(Stubborn(2, 2), nn.Dropout())
    with frozen(net):
        assert not net[0].training
        assert not net[1].training
    assert net[0].training
    assert not hasattr(net[0], "changed")
