"""The functions of packing/codes.py for tensors on a GPU, with Triton kernels that passed a check there.

**They have run in Triton's interpreter only, not on a GPU.**
"""

from functools import lru_cache
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from peppp.formats import FloatFormat
from peppp.lowprec.gpu.device import any_numbers, current, same_bits, trusted
from peppp.lowprec.packing import codes as packing
from peppp.lowprec.rounding.quantize import quantize_eagerly

# The constants of codes: cut, offset, tiny_offset, threshold, tiny_codes, magnitudes, sign_shift; and the
# first code and the bits of the first number of infinities and NaN, if these need separate treatment.
Code = tuple[tuple[int, int, int, float, int, int, int], tuple[int, int] | None]


def pack_into(flat: Tensor, words: Tensor, bits: int, code: Code, width: int) -> bool | None:
    """Pack a flat float32 tensor on a GPU, in blocks of 32 * ``width`` numbers of ``bits`` bits.

    Returns whether all numbers had a code (it waits for the answer), or None without Triton.
    """
    triton = packer(flat.device)
    if triton is None:
        return None
    with current(flat):
        return not bool(triton.pack(flat, words, bits, code_words(code, flat.device), width).item())


def unpack_into(words: Tensor, flat: Tensor, bits: int, code: Code, width: int) -> bool:
    """Unpack what :func:`pack_into` packed; return whether it did."""
    triton = packer(flat.device)
    if triton is not None:
        with current(flat):
            triton.unpack(words, flat, bits, code_words(code, flat.device), width)
    return triton is not None


@lru_cache(maxsize=256)
def code_words(code: Code, device: torch.device) -> Tensor:
    """Return the constants of a format's codes as the kernels read them: int32 [7] or [9]."""
    numbers, special = code
    words = [np.float32(x).view(np.int32).item() if isinstance(x, float) else x for x in numbers]
    return torch.tensor([*words, *(special or ())], dtype=torch.int32).to(device)


@lru_cache(maxsize=8)
def packer(device: torch.device) -> ModuleType | None:
    """Return the Triton kernels for packing if they pass :func:`check` on the device, else None."""
    return trusted(device, "triton_packing", check, "packing")


def check(triton: ModuleType, device: torch.device) -> str:
    """Compare the kernels with packing on the CPU; return what is wrong, or an empty text.

    This covers whole blocks, the rest, and a number without a code.
    """
    for text in ("1-4-1", "1-3-2@ieee"):
        fmt = FloatFormat.parse(text)
        x = quantize_eagerly(any_numbers((32 * packing.WIDTH + 100,)), fmt, None)
        x[x.isnan()] = 0.0
        words, constants = (
            torch.empty(packing.words_of(len(x), fmt.bits), dtype=torch.int32),
            packing.plain_constants(fmt),
        )
        packing.pack_into(x, words, fmt)
        x, expected, code = x.to(device), words.to(device), code_words(constants, device)
        found, out = torch.zeros_like(expected), torch.empty_like(x)
        wrong = triton.pack(x, found, fmt.bits, code, packing.WIDTH).item()
        triton.unpack(found, out, fmt.bits, code, packing.WIDTH)
        if wrong or not torch.equal(found, expected) or not same_bits(out, x):
            return f"wrong bits in packing {fmt}"
        x[-3] = 0.3
        if not triton.pack(x, found, fmt.bits, code, packing.WIDTH).item():
            return f"no report of a number that {fmt} does not have"
    return ""
