"""Networks of pytorchcv and vit-pytorch."""

import importlib
from functools import partial
from typing import Any

from torch import nn
from zoo_case import Case, images, load

_CV = {
    "resnet10": 224,
    "preresnet10": 224,
    "seresnet10": 224,
    "sepreresnet10": 224,
    "mobilenet_wd4": 224,
    "fdmobilenet_wd4": 224,
    "mobilenetv2_wd4": 224,
    "mobilenetv3_small_w7d20": 224,
    "shufflenet_g1_wd4": 224,
    "shufflenetv2_wd2": 224,
    "squeezenet_v1_1": 224,
    "squeezeresnet_v1_1": 224,
    "menet108_8x1_g3": 224,
    "igcv3_wd4": 224,
    "peleenet": 224,
    "resnet20_cifar10": 32,
    "preresnet20_cifar10": 32,
    "seresnet20_cifar10": 32,
    "rir_cifar10": 32,
    "shakeshakeresnet20_2x16d_cifar10": 32,
    "ror3_56_cifar10": 32,
}


def _pytorchcv(name: str) -> nn.Module:
    load("pytorchcv")
    library: Any = importlib.import_module("pytorchcv.model_provider")
    return library.get_model(name, pretrained=False)


def pytorchcv_cases() -> dict[str, Case]:
    return {
        name: Case("pytorchcv", partial(_pytorchcv, name), partial(images, side))
        for name, side in _CV.items()
    }


_PATCHES = {
    "image_size": 32,
    "patch_size": 8,
    "num_classes": 10,
    "dim": 32,
    "depth": 2,
    "heads": 2,
    "mlp_dim": 64,
}
_VIT_PYTORCH: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit.ViT", _PATCHES | {"dropout": 0.1}),
    "simple-vit": ("simple_vit.SimpleViT", _PATCHES),
    "deepvit": ("deepvit.DeepViT", _PATCHES),
    "cait": ("cait.CaiT", _PATCHES | {"cls_depth": 1}),
    "parallel-vit": ("parallel_vit.ViT", _PATCHES),
    "vit-for-small-dataset": ("vit_for_small_dataset.ViT", _PATCHES),
    "vit-with-patch-merger": ("vit_with_patch_merger.ViT", _PATCHES | {"patch_merge_layer": 1}),
}


def _vit_pytorch(name: str, **arguments: Any) -> nn.Module:
    load("vit-pytorch")
    module, kind = name.split(".")
    return getattr(importlib.import_module(f"vit_pytorch.{module}"), kind)(**arguments)


def vit_pytorch_cases() -> dict[str, Case]:
    return {
        name: Case("vit-pytorch", partial(_vit_pytorch, kind, **more), partial(images, 32))
        for name, (kind, more) in _VIT_PYTORCH.items()
    }
