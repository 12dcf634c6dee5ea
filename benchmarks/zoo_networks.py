"""Networks of other packages, small and with random weights, for benchmarks/zoo.py.

Nothing is downloaded: where a package has no small network by name, a configuration of few layers makes one.
"""

from zoo_case import Case
from zoo_diffusers import diffusers_cases
from zoo_geometric import geometric_cases
from zoo_pytorchcv import pytorchcv_cases, vit_pytorch_cases
from zoo_timm import timm_cases
from zoo_torchvision import torchvision_cases
from zoo_transformers import transformers_cases, x_transformers_cases


def cases() -> dict[str, Case]:
    """All networks, by package and name; none is built and nothing is imported."""
    groups = {
        "torchvision": torchvision_cases(),
        "timm": timm_cases(),
        "transformers": transformers_cases(),
        "diffusers": diffusers_cases(),
        "torch-geometric": geometric_cases(),
        "pytorchcv": pytorchcv_cases(),
        "vit-pytorch": vit_pytorch_cases(),
        "x-transformers": x_transformers_cases(),
    }
    return {f"{package}/{name}": case for package, found in groups.items() for name, case in found.items()}
