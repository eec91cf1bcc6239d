"""Which tensors of a forward pass a normalisation reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from torch import Tensor, nn

from nadkit.networks.axes import plain_name
from nadkit.networks.identities import Identities
from nadkit.networks.layouts import tensors

NORMS = (
    nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm,
    nn.LocalResponseNorm, nn.RMSNorm,
)  # fmt: skip
LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
"""Modules that mix units by weights."""
# Normalisations of other libraries, such as `FrozenBatchNorm2d`; not `ConvNormAct`, which ends otherwise, and
# not a `ConvBatchNorm`, whose convolution reads what it takes.
_NORM_NAMES = re.compile(r"(batch|layer|group|instance|rms|response)_?norm(\d?d)?$", re.IGNORECASE)
NORM_FUNCTIONS = {
    "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm", "normalize",
}  # fmt: skip
# These mix units by weights: what they give is another layer's.
WEIGHTED = {
    "linear", "bilinear", "embedding", "embedding_bag", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
    "conv_transpose2d", "conv_transpose3d", "multi_head_attention_forward", "scaled_dot_product_attention",
    "lstm", "gru", "rnn_tanh", "rnn_relu", "conv_tbc",
}  # fmt: skip
# These do where they take a second tensor, be it weights or not.
PRODUCTS = {"matmul", "mm", "bmm", "mv", "addmm", "baddbmm", "einsum", "tensordot"}
# A unit that is 0 is anything but 0 after these: they make shares, scales and scores.
_ELSEWHERE = {
    "sigmoid", "hardsigmoid", "logsigmoid", "softmax", "log_softmax", "softmin", "gumbel_softmax", "exp",
    "cos", "softplus", "erfc", "std", "var", "norm",
}  # fmt: skip
# Joined by these, a unit that is 0 stays so, whatever the others are; some read no more than another's shape.
_JOINS = {
    "cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "mul", "where", "masked_fill",
    "type_as", "expand_as", "view_as", "reshape_as", "to",
}  # fmt: skip


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a normalisation, torch's own or by its name.

    Examples
    --------
    >>> is_norm(nn.BatchNorm2d(3)), is_norm(nn.Conv2d(3, 3, 1))
    (True, False)
    """
    if isinstance(module, NORMS):
        return True
    named = _NORM_NAMES.search(type(module).__name__) is not None
    return named and not any(isinstance(part, LAYERS) for part in module.modules())


class NormReaders:
    """Which tensors a normalisation reads, as they are or joined, moved, pooled, scaled or activated first.

    Carried is what any function makes of one activation, also with weights beside it, as of a scale or a
    position; but for layers, which mix units, and sums of two activations, where nothing of 0 is left.

    Parameters
    ----------
    knows : says of a tensor whether it is an activation, made from the pictures
    names : those of the tensors, which follow every function first
    """

    def __init__(self, knows: Callable[[Tensor], bool], names: Identities) -> None:
        self.read: set[int] = set()
        self._knows, self._names = knows, names
        self._made_from: dict[int, list[int]] = {}

    def follow(self, name: str, values: Iterable[object], out: object) -> None:
        """Note what a function read and gave, before what it gave is an activation."""
        values, plain = list(values), plain_name(name)
        if plain in NORM_FUNCTIONS:
            self.reads(values[:1])
            return
        read = list(tensors(values))
        sources = [tensor for tensor in read if self._knows(tensor)]
        if not sources or plain in WEIGHTED | _ELSEWHERE or (plain in PRODUCTS and len(read) > 1):
            return
        if len({id(source) for source in sources}) > 1 and plain not in _JOINS:
            return
        for made in tensors([out]):
            before = map(self._names.was, sources)
            self._made_from.setdefault(self._names.of(made), []).extend(before)

    def reads(self, values: Iterable[object]) -> None:
        """Note that a normalisation takes these."""
        for tensor in tensors(values):
            self.read.add(self._names.of(tensor))

    def close(self) -> None:
        """Go back from what was read to all that it was made from."""
        ahead = list(self.read)
        while ahead:
            for source in self._made_from.get(ahead.pop(), ()):
                if source not in self.read:
                    self.read.add(source)
                    ahead.append(source)
