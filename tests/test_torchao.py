"""Blocks against torchao's MX and NVFP4, where it is installed; each difference has a test of its own."""

import pytest
import torch

from peppp.lowprec.rounding.quantize import quantize

pytest.importorskip("torchao", reason="torchao is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

ELEMENTS = {
    "1-5-2": torch.float8_e5m2,
    "1-4-3": torch.float8_e4m3fn,
    "1-3-2": "fp6_e3m2",
    "1-2-3": "fp6_e2m3",
    "1-2-1": torch.float4_e2m1fn_x2,
}
MODES = {"floor": "FLOOR", "even": "EVEN", "ceil": "CEIL", "round-up": "RCEIL"}
SIGNIFICANDS = [1, 1.25, 1.5, 1.75, 1.875, 1.9375, 1.96875, 2 - 2**-23, 1.75 - 2**-23, 1.25 + 2**-23]


def numbers():
    """Random numbers of many binades, and blocks whose largest number is where the modes part."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4096, 64, generator=draw) * torch.randn(4096, 64, generator=draw).exp()
    x = x * 2.0 ** torch.randint(-60, 60, (4096, 1), generator=draw)
    edges = torch.rand(len(SIGNIFICANDS), 64, generator=draw) * 2 - 1
    edges[:, ::32] = 1
    edges = edges * torch.tensor(SIGNIFICANDS)[:, None]
    return torch.cat([x, edges * 2.0**-40, edges, edges * 2.0**40, torch.zeros(2, 64)])


def by_torchao(x, element, mode):
    """``x`` [n, 32 k] in torchao's MX, decoded here from its codes and scales."""
    from torchao.prototype.mx_formats import kernels
    from torchao.prototype.mx_formats.config import ScaleCalculationMode
    from torchao.prototype.mx_formats.mx_tensor import to_mx

    scale, codes = to_mx(x, ELEMENTS[element], 32, ScaleCalculationMode[MODES[mode]])
    if element == "1-3-2":
        numbers = kernels.f6_e3m2_unpacked_to_f32(codes)
    elif element == "1-2-3":
        numbers = kernels.f6_e2m3_unpacked_to_f32(codes)
    elif element == "1-2-1":
        numbers = kernels.f4_unpacked_to_f32(kernels.unpack_uint4(codes))
    else:
        numbers = codes.float()
    exponents = scale.view(torch.uint8).int() - 127
    wide = torch.ldexp(torch.ones(()), exponents).repeat_interleave(32, -1)
    return numbers.view(x.shape) * wide


def same(found, expected):
    """Whether all bits are the same, signs of zeros among them."""
    return torch.equal(found.view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("mode", MODES)
def test_mx_bit_for_bit(element, mode):
    x = numbers()
    assert same(quantize(x, f"mx-{element}/32@{mode}"), by_torchao(x, element, mode))


def test_difference_of_round_up_just_above_a_power_of_two():
    """torchao takes ceil(log2(quotient)) in float32, which can lose the last bit: then numbers saturate."""
    x = torch.zeros(1, 32)
    x[0, :2] = torch.tensor([6 * 2.0**30 * (1 + 2.0**-22), 2.0**29])
    assert by_torchao(x, "1-2-1", "round-up")[0, :2].tolist() == [6 * 2.0**30, 2.0**29]
    assert quantize(x, "mx-1-2-1/32@round-up")[0, :2].tolist() == [6 * 2.0**30, 0.0]  # of the scale 2^31


@pytest.mark.parametrize("mode", MODES)
def test_difference_of_the_least_scale(mode):
    """Here it is 2^-126. torchao rounds with that, too, or with 1, and writes 2^-127 down."""
    x = torch.full((1, 32), 2.0**-126)
    assert (quantize(x, f"mx-1-2-1/32@{mode}") == x).all()
    assert (by_torchao(x, "1-2-1", mode) == (0 if mode == "round-up" else 2.0**-127)).all()


@pytest.mark.parametrize("mode", MODES)
def test_difference_of_infinity_and_nan(mode):
    """Here both stay and their neighbours are rounded without them; torchao's blocks are lost with them."""
    x = torch.full((1, 32), 3.0)
    for special in (torch.inf, torch.nan):
        x[0, 0] = special
        assert (quantize(x, f"mx-1-4-3/32@{mode}")[0, 1:] == 3).all()
        assert not (by_torchao(x, "1-4-3", mode)[0, 1:] == 3).any()


def by_torchao_nvfp4(x):
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale

    scale = per_tensor_amax_to_scale(x.abs().max())
    made = NVFP4Tensor.to_nvfp4(x, per_tensor_scale=scale)
    return made.dequantize(torch.float32), made.scale.float().repeat_interleave(16, -1) * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nvfp4_bit_for_bit_but_for_ties(dtype):
    """torchao multiplies by a reciprocal rounded twice; here is one division. They part beside ties alone."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(2048, 256, generator=draw) * torch.randn(2048, 256, generator=draw).exp()
    x = x.to(dtype).float()
    found, (expected, scale) = quantize(x, "nvfp4"), by_torchao_nvfp4(x)
    part = found.view(torch.int32) != expected.view(torch.int32)
    quotients = (x[part].double() / scale[part].double()).abs()
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    assert ((quotients[:, None] / ties - 1).abs().min(1).values < 2.0**-22).all()
    assert part.double().mean() < 1e-3


def test_difference_of_nvfp4_in_the_least_scale():
    """torchao's least scale of a block is 2^-6, E4M3's least normal number; here it is 2^-9, the least."""
    x = torch.zeros(2, 16)
    x[0, 0], x[1, 0] = 2688.0, 6 * 2.0**-9
    assert quantize(x, "nvfp4")[1, 0] == 6 * 2.0**-9
    assert by_torchao_nvfp4(x)[0][1, 0] == 2.0**-6


@pytest.mark.parametrize("number", [0.0, torch.inf, torch.nan])
def test_difference_of_nvfp4_in_zeros_infinity_and_nan(number):
    """Here zeros, infinity and NaN stay, and what is beside them is rounded; torchao's tensor becomes NaN."""
    x = torch.zeros(2, 16)
    x[0, 0], x[1, 0] = number, 3.0 if number else 0.0
    assert quantize(x, "nvfp4")[1, 0] == x[1, 0]
    assert by_torchao_nvfp4(x)[0].isnan().any()


@pytest.mark.parametrize("mode", ["floor", "round-up"])
@pytest.mark.parametrize("shape", [(32, 64, 96), (96, 32, 32), (2, 32, 128, 64)])
def test_three_products_of_a_linear_layer_bit_for_bit(mode, shape):
    from torchao.prototype.moe_training.mxfp8_linear import mx_mm
    from torchao.prototype.mx_formats.config import (
        MXFP8Dim0CastKernelChoice,
        MXFP8Dim1CastKernelChoice,
        ScaleCalculationMode,
    )
    from torchao.quantization.quantize_.common.kernel_preference import KernelPreference

    from peppp.lowprec.network.scaled_products import linear
    from peppp.precisions.named import Products

    *leading, size, results = shape
    draw = torch.Generator().manual_seed(sum(shape))
    x, w = torch.randn(*leading, size, generator=draw), torch.randn(results, size, generator=draw)
    error = torch.randn(*leading, results, generator=draw) * 1e-3
    mine, theirs = ((x.clone().requires_grad_(), w.clone().requires_grad_()) for _ in range(2))
    text = "mx-1-4-3/32" + ("" if mode == "floor" else f"@{mode}")
    y = linear(*mine, products=Products.of(text, text), key=0)
    y.backward(error)
    e4m3 = torch.float8_e4m3fn
    wanted = mx_mm.apply(
        *theirs, e4m3, e4m3, e4m3, 32, KernelPreference.EMULATED, MXFP8Dim0CastKernelChoice.TORCH,
        MXFP8Dim1CastKernelChoice.TORCH, ScaleCalculationMode[MODES[mode]], False,
    )  # fmt: skip
    wanted.backward(error)
    assert same(y.detach(), wanted.detach())
    assert same(mine[0].grad, theirs[0].grad)
    assert same(mine[1].grad, theirs[1].grad)
