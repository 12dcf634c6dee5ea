"""Eight bits and fewer: products of linear layers in formats with shared scales, the rest as ``amp-bf16``.

No current recipe computes convolutions this way: torchao and Transformer Engine convert linear layers. Names
that end in ``-all`` show what would happen if they did. Memory is as with ``amp-bf16``: these recipes gain
speed, and save the inputs of layers in sixteen bits.
"""

from dataclasses import replace

from peppp.precisions.named import NamedPrecision, Products
from peppp.precisions.sixteen import AMP_BF16


def _precision(name: str, about: str, needs: str, products: Products) -> NamedPrecision:
    return replace(
        AMP_BF16,
        name=name,
        about=f"linear layers in {about}; the rest as amp-bf16",
        needs=needs,
        products=products,
    )


LINEAR = (
    _precision(
        "fp8",
        "E4M3, errors in E5M2, one scale a tensor from its current maximum",
        "a GPU with FP8 (Ada, Hopper and later)",
        Products.of("scaled-1-4-3", "scaled-1-5-2"),
    ),
    _precision(
        "mxfp8",
        "E4M3, one power-of-two scale for each 32",
        "a GPU with MX formats (Blackwell, CDNA 4)",
        Products.of("mx-1-4-3/32@round-up", "mx-1-4-3/32@round-up"),
    ),
    _precision(
        "mxfp6",
        "E2M3, errors in E3M2, one power-of-two scale for each 32",
        "a GPU with MX formats (Blackwell, CDNA 4)",
        Products.of("mx-1-2-3/32@round-up", "mx-1-3-2/32@round-up"),
    ),
    _precision(
        "mxfp4",
        "E2M1, one power-of-two scale for each 32, errors as mxfp8",
        "a GPU with MX formats (Blackwell, CDNA 4)",
        Products.of("mx-1-2-1/32@round-up", "mx-1-4-3/32@round-up"),
    ),
    _precision(
        "nvfp4",
        "E2M1, an E4M3 scale for each 16 and one a tensor, errors rounded stochastically",
        "a GPU with NVFP4 (Blackwell)",
        Products.of("nvfp4", "nvfp4", "stochastic"),
    ),
    _precision(
        "int8",
        "8-bit integers, one scale for each row",
        "a GPU with INT8 products (torchao)",
        Products.of("int8", "int8"),
    ),
)


def _with_convolutions(precision: NamedPrecision) -> NamedPrecision:
    assert precision.products is not None
    return replace(
        precision,
        name=f"{precision.name}-all",
        about=precision.about.replace("linear layers", "linear layers and convolutions"),
        needs="nothing that exists: a what-if",
        products=replace(precision.products, convolutions=True),
    )


FAMILY = (*LINEAR, *(_with_convolutions(precision) for precision in LINEAR))
