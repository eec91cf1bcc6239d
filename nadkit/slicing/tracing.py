"""From a network to a graph of its operations, with a gate behind every layer that has one."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, fx, nn

from nadkit.errors import NadkitError
from nadkit.networks import Network
from nadkit.taps import frozen, parse_address


class Shape(NamedTuple):
    """What a node gives in a run on two samples: sizes of a tensor, and whether they are the samples' own."""

    sizes: tuple[int, ...]
    samples: tuple[bool, ...]  # True for an axis whose size depends on how many samples run
    floating: bool


class Static(NamedTuple):
    """What a node gives if it is no tensor and the same for any number of samples."""

    value: Any


class Trace(NamedTuple):
    """A network's operations in order, what they give, and the gates among them.

    `shapes` holds a `Shape` for a tensor, a tuple of them for several, `Static` for a plain value that does
    not depend on the number of samples; a node that is not there gives something else.
    """

    root: nn.Module
    graph: fx.Graph
    shapes: Mapping[fx.Node, Shape | tuple[Shape, ...] | Static]
    gates: Mapping[fx.Node, tuple[str, int, Tensor]]  # address, axis of the units, the gate


def gated(x: Any, address: str) -> Any:
    """Stand for a gate in the graph; it is never run."""
    raise NotImplementedError


class _Root(nn.Module):
    """The model, with one input and its logits alone, so that its other arguments keep their defaults."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        out = self.model(x)
        return out[0] if isinstance(out, (tuple, list)) else out


class _Tracer(fx.Tracer):
    def __init__(self, model: nn.Module, gates: Mapping[str, Tensor]):
        super().__init__()
        self.model = model
        self.calls: Counter[nn.Module] = Counter()
        self.places: dict[nn.Module, dict[int, str]] = {}
        for address in gates:
            path, call = parse_address(address)
            if ":" in path:
                raise NadkitError(
                    f"{address!r} is the place of a function, which an export cannot cut; choose "
                    "layers that are modules, or run the gated network: with Taps(network, gates=...)"
                )
            self.places.setdefault(model.get_submodule(path), {})[call or 1] = address

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # A gate inside one of torch's own modules, such as an encoder layer, opens that module.
        inside = any(part is not m and part in self.places for part in m.modules())
        return m is not self.model and not inside and super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        out = super().call_module(m, forward, args, kwargs)
        self.calls[m] += 1  # at its end, as hooks count
        address = self.places.get(m, {}).get(self.calls[m])
        return out if address is None else self.create_proxy("call_function", gated, (out, address), {})


class _Runner(fx.Interpreter):
    """Run the graph with its gates, and note what every node gives."""

    def __init__(
        self, root: nn.Module, graph: fx.Graph, gates: Mapping[str, Tensor], axes: Mapping[str, int]
    ):
        super().__init__(fx.GraphModule(root, graph), garbage_collect_values=True)
        self.gates, self.axes = gates, axes
        self.seen: list[Any] = []

    def run_node(self, n: fx.Node) -> Any:
        out = super().run_node(n)
        self.seen.append(_describe(out))
        return out

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is not gated:
            return super().call_function(target, args, kwargs)
        x, address = args
        shape = [1] * x.ndim
        shape[self.axes[address]] = -1
        return x * self.gates[address].to(x).reshape(shape)


def _describe(value: Any) -> Any:
    """Return sizes and kind of a tensor, a list of those for several, `Static` for a plain value."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.is_floating_point()
    if isinstance(value, (tuple, list)) and value and all(isinstance(v, Tensor) for v in value):
        return [_describe(v) for v in value]
    return Static(value) if _plain(value) else None


def _plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, slice, torch.dtype, torch.device))


def _shape(two: Any, three: Any) -> Shape | tuple[Shape, ...] | Static | None:
    """Return what a run on two and one on three samples have in common."""
    if isinstance(two, Static):
        return two if two == three else None
    if isinstance(two, list) and isinstance(three, list) and len(two) == len(three):
        parts = [_shape(a, b) for a, b in zip(two, three, strict=True)]
        return tuple(cast("list[Shape]", parts)) if all(isinstance(part, Shape) for part in parts) else None
    if not isinstance(two, tuple) or not isinstance(three, tuple) or len(two[0]) != len(three[0]):
        return None
    sizes, others = two[0], three[0]
    if any(a != b and 3 * a != 2 * b for a, b in zip(sizes, others, strict=True)):
        return None
    return Shape(sizes, tuple(a != b for a, b in zip(sizes, others, strict=True)), two[1])


