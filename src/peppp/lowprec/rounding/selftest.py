"""A self-test of the arithmetic on this machine: other libraries can change how a processor computes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from peppp.formats import PAPER_FORMATS_A, PAPER_FORMATS_B, FloatFormat
from peppp.lowprec.network import convolutions
from peppp.lowprec.rounding import kernels
from peppp.lowprec.rounding.quantize import quantize, quantize_eagerly, seed_key

_FLAVOURED = ("1-4-3@ocp", "1-5-2@ieee", "1-3-1@qpytorch-0.2", "bf16")
_FORMATS = (*PAPER_FORMATS_A, *PAPER_FORMATS_B, *map(FloatFormat.parse, _FLAVOURED))


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check; ``passed`` is None for information that is neither good nor bad."""

    name: str
    passed: bool | None
    detail: str


def self_test(device: str = "cpu") -> list[Check]:
    """Check rounding on a device: all values, ties and subnormals, and the kernels against the torch form.

    >>> all(check.passed is not False for check in self_test())
    True
    """
    return list(_checks(torch.device(device)))


def flushes_subnormals() -> bool:
    """Whether this thread flushes subnormal float32 numbers to 0, a setting that fast-math libraries make."""
    return not bool((torch.tensor([2.0**-127]) * 2.0**-10).item())


def _checks(device: torch.device) -> Iterator[Check]:
    flushed = flushes_subnormals()
    yield Check(
        "subnormal float32 numbers",
        None,
        "flushed to zero by this process; rounding does not need them" if flushed else "kept",
    )
    x = _numbers().to(device)
    wrong = [str(fmt) for fmt in PAPER_FORMATS_A if not _equals_definition(fmt, device)]
    yield _verdict("every value and tie of the 11 Formats A", wrong)
    wrong = [
        str(fmt) for fmt in _FORMATS if not _same(quantize(x, fmt), quantize_eagerly(x.cpu(), fmt, None))
    ]
    yield _verdict("nearest: fast and readable form", wrong)
    key = seed_key(7)
    stochastic = {fmt: quantize(x, fmt, "stochastic", seed=7) for fmt in _FORMATS}
    wrong = [str(f) for f, y in stochastic.items() if not _same(y, quantize_eagerly(x.cpu(), f, key))]
    yield _verdict("stochastic: the same random bits", wrong)
    if device.type == "cpu":
        verdict = convolutions.examine(repaired=True)
        yield Check("strided 1x1 convolutions of few channels, in our trainings", verdict == "right", verdict)
        detail = "in use" if kernels.available() else "not in use: numba cannot be loaded; training is slower"
        yield Check("compiled kernels", None, detail)


def _verdict(name: str, wrong: list[str]) -> Check:
    return Check(name, not wrong, f"wrong for {', '.join(wrong)}" if wrong else "right")


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.cpu().view(torch.int32), b.cpu().view(torch.int32))


def _numbers() -> Tensor:
    """Random numbers of all magnitudes, including subnormals, infinities and NaN: float32 [2000]."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (2000,), generator=generator, dtype=torch.int64)
    return bits.to(torch.int32).view(torch.float32)


def _equals_definition(fmt: FloatFormat, device: torch.device) -> bool:
    """Whether values stay, others go to the nearest, ties go away from zero, and large numbers saturate."""
    values = torch.tensor([v for v in fmt.values() if v >= 0], dtype=torch.float64)
    low, high = values[:-1], values[1:]
    middle = (low + high) / 2
    near = torch.stack([values, torch.cat([(low + middle) / 2, values[-1:] * 8])])
    ties, above = middle, (middle + high) / 2
    x = torch.cat([near.flatten(), ties, above])
    expected = torch.cat([values, low, values[-1:], high, high])
    got = quantize(x.float().to(device), fmt).cpu()
    return torch.equal(got, expected.float()) and torch.equal(
        quantize(-x.float().to(device), fmt).cpu(), -expected.float()
    )
