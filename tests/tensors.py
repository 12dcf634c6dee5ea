"""What several test files share: tensors and formats that are difficult, and comparisons bit by bit."""

import numpy as np
import torch

from peppp.formats import PAPER_FORMATS_A, PAPER_FORMATS_B, Configuration, FloatFormat
from peppp.lowprec.rounding.quantize import quantize

CONFIGURATION = Configuration.parse("1-4-2/1-6-7")


A, B = CONFIGURATION.format_a, CONFIGURATION.format_b


class Rounded(torch.autograd.Function):
    """Nearest to ``a`` forward and to ``e`` backward: what one rounding point does, said plainly."""

    @staticmethod
    def forward(ctx, x, a, e):
        ctx.e = e
        return quantize(x, a)

    @staticmethod
    def backward(ctx, error):
        return quantize(error, ctx.e), None, None


def rounded(x, e=A):
    return Rounded.apply(x, A, e)


def equal(these, those):
    return all(torch.equal(a, b) for a, b in zip(these, those, strict=True))


def representable(x, fmt):
    return torch.equal(quantize(x, fmt), x)


OCP = [(5, 2), (4, 3), (3, 2), (2, 3), (2, 1)]


FORMATS = [
    *PAPER_FORMATS_A,
    *PAPER_FORMATS_B,
    *(FloatFormat(e, m, flavour) for flavour in ("qpytorch", "qpytorch-0.2", "ieee")
      for e, m in [(2, 0), (3, 1), (4, 3), (5, 10), (6, 22), (8, 0), (8, 7), (8, 22)]),
    *(FloatFormat(e, m, flavour) for flavour in ("ocp", "ocp-sat") for e, m in OCP),
]  # fmt: skip


def same_bits(a, b):
    return torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


def float32(array):
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def difficult(fmt):
    """Where rounding goes wrong first: values, ties, their neighbours, subnormals, limits, any bits."""
    random = np.random.default_rng(7)
    exponents = random.uniform(fmt.min_exponent - fmt.mantissa_bits - 2, fmt.max_exponent + 2, 2000)
    exact = [0.0, fmt.max, fmt.min_normal, fmt.min_subnormal, fmt.min_subnormal / 2, fmt.min_normal / 2]
    x = [np.exp2(np.clip(exponents, -149, 127)), np.array(exact), random.normal(size=500)]
    if fmt.bits <= 12:
        values = fmt.values()
        x += [values, (values[1:] + values[:-1]) / 2]
    with np.errstate(over="ignore"):
        x = np.concatenate(x).astype(np.float32)
    infinity = np.float32(np.inf)
    x = np.concatenate([x, np.nextafter(x, infinity), np.nextafter(x, -infinity), [infinity]])
    bits = random.integers(0, 2**32, 3000, dtype=np.uint32).view(np.float32)
    x = np.concatenate([x, -x, bits]).astype(np.float32)
    return x[~np.isnan(x)]


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 3).contiguous().transpose(0, 3),
    "sliced": lambda x: torch.stack([x, x], dim=-1)[..., 0],
    "offset": lambda x: torch.cat([torch.zeros(1), x.flatten()])[1:].view(x.shape),
    "expanded": lambda x: x[:1].expand(x.shape),
}
