"""`export`: a network with its removed units cut out, as an ordinary module."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from nadkit.errors import ImageError, LayerError, NadkitError, closest
from nadkit.images import Images
from nadkit.masks import MaskSet
from nadkit.measures import platt
from nadkit.networks import Network, Standardise, log_odds
from nadkit.networks.outputs import at_once
from nadkit.slicing.build import Builder, is_channels_last
from nadkit.slicing.flow import Flow, Rule
from nadkit.slicing.known import gates_alone, rule_of
from nadkit.slicing.orders import ranks
from nadkit.slicing.reporting import layer_rows
from nadkit.slicing.tracing import Trace, trace
from nadkit.taps import Taps, frozen

HEADS = ("full", "binary")


def export(
    network: Network,
    masks: MaskSet,
    tasks: str | Sequence[str],
    *,
    images: Images | None = None,
    head: str = "full",
    threshold: float = 0.5,
) -> nn.Module:
    """Return a smaller module that answers as the network gated to some tasks, without its removed units.

    Removed units are cut out of the weights, not set to 0, with everything that only they are made of or
    feed. Nothing of the network changes or is shared. The module takes what `network.model` takes, pictures
    made ready by `network.prepare`, any number of them, of the network's own size, and gives their logits.
    It is made of torch's classes alone, stands in evaluation mode, and can be trained further; whether a
    parameter asks for gradients is as in the network.

    Parameters
    ----------
    network : of the masks; its model is traced by `torch.fx`, in evaluation mode
    masks : which units each task keeps
    tasks : one task, or several: what any of them keeps is kept
    images : training pictures that a binary head is calibrated on, of the task and of others; better ones
        that no mask was learned from
    head : `"full"` gives the logits of all classes, (N, n_classes); `"binary"` makes a detector of one task:
        its log-odds (its logit less the log-sum-exp of the others), calibrated by a class-balanced Platt fit,
        (N,), above 0 where the task is rather there than not
    threshold : in [0, 1]; a unit is kept where its score is above it

    Returns
    -------
    torch.nn.Module
        A `torch.fx.GraphModule`. `nadkit.slicing.report(module)` says layer by layer what was cut out, and
        what stays as a gate and why. `nadkit.cost` measures it.

    Raises
    ------
    LayerError
        A layer of which none of the tasks keeps a unit.
    MaskFileError
        Masks of another network, of layers or units it does not have.
    NadkitError
        Unknown task or head; a forward that cannot be traced; a binary head of several tasks or without
        pictures.
    ImageError
        Pictures that do not fit the network, or none of the task or none of others.

    Warns
    -----
    UserWarning
        The log-odds do not rank the pictures of a detector's task above others, so that it always answers 0.

    Notes
    -----
    Each tensor's channels are followed forward (which are constant once the gates stand) and backward (which
    anybody reads). Channels that are added, joined or multiplied need not be the same on both sides: what is
    0 there is left out of the sum. Behind a normalisation a removed unit is a constant, which moves into the
    next bias, or is put back where zero padding forbids that. An operation that is not known reads and
    gives all its channels; what the report calls gated stands there as 0. At the end both are compared on
    random pictures, and on any difference (above 1e-5 of the logits' scale in float32, 8 roundings in 16-bit
    floats) all units stay gates.

    Torch-Pruning (1.6.1) was judged for this and is not used. Its dependency graph removes coupled channels
    together: three units removed behind `stage1.0` of `resnet-fashion` take the same three from the stem and
    from `stage1.1`, and the logits then differ from the gated network's by half of their scale.

    Examples
    --------
    >>> import nadkit as nk
    >>> network, masks = nk.load_network("vgg-fashion"), nk.load_masks("vgg-fashion")
    >>> small = nk.export(network, masks, "sneaker")
    >>> inputs = network.prepare(nk.load_images("fashion", split="test", per_class=1).pixels)
    >>> with torch.no_grad(), nk.Taps(network, (), gates=masks.gates("sneaker")):
    ...     difference = (small(inputs) - network.logits(inputs)).abs().max()
    >>> bool(difference < 1e-4), sum(p.numel() for p in small.parameters()) < 20_000
    (True, True)
    """
    names = _checked(network, masks, tasks, images, head)
    kept = {a: g.bool() for a, g in masks[names].gates(threshold=threshold).items()}
    union = {address: rows.any(0) for address, rows in kept.items()}
    empty = [address for address, units in union.items() if not bool(units.any())]
    if empty:
        whose = f"task {names[0]!r} keeps" if len(names) == 1 else f"tasks {', '.join(names)} keep"
        raise LayerError(
            f"{whose} no unit of layer {', '.join(map(repr, empty))}, and a sub-architecture is exported "
            "only with units in every layer; lower the threshold, export several tasks together, or learn "
            "masks at a larger kept share"
        )
    small = sliced_module(network, union)
    small.meta["slicing"].update(tasks=names, head=head, threshold=float(threshold), calibration=None)
    if head == "binary":
        _detect(network, small, names[0], cast("Images", images))
    return small


def sliced_module(network: Network, kept: Mapping[str, Tensor]) -> fx.GraphModule:
    """Return the module with only some units of each layer, and in its `meta` a record of how it was made.

    Parameters
    ----------
    network : nothing in it changes
    kept : address → (units,) bool

    Raises
    ------
    NadkitError
        The forward cannot be traced, or what was traced is not what runs.
    """
    gates = {address: units.float() for address, units in kept.items()}
    beside = [] if network.device.type == "cpu" else [network.device]
    # A forward that draws is refused, and what it drew is put back.
    draws = torch.random.fork_rng(beside, device_type=beside[0].type if beside else "cuda")
    with draws, torch.inference_mode(False), torch.no_grad():
        inputs = _random_inputs(network)
        traced = trace(network, gates, inputs)
        with frozen(network.model), Taps(network, (), gates=gates):
            wanted = network.logits(inputs.clone())
        why = ""
        for rules in (rule_of, gates_alone):
            try:
                small, builder = _built(network, traced, rules)
                difference = _difference(small(inputs.clone()), wanted)
            except Exception as error:  # an operation that is not what its rule takes it for
                off = f"fail ({type(error).__name__}: {str(error).strip()[:100]})"
            else:
                if difference <= _tolerance(wanted.dtype):
                    break
                off = f"differ by {difference:.1e} of their scale"
            why = f"cut out, the answers {off}; "
        else:
            raise NadkitError(
                f"{network.name} cannot be exported: its traced operations do not answer as the gated "
                f"network (they {off}), so its forward does something that is not in them, such as a draw, a "
                "hook, or a write into a part of a tensor; use it gated: "
                "with Taps(network, gates=masks.gates(task))"
            )
    small.meta["slicing"] = {
        "network": network.name,
        "weights_id": network.weights_id,
        "class_names": list(network.class_names),
        "input_shape": list(network.input_shape),
        "preprocess": _named(network.preprocess),
        "kept": {address: units.nonzero().flatten().tolist() for address, units in kept.items()},
        "layers": layer_rows(builder, why),
        "layout": builder.layout(),
    }
    return small


def _built(
    network: Network, traced: Trace, rules: Callable[[fx.Node, Flow], Rule]
) -> tuple[fx.GraphModule, Builder]:
    with frozen(network.model):  # operations are asked what they make of constants
        flow = Flow(traced, rules)
    builder = Builder(flow, ranks(flow))
    small = builder.run()
    scale = float(getattr(network, "scale", 1.0))  # that of the untrained control
    if scale != 1.0:
        _append(small, lambda graph, logits: graph.call_function(torch.mul, (logits, scale)))
    if is_channels_last(network.model):
        small.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in torch's types
    return small.eval(), builder


def _checked(network: object, masks: object, tasks: object, images: object, head: object) -> list[str]:
    if not isinstance(network, Network):
        raise NadkitError(
            f"export needs a Network, and got {type(network).__name__}; load_network(name) gives a bundled "
            "one, Network.wrap(model, class_names, example=...) any other"
        )
    if not isinstance(masks, MaskSet):
        raise NadkitError(
            f"export needs a MaskSet, and got {type(masks).__name__}; load_masks(name) gives bundled masks, "
            "MaskSet.from_scores(scores, tasks) makes some of your units"
        )
    masks.check(network)
    names = [tasks] if isinstance(tasks, str) else tasks
    if not isinstance(names, Sequence) or not names:
        raise NadkitError(f"export needs a task's name or a list of names, got {tasks!r}")
    for name in names:
        if name not in masks.tasks:
            raise NadkitError(f"no task {name!r} in these masks; {closest(str(name), masks.tasks)}")
    if head not in HEADS:
        raise NadkitError(f"no head {head!r}; there are: {', '.join(HEADS)}")
    if head == "binary" and len(names) > 1:
        raise NadkitError(
            f"a binary head answers for one task, and got {', '.join(names)}; export them one by one"
        )
    if head == "binary" and not isinstance(images, Images):
        raise NadkitError(
            "a binary head is calibrated on training pictures; give images=load_images(..., split='train'), "
            f"got {type(images).__name__}"
        )
    if head == "full" and images is not None:
        raise NadkitError("images are what a binary head is calibrated on; leave them out, or head='binary'")
    return list(dict.fromkeys(names))


def _random_inputs(network: Network) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    fine = torch.rand(3, *network.input_shape, generator=generator)
    # Of noise a mean is the same everywhere, and units that ask for something light or dark stay silent.
    coarse = torch.rand(3, network.input_shape[0], 2, 2, generator=generator).round()
    pixels = torch.cat([fine, nn.functional.interpolate(coarse, network.input_shape[1:])])
    try:
        return network.prepare(pixels)
    except Exception:  # a preprocess of the user's own, for bytes alone
        return network.prepare((pixels * 255).to(torch.uint8))


def _difference(found: object, wanted: Tensor) -> float:
    if not isinstance(found, Tensor) or found.shape != wanted.shape or not bool(found.isfinite().all()):
        return float("inf")
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))


def _tolerance(dtype: torch.dtype) -> float:
    eps = torch.finfo(dtype).eps
    return 84 * eps if eps < 1e-4 else 8 * eps  # 1e-5 in float32; of 16 bits 84 would be the answer itself


def _named(preprocess: object) -> str:
    """Name a function in words that do not change from run to run."""
    if isinstance(preprocess, Standardise):
        return repr(preprocess)
    return str(getattr(preprocess, "__qualname__", type(preprocess).__name__))


def _append(small: fx.GraphModule, make: Any) -> None:
    """Put operations between the module's answer and its output."""
    (end,) = (node for node in small.graph.nodes if node.op == "output")
    with small.graph.inserting_before(end):
        made = make(small.graph, end.args[0])
    end.args = (made,)
    small.recompile()


