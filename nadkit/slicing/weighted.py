"""How operations with weights treat channels: convolutions, linear layers, batch normalisation."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from nadkit.slicing.build import Builder
from nadkit.slicing.flow import Flow, Rule, Source, State

Weighted = nn.modules.conv._ConvNd | nn.Linear


def _transposed(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvTransposeNd)


def folds(module: Weighted) -> bool:
    """Return whether a constant input that is not 0 adds the same at every position of the output.

    At the border of a picture padded with zeros it does not.

    Examples
    --------
    >>> folds(nn.Conv2d(1, 1, 1)), folds(nn.Conv2d(1, 1, 3, padding=1))
    (True, False)
    """
    if isinstance(module, nn.Linear):
        return True
    if _transposed(module):
        return False
    padding = module.padding
    none = padding == "valid" or (not isinstance(padding, str) and not any(padding))
    return none or module.padding_mode != "zeros"


def _shift(module: Weighted, rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """Return what constant inputs (columns,) add to each row of the output, (rows,) float64."""
    weight = module.weight.detach().double().cpu()
    weight = weight.transpose(0, 1) if _transposed(module) else weight
    # Not by a mask on both axes: of those torch takes pairs.
    return (
        weight[rows][:, columns].flatten(2).sum(2) @ values
        if weight.ndim > 2
        else (weight[rows][:, columns] @ values)
    )


def sliced(module: Weighted, weight: Tensor, bias: Tensor | None, groups: int = 1) -> nn.Module:
    """Return a module like another with other weights; nothing of the other is shared.

    Examples
    --------
    >>> sliced(nn.Linear(3, 3), torch.zeros(2, 1), None)
    Linear(in_features=1, out_features=2, bias=False)

    Parameters
    ----------
    module : a convolution or linear layer
    weight : laid out as the module's
    bias : (channels out,) or None
    groups : of a convolution
    """
    made = copy.deepcopy(module)
    old = module.weight
    made.weight = nn.Parameter(weight.detach().to(old).clone(), requires_grad=old.requires_grad)
    like = old if module.bias is None else module.bias
    made.bias = None
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().to(old).clone(), requires_grad=like.requires_grad)
    if isinstance(made, nn.Linear):
        made.out_features, made.in_features = weight.shape
    else:
        first, second = (1, 0) if _transposed(module) else (0, 1)
        made.groups = groups
        made.out_channels, made.in_channels = weight.shape[first], weight.shape[second] * groups
    return made


@dataclass(frozen=True)
class Dense(Rule):
    """A convolution or linear layer in which every output channel reads every input channel."""

    data: fx.Node
    module: Weighted
    axis: int
    writable = True

    @property
    def channels(self) -> int:
        """Channels of the output."""
        one = self.module.weight.shape
        return one[1] if _transposed(self.module) else one[0]

    def _known(self, flow: Flow) -> tuple[Tensor, Tensor]:
        values = flow.values(self.data, self.axis)
        return values, ~values.isnan() if folds(self.module) else values == 0

    def _bias(self, values: Tensor, known: Tensor, rows: Tensor) -> Tensor | None:
        bias = self.module.bias
        plain = None if bias is None else bias.detach().double().cpu()[rows]
        constant = known & (values != 0)
        if not bool(constant.any()):
            return plain
        added = _shift(self.module, rows, constant.nonzero().flatten(), values[constant])
        return added if plain is None else plain + added

    def state(self, flow: Flow) -> State:
        """Return what is known of the output."""
        values, known = self._known(flow)
        rows = torch.arange(self.channels)
        if not bool(known.all()):
            return State(self.axis, torch.full((self.channels,), torch.nan, dtype=torch.float64))
        out = self._bias(values, known, rows)
        out = torch.zeros(self.channels, dtype=torch.float64) if out is None else out
        return State(self.axis, torch.where(out.isfinite(), out, torch.nan))

    def sources(self, flow: Flow, mask: Tensor | None) -> list[Source]:
        """Return what is read to compute the channels of a mask."""
        return (
            []
            if mask is not None and not bool(mask.any())
            else [(self.data, self.axis, ~self._known(flow)[1])]
        )

    def _columns(self, build: Builder, read: Tensor) -> Tensor:
        same = build.flow.states[self.data].axis == self.axis
        return build.order(self.data, read) if same else read.nonzero().flatten()

    def build(self, build: Builder, mask: Tensor | None) -> Any:
        """Return the new node."""
        assert mask is not None  # as `state` gives an axis
        values, known = self._known(build.flow)
        rows, columns = build.order(self.node, mask), self._columns(build, ~known)
        weight = self.module.weight.detach()
        order = (columns, rows) if _transposed(self.module) else (rows, columns)
        weight = weight.index_select(0, order[0].to(weight.device)).index_select(
            1, order[1].to(weight.device)
        )
        made = sliced(self.module, weight, self._bias(values, known, rows))
        new = build.take(self.data, self.axis, columns)
        # A module that runs twice may read other constants, and then has another bias.
        folded = (known & (values != 0)).nonzero().flatten()
        path = build.place(self.node, made, rows, columns, folded, values[folded])
        return build.graph.call_module(path, (new,))


@dataclass(frozen=True)
class Grouped(Rule):
    """A convolution in groups (depthwise: one input channel each); whole groups are cut, and evenly the rest.

    A group that reads or gives fewer channels than another is filled up, as groups must be of one size.
    """

    data: fx.Node
    module: nn.modules.conv._ConvNd

    writable = True

    def _fold(self, flow: Flow) -> tuple[Tensor, Tensor]:
        """Return constants and those that need not be read, (groups, channels in each)."""
        values = flow.values(self.data, 1)
        known = ~values.isnan() if folds(self.module) else values == 0
        return values.reshape(self.module.groups, -1), known.reshape(self.module.groups, -1)

    def state(self, flow: Flow) -> State:
        """Return what is known of the output."""
        values, known = self._fold(flow)
        each = self.module.out_channels // self.module.groups
        out = torch.full((self.module.groups, each), torch.nan, dtype=torch.float64)
        for group in known.all(1).nonzero().flatten().tolist():
            rows = torch.arange(group * each, (group + 1) * each)
            out[group] = _shift(self.module, rows, torch.arange(known.shape[1]), values[group])
            if self.module.bias is not None:
                out[group] += self.module.bias.detach().double().cpu()[rows]
        out = out.flatten()
        return State(1, torch.where(out.isfinite(), out, torch.nan))

    def present(self, flow: Flow, needed: Tensor) -> Tensor:
        """Return the channels that are computed when some are needed."""
        values = flow.states[self.node].values
        assert values is not None  # as `state` gives an axis
        rows = needed.reshape(self.module.groups, -1)
        return _even(rows, rows.any(1)).flatten() & values.isnan()

    def sources(self, flow: Flow, mask: Tensor | None) -> list[Source]:
        """Return what is read to compute the channels of a mask."""
        _, known = self._fold(flow)
        groups = torch.ones(len(known), dtype=torch.bool)
        if mask is not None:
            groups = mask.reshape(self.module.groups, -1).any(1)
        return [(self.data, 1, _even(~known & groups[:, None], groups).flatten())]

    def build(self, build: Builder, mask: Tensor | None) -> Any:
        """Return the new node."""
        assert mask is not None  # as `state` gives an axis
        flow = build.flow
        ((_, _, read),) = self.sources(flow, mask)
        assert read is not None  # as `sources` says
        values, known = self._fold(flow)
        columns = read.reshape(self.module.groups, -1)
        rows = mask.reshape(self.module.groups, -1)
        weight = self.module.weight.detach().cpu()
        bias = None if self.module.bias is None else self.module.bias.detach().double().cpu()
        each = rows.shape[1]
        weights, shifts, want, have = [], [], [], []
        # Depthwise, a group is a channel, and may lie anywhere.
        groups = rows.any(1).nonzero().flatten()
        for group in (build.order(self.node, mask) if each == columns.shape[1] == 1 else groups).tolist():
            index = group * each + rows[group].nonzero().flatten()
            weights.append(weight[index][:, columns[group]])
            shift = torch.zeros(len(index), dtype=torch.float64) if bias is None else bias[index]
            folded = known[group] & ~columns[group] & (values[group] != 0)
            if bool(folded.any()):
                shift = shift + _shift(self.module, index, folded.nonzero().flatten(), values[group][folded])
            shifts.append(shift)
            want.append(group * columns.shape[1] + columns[group].nonzero().flatten())
            have.append(index)
        total, inputs, outputs = torch.cat(shifts), torch.cat(want), torch.cat(have)
        biased = total if bias is not None or bool(total.any()) else None
        made = sliced(self.module, torch.cat(weights), biased, len(weights))
        path = build.place(self.node, made, outputs, inputs, total)
        return build.graph.call_module(path, (build.take(self.data, 1, inputs),))


def _even(chosen: Tensor, groups: Tensor) -> Tensor:
    """Fill every group that is used up to the size of the largest, (groups, channels)."""
    most = int(chosen.sum(1).max()) if len(chosen) else 0
    out = chosen.clone()
    for group in groups.nonzero().flatten().tolist():
        spare = (~chosen[group]).nonzero().flatten()
        out[group, spare[: most - int(chosen[group].sum())]] = True
    return out


def normalise(module: nn.modules.batchnorm._BatchNorm, values: Tensor) -> Tensor:
    """Return what batch normalisation in evaluation mode makes of constants (channels,), float64.

    Examples
    --------
    >>> normalise(nn.BatchNorm2d(1, eps=0.0).eval(), torch.tensor([3.0]).double())
    tensor([3.], dtype=torch.float64)
    """
    mean, var = (cast("Tensor", b).detach().double().cpu() for b in (module.running_mean, module.running_var))
    out = (values - mean) / (var + module.eps).sqrt()
    if module.affine:
        out = out * module.weight.detach().double().cpu() + module.bias.detach().double().cpu()
    return out


def sliced_norm(module: nn.Module, index: Tensor) -> nn.Module:
    """Return a copy of a normalisation, or another module with one weight a channel, for some channels.

    Examples
    --------
    >>> sliced_norm(nn.BatchNorm2d(3), torch.tensor([0, 2]))
    BatchNorm2d(2, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    """
    made = copy.deepcopy(module)
    for store in (made._parameters, made._buffers):
        for name, value in store.items():
            if value is not None and value.ndim == 1:
                cut = value.detach().index_select(0, index.to(value.device))
                keep = isinstance(value, nn.Parameter)
                store[name] = nn.Parameter(cut, requires_grad=value.requires_grad) if keep else cut  # type: ignore[assignment]
    for count in ("num_features", "num_parameters"):
        if hasattr(made, count):
            setattr(made, count, len(index))
    return made
