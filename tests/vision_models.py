"""The networks of others that nadkit is held to, with random weights and small inputs.

`torchvision` built for another torch lacks two of its C++ operators; `vision` stands in for them, so that all
the rest of it can be tested.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from nadkit.errors import OptionalDependencyError, optional_import

CLASSES = ["ant", "bee", "cow", "dog", "elk"]
_kept: list[Any] = []  # a torch library ends with its last reference


def vision(name: str) -> ModuleType:
    """Return torchvision or timm; where torchvision lacks its operators, with stand-ins for their names."""
    try:
        return optional_import(name, "vision")
    except OptionalDependencyError as error:
        if "torchvision::nms" not in str(error) or _kept:
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        _kept.append(library)
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return optional_import(name, "vision")


TORCHVISION: dict[str, tuple[int, dict[str, Any]]] = {
    "vgg16": (32, {}),
    "vgg16_bn": (32, {}),
    "resnet18": (32, {}),
    "resnet50": (32, {}),
    "densenet121": (32, {}),
    "googlenet": (32, {"init_weights": False}),
    "inception_v3": (96, {"init_weights": False}),
    "mobilenet_v3_small": (32, {}),
    "efficientnet_b0": (32, {}),
    "regnet_y_400mf": (32, {}),
    "convnext_tiny": (32, {}),
    "shufflenet_v2_x1_0": (32, {}),
    "squeezenet1_1": (32, {}),
    "swin_t": (64, {}),
    "vit_b_16": (32, {"image_size": 32}),
    "maxvit_t": (64, {}),
}
TIMM: dict[str, tuple[int, dict[str, Any]]] = {
    "resnet10t": (32, {}),
    "vit_tiny_patch16_224": (32, {"img_size": 32}),
    "deit_tiny_patch16_224": (32, {"img_size": 32}),
    "convnext_atto": (32, {}),
    "mixer_s32_224": (64, {"img_size": 64}),
    "mobilevitv2_050": (64, {}),
    "efficientformer_l1": (224, {}),
    "levit_128s": (224, {}),
    "poolformer_s12": (64, {}),
}
MODELS = [f"torchvision:{name}" for name in TORCHVISION] + [f"timm:{name}" for name in TIMM]


def build(name: str) -> tuple[nn.Module, Tensor]:
    """Return a model in evaluation mode and three pictures for it."""
    library, _, name = name.partition(":")
    torch.manual_seed(0)
    if library == "timm":
        vision("torchvision")
        size, settings = TIMM[name]
        model = vision("timm").create_model(name, num_classes=len(CLASSES), **settings)
    else:
        size, settings = TORCHVISION[name]
        models = vision("torchvision").models
        if name == "maxvit_t":  # the same blocks; at the published size a forward takes seconds
            make: Callable[..., nn.Module] = models.maxvit.MaxVit
            model = make(
                input_size=(64, 64), stem_channels=16, partition_size=2, block_channels=[16, 32],
                block_layers=[1, 1], head_dim=8, stochastic_depth_prob=0.1, num_classes=len(CLASSES),
            )  # fmt: skip
        else:
            model = models.get_model(name, weights=None, num_classes=len(CLASSES), **settings)
    with torch.no_grad():
        for weight in model.parameters():  # heads and scales that start at zero would hide all before them
            if not weight.abs().max() > 1e-4:
                weight.normal_(std=0.1)
    return model.eval(), torch.randn(3, 3, size, size)