def trace(network: Network, gates: Mapping[str, Tensor], inputs: Tensor) -> Trace:
    """Return the operations of a network in evaluation mode, gated behind the layers named.

    Parameters
    ----------
    network : its model is traced by torch.fx; nothing in it changes
    gates : address → (units,), addresses of the network's layers
    inputs : at least three samples that the model takes

    Raises
    ------
    NadkitError
        The model's forward cannot be traced: its control flow depends on values, or it is not written in
        torch operations; or the model is tapped.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> network = Network.wrap(model, ["a", "b"], example=torch.zeros(1, 1, 2, 2))
    >>> found = trace(network, {"2": torch.tensor([1.0, 0.0, 1.0])}, torch.zeros(3, 1, 2, 2))
    >>> [str(node) for node in found.graph.nodes]
    ['x', 'model_0', 'model_1', 'model_2', 'gated', 'model_3', 'output']
    """
    for path, part in network.model.named_modules():
        hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
        if any(getattr(hook, "__module__", "").startswith("nadkit.") for hook in hooks):
            raise NadkitError(
                f"{network.name} is tapped at {path or 'its input'!r}, and the taps would go into the "
                "export; export it outside the block: with Taps(...)"
            )
    root = _Root(network.model)
    # In a record, what a sample has many rows of lies one axis deeper than in the model.
    axes = {a: network.layers[a].axis - (network.layers[a].folds > 1) for a in gates}
    tracer = _Tracer(network.model, gates)
    with frozen(network.model), torch.no_grad():
        try:
            graph = tracer.trace(root)
            for node in graph.nodes:  # else the code of a run would wrap such functions again, for all time
                node.meta.pop("is_wrapped", None)
            _without_in_place(root, graph)
            runs = []
            for count in (2, 3):
                runner = _Runner(root, graph, gates, axes)
                runner.run(inputs[:count].clone())
                runs.append(runner.seen)
        except NadkitError:
            raise
        except Exception as error:  # whatever a forward raises on stand-ins for tensors
            raise NadkitError(
                f"{network.name} cannot be exported: its forward cannot be traced "
                f"({type(error).__name__}: {str(error).strip()[:200]}); "
                "its steps may not depend on the values it computes; "
                "the gated network itself runs anyway: with Taps(network, gates=masks.gates(task))"
            ) from error
    nodes = list(graph.nodes)
    shapes = {
        node: shape
        for node, two, three in zip(nodes, *runs, strict=True)
        if (shape := _shape(two, three)) is not None
    }
    found: dict[fx.Node, tuple[str, int, Tensor]] = {}
    for node in nodes:
        if node.op == "call_function" and node.target is gated:
            address = cast("str", node.args[1])
            given = shapes[node]
            axis = axes[address] % len(given.sizes) if isinstance(given, Shape) else axes[address]
            found[node] = (address, axis, gates[address])
    return Trace(root, graph, shapes, found)


def _without_in_place(root: nn.Module, graph: fx.Graph) -> None:
    """Let operations return what they would have written into their input; later readers read that.

    An input of which a reader holds another view is not followed; the comparison at the end of an export
    would tell.
    """
    modules = dict(root.named_modules())
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not node.args or not isinstance(node.args[0], fx.Node) or not _pure(node, modules):
            continue
        source = node.args[0]
        for reader in [user for user in source.users if order[user] > order[node]]:
            reader.replace_input_with(source, node)


def _pure(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Make a node that writes into its input write nowhere; return whether it did."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))  # copied without, when it is built
    if node.op == "call_function" and argument(node, "inplace", False) is True:
        places = list(inspect.signature(cast("Callable[..., Any]", node.target)).parameters)
        given = {**dict(zip(places, node.args, strict=False)), **node.kwargs, "inplace": False}
        node.args, node.kwargs = (node.args[0],), {k: v for k, v in given.items() if k != places[0]}
        return True
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if not isinstance(name, str) or not name.endswith("_") or name.endswith("__"):
        return False
    # One of torch's own alone: a function of the user's may have any name.
    homes = [Tensor] if node.op == "call_method" else [nn.functional, torch] if _is_torchs(node) else []
    plain = next((getattr(home, name[:-1]) for home in homes if hasattr(home, name[:-1])), None)
    if plain is not None:
        node.target = name[:-1] if node.op == "call_method" else plain
    return plain is not None


def _is_torchs(node: fx.Node) -> bool:
    home = getattr(node.target, "__module__", None) or "torch"  # none for one written in C++
    return str(home).split(".")[0] == "torch"


def argument(node: fx.Node, name: str, default: Any) -> Any:
    """Return an argument of one of torch's functions, wherever it stands."""
    if name in node.kwargs:
        return node.kwargs[name]
    try:
        places = list(inspect.signature(cast("Callable[..., Any]", node.target)).parameters)
    except (TypeError, ValueError):  # one written in C++
        return default
    at = places.index(name) if name in places else len(node.args)
    return node.args[at] if at < len(node.args) else default


def without_in_place(module: nn.Module) -> nn.Module:
    """Return a copy of a module that shares nothing with it and writes into no input.

    Examples
    --------
    >>> without_in_place(nn.ReLU(inplace=True))
    ReLU()
    """
    made = copy.deepcopy(module)
    for part in made.modules():
        if getattr(part, "inplace", False):
            part.inplace = False  # type: ignore[assignment] # a flag, not a tensor
    return made
