"""Networks of torchvision, small."""

import importlib
from functools import partial
from typing import Any

import torch
from torch import nn
from zoo_case import Case, images, load

_TV = "torchvision"
# name in torchvision.models: (side, arguments)
_TV_NAMES: dict[str, tuple[int, dict[str, Any]]] = {
    "resnet18": (32, {}),
    "wide_resnet50_2": (32, {}),
    "mobilenet_v2": (32, {"width_mult": 0.35}),
    "mobilenet_v3_small": (32, {}),
    "shufflenet_v2_x0_5": (32, {}),
    "squeezenet1_1": (64, {}),
    "mnasnet0_5": (32, {}),
    "efficientnet_b0": (32, {}),
    "regnet_y_400mf": (32, {}),
    "regnet_x_400mf": (32, {}),
    "googlenet": (64, {"aux_logits": False, "init_weights": False}),
    "alexnet": (64, {}),
}
_TV_CLASSES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "vision_transformer": (
        "VisionTransformer",
        32,
        {
            "image_size": 32,
            "patch_size": 8,
            "num_layers": 2,
            "num_heads": 2,
            "hidden_dim": 32,
            "mlp_dim": 64,
            "dropout": 0.1,
        },
    ),
    "swin": (
        "SwinTransformer",
        32,
        {"patch_size": [4, 4], "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": [4, 4]},
    ),
    "maxvit": (
        "MaxVit",
        64,
        {
            "input_size": (64, 64),
            "stem_channels": 16,
            "partition_size": 4,
            "block_channels": [16, 32],
            "block_layers": [1, 1],
            "head_dim": 8,
            "stochastic_depth_prob": 0.1,
        },
    ),
}


def _torchvision(name: str, **arguments: Any) -> nn.Module:
    load(_TV)
    models: Any = importlib.import_module("torchvision.models")
    for part in name.split("."):
        models = getattr(models, part)
    return models(**arguments)


def torchvision_cases() -> dict[str, Case]:
    cases = {
        name: Case(_TV, partial(_torchvision, name, num_classes=10, **more), partial(images, side))
        for name, (side, more) in _TV_NAMES.items()
    }
    cases |= {
        name: Case(_TV, partial(_torchvision, kind, num_classes=10, **more), partial(images, side))
        for name, (kind, side, more) in _TV_CLASSES.items()
    }
    dense = partial(
        _torchvision, "DenseNet", growth_rate=8, block_config=(2, 3), num_init_features=16, num_classes=10
    )
    cases["densenet"] = Case(
        _TV, dense, partial(images, 32), recomputing=partial(dense, memory_efficient=True)
    )
    cases["lraspp_mobilenet_v3_large"] = Case(
        _TV,
        partial(
            _torchvision,
            "segmentation.lraspp_mobilenet_v3_large",
            weights=None,
            weights_backbone=None,
            num_classes=4,
        ),
        partial(images, 64),
    )
    cases["r3d"] = Case(
        _TV,
        partial(_torchvision, "video.mc3_18", num_classes=4),
        lambda: [torch.randn(2, 3, 4, 16, 16)],
    )
    return cases