def _detect(network: Network, small: fx.GraphModule, task: str, images: Images) -> None:
    """Make the calibrated log-odds of one task the module's answer."""
    unknown = [c for c, n in images.counts().items() if n and c not in network.class_names]
    if unknown:
        raise ImageError(
            f"pictures of {unknown[0]!r}, which {network.name} has no class for; "
            f"{closest(unknown[0], network.class_names)}"
        )
    names = torch.tensor([name == task for name in images.class_names])
    positive = names[images.labels]
    if not bool(positive.any()) or bool(positive.all()):
        raise ImageError(
            f"a detector of {task!r} is calibrated on pictures of it and of others; "
            f"there are {images.counts()}"
        )
    index = network.class_index(task)
    with torch.no_grad():
        batches = images.batches(at_once(network.input_shape, 500))
        odds = [log_odds(small(network.prepare(pixels)))[:, index].cpu() for pixels, _ in batches]
    slope, intercept = (float(value) for value in platt(torch.cat(odds), positive))
    if slope == 0:
        warnings.warn(
            f"the kept units of {task!r} do not rank its pictures above others, so the detector always "
            "answers 0; learn masks at a larger kept share",
            stacklevel=3,
        )
    add_detector(small, index, len(network.class_names), slope, intercept)
    small.meta["slicing"]["calibration"] = {
        "slope": slope, "intercept": intercept, "pictures": len(images), "of_task": int(positive.sum()),
    }  # fmt: skip


def add_detector(small: fx.GraphModule, index: int, classes: int, slope: float, intercept: float) -> None:
    """Let a module answer with the calibrated log-odds of one class, (N,), in place of logits.

    Parameters
    ----------
    small : gives logits (N, classes); it is changed
    index : of the class
    classes : how many there are
    slope, intercept : of the calibration
    """
    name = "detector_others"
    while hasattr(small, name):
        name += "_"
    held = [*small.parameters(), *small.buffers()]  # of a constant answer there are no parameters
    others = torch.tensor([k for k in range(classes) if k != index], device=held[0].device if held else None)
    small.register_buffer(name, others)

    def make(graph: fx.Graph, logits: fx.Node) -> fx.Node:
        rest = graph.call_function(torch.index_select, (logits, 1, graph.get_attr(name)))
        own = graph.call_method("select", (logits, 1, index))
        odds = graph.call_function(torch.sub, (own, graph.call_function(torch.logsumexp, (rest, 1))))
        return graph.call_function(torch.add, (graph.call_function(torch.mul, (odds, slope)), intercept))

    _append(small, make)
