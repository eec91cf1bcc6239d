"""`cost`: what a module takes to run, alone or against the whole network."""

from __future__ import annotations

import copy
import statistics
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from nadkit.errors import NadkitError
from nadkit.networks import Network
from nadkit.taps import frozen

if TYPE_CHECKING:
    import pandas as pd


def cost(
    module: nn.Module | Network,
    example: Tensor,
    *,
    whole: nn.Module | Network | None = None,
    batches: Sequence[int] = (1, 64),
    rounds: int = 31,
) -> pd.DataFrame:
    """Return what a module takes to run: parameters, multiply-adds, activation memory, latency.

    Parameters
    ----------
    module : such as `nadkit.export` returns; it is run frozen and restored
    example : (N, ...) of at least one sample that it takes, on the module's device; the first is repeated
    whole : what it was cut out of; both are then measured in turns in the same run
    batches : samples at a time, for the latency
    rounds : runs of each, of which the latency is the median; after three that are not counted

    Returns
    -------
    pandas.DataFrame
        One row a quantity: quantity, unit, batch, device, value, and with `whole` also whole and ratio
        (value / whole, 1 where both are 0: below 1 the module is cheaper). `parameters` are the numbers that
        its parameters hold, shared ones once. `multiply_adds` are those of convolutions, matrix products and
        attention, for one sample. `activation_memory` is the most that all tensors made in a run without
        gradients take at once, for one sample, in bytes; weights, inputs and an operation's inner workspace
        do not count. `latency` is measured with as many threads as torch has, on the CPU and, if it is
        another, the module's device, which is waited for. `attrs["answer"]` says in a sentence where slicing
        pays and where it does not.

    Raises
    ------
    NadkitError
        No module, an example without samples, on another device or that a module does not take, batches or
        rounds below 1.

    Examples
    --------
    >>> import nadkit as nk
    >>> small, large = nn.Linear(4, 2), nn.Linear(4, 8)
    >>> table = cost(small, torch.zeros(1, 4), whole=large, rounds=3)
    >>> table[["quantity", "value", "whole", "ratio"]].head(2)
            quantity  value  whole  ratio
    0     parameters   10.0   40.0   0.25
    1  multiply_adds    8.0   32.0   0.25
    """
    import pandas as pd

    modules = {"value": _module(module, "module")}
    if whole is not None:
        modules["whole"] = _module(whole, "whole")
    _check(modules, example, batches, rounds)
    one = example[:1]
    facts: list[tuple[str, str, int, str, dict[str, float]]] = []

    def each(measure: Callable[[nn.Module, Tensor], float]) -> dict[str, float]:
        return {name: measure(part, one) for name, part in modules.items()}

    kind = example.device.type
    with frozen(nn.ModuleList(modules.values())), torch.inference_mode(False), torch.no_grad():
        for name, part in modules.items():
            _run("module" if name == "value" else name, part, one)
        facts.append(("parameters", "numbers", 1, kind, each(lambda part, _: float(parameters(part)))))
        facts.append(("multiply_adds", "operations", 1, kind, each(multiply_adds)))
        facts.append(("activation_memory", "bytes", 1, kind, each(activation_memory)))
        for device in dict.fromkeys(["cpu", str(example.device)]):
            there = modules if device == str(example.device) else copy.deepcopy(modules)
            for part in there.values():
                part.to(device)
            for batch in batches:
                inputs = (
                    one.to(device).expand(batch, *one.shape[1:]).clone(memory_format=torch.preserve_format)
                )
                if one.ndim == 4 and one.is_contiguous(memory_format=torch.channels_last):
                    inputs = inputs.contiguous(memory_format=torch.channels_last)
                found = latencies(there, inputs, rounds)
                facts.append(("latency", "milliseconds", batch, device.split(":")[0], found))
    rows = []
    for quantity, unit, batch, device, values in facts:
        rows.append({"quantity": quantity, "unit": unit, "batch": batch, "device": device, **values})
        if whole is not None:
            rows[-1]["ratio"] = _ratio(values["value"], values["whole"])
    table = pd.DataFrame(rows)
    if whole is not None:
        told = [(q, b, d, _ratio(v["value"], v["whole"])) for q, _, b, d, v in facts]
        table.attrs["answer"] = _answer(told)
    return table


def _ratio(value: float, whole: float) -> float:
    return value / whole if whole else 1.0 if not value else float("inf")


def parameters(module: nn.Module) -> int:
    """Return how many numbers a module's parameters hold, shared ones once.

    Examples
    --------
    >>> parameters(nn.Linear(4, 2))
    10
    """
    return sum(p.numel() for p in module.parameters())


def multiply_adds(module: nn.Module, inputs: Tensor) -> float:
    """Return the multiplications (each with its addition) of a run: convolutions, products, attention.

    Examples
    --------
    >>> multiply_adds(nn.Linear(4, 2), torch.zeros(3, 4))
    24.0
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # in one piece, attention would count as nothing
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            module(inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return float(counter.get_total_flops()) / 2


class _Live(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, and their most."""

    def __init__(self, known: set[int]):
        super().__init__()  # type: ignore[no-untyped-call] # torch's
        self.known, self.alive = known, Counter[int]()
        self.bytes = self.most = 0

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                self._born(tensor)
        return out

    def _born(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        self.alive[place] += 1
        if self.alive[place] == 1:  # views of it take nothing more
            self.bytes += size
            self.most = max(self.most, self.bytes)
        weakref.finalize(tensor, self._died, place, size)

    def _died(self, place: int, size: int) -> None:
        self.alive[place] -= 1
        if self.alive[place] == 0:
            self.bytes -= size


def activation_memory(module: nn.Module, inputs: Tensor) -> float:
    """Return the most bytes that the tensors made in a run take at once, weights and inputs aside.

    Examples
    --------
    >>> activation_memory(nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 8)), torch.zeros(1, 4))
    40.0
    """
    held = [*module.parameters(), *module.buffers(), inputs]
    with torch.no_grad(), _Live({t.untyped_storage().data_ptr() for t in held}) as live:
        module(inputs)
    return float(live.most)


def latencies(
    modules: Mapping[str, nn.Module],
    inputs: Tensor,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the median milliseconds of a run of each module; they take turns.

    Examples
    --------
    >>> sorted(latencies({"a": nn.ReLU(), "b": nn.Tanh()}, torch.zeros(1), rounds=3))
    ['a', 'b']
    """

    def wait() -> None:
        if inputs.device.type != "cpu":  # calls return there before their work is done
            torch.accelerator.synchronize(inputs.device)

    taken: dict[str, list[float]] = {name: [] for name in modules}
    names = list(modules)
    for number in range(3 + rounds):
        for name in names if number % 2 else names[::-1]:
            wait()
            start = clock()
            modules[name](inputs)
            wait()
            if number >= 3:
                taken[name].append(clock() - start)
    return {name: 1000 * statistics.median(times) for name, times in taken.items()}


def _module(given: object, name: str) -> nn.Module:
    model = given.model if isinstance(given, Network) else given
    if not isinstance(model, nn.Module):
        raise NadkitError(f"cost measures modules, and {name} is a {type(given).__name__}; give an nn.Module")
    return model


def _check(modules: Mapping[str, nn.Module], example: object, batches: object, rounds: object) -> None:
    if not isinstance(example, Tensor) or not example.ndim or not len(example):
        got = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise NadkitError(
            f"cost runs on an example, a tensor of at least one sample, and got {got}; "
            "network.prepare(images.pixels[:1]) makes one"
        )
    for name, module in modules.items():
        first = next(module.parameters(), None)
        if first is not None and first.device != example.device:
            raise NadkitError(
                f"the example is on {example.device} and the {name} on {first.device}; move one of them: "
                "example.to(device)"
            )
    good = isinstance(batches, Sequence) and batches and all(type(b) is int and b > 0 for b in batches)
    if not good or type(rounds) is not int or rounds < 1:
        raise NadkitError(
            f"batches and rounds are whole numbers of 1 or more, got {batches!r} and {rounds!r}"
        )


def _run(name: str, module: nn.Module, one: Tensor) -> None:
    try:
        module(one)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise NadkitError(
            f"the {name} does not run on an example {tuple(one.shape)} of {one.dtype} ({str(error)[:200]}); "
            "network.prepare(images.pixels[:1]) is one"
        ) from error


def _answer(rows: Sequence[tuple[str, int, str, float]]) -> str:
    def told(quantity: str, batch: int, device: str, ratio: float) -> str:
        where = f" at batch {batch} on {device}" if quantity == "latency" else ""
        return f"{quantity.replace('_', ' ')}{where} ×{ratio:.2f}"

    pays = ", ".join(told(*row) for row in rows if round(row[3], 2) < 1)
    rest = ", ".join(told(*row) for row in rows if round(row[3], 2) >= 1)
    if not rest:
        return f"Slicing pays throughout: {pays}."
    return (f"Slicing pays in {pays}; it" if pays else "Slicing") + f" does not pay in {rest}."
