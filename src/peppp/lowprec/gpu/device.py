"""The functions of kernels.py for tensors on a GPU, and for formats and keys that only a device knows.

With Triton, each is one kernel. Without it, torch operations give the same bits; they run on every device, so
that the CPU can rehearse what a GPU replays. Triton is compared once with these operations before it is used:
if it is missing, cannot compile or gives other bits, there is one warning.
**The Triton kernels have run in Triton's interpreter only, not on a GPU.**
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from peppp.formats import FP32, FloatFormat, Format
from peppp.lowprec.rounding.constants import constants
from peppp.lowprec.rounding.streams import (
    ACCUMULATOR,
    FIRST_STATE,
    GRADIENT,
    WEIGHT,
    Key,
    PathKey,
    mix,
    random_bits,
    signed64,
)

_Check = Callable[[ModuleType, torch.device], str]
_ROLES = sorted((GRADIENT, ACCUMULATOR, WEIGHT, FIRST_STATE))


@dataclass(frozen=True, slots=True, eq=False)
class FormatSlot:
    """A slot on the device for a format's constants (int32 [12]): one captured step serves all formats.

    ``rare`` allows formats with ties to even or without subnormals, which need more operations.
    """

    constants: Tensor
    rare: bool

    @classmethod
    def empty(cls, device: str, rare: bool) -> "FormatSlot":
        """Return a slot for a format that is set later."""
        return cls(torch.zeros(12, dtype=torch.int32, device=device), rare)

    def set(self, fmt: FloatFormat) -> None:
        """Write a format into the slot; fp32 changes no number.

        Raises ValueError for a rare format in a slot that does not allow these.
        """
        if is_rare(fmt) and not self.rare:
            raise ValueError(f"{fmt} needs a slot for rare formats")
        self.constants.copy_(_constants(fmt))


def is_rare(fmt: FloatFormat) -> bool:
    """Whether a format needs operations that the paper's formats do not need."""
    return fmt != FP32 and constants(fmt).rare is not None


def _constants(fmt: FloatFormat) -> Tensor:
    words = torch.from_numpy(constants(fmt).words.view("int32").copy())
    if fmt == FP32:
        words[4] = -1  # no bits are cut off, so there are no ties
    return words


@lru_cache(maxsize=256)
def _slot(fmt: FloatFormat, device: torch.device) -> FormatSlot:
    return FormatSlot(_constants(fmt).to(device), is_rare(fmt))


def round_into(
    x: Tensor,
    out: Tensor,
    fmt: Format | FormatSlot,
    key: Key | None,
    *,
    gate: Tensor | None = None,
    relu: bool = False,
) -> bool:
    """Round ``x`` into ``out``, then apply ``relu``, or write 0 where ``gate`` is not positive.

    Returns False, and does nothing, for formats with a scale.
    """
    slot = _slot(fmt, x.device) if isinstance(fmt, FloatFormat) else fmt
    if not isinstance(slot, FormatSlot):
        return False
    x, out, gate = x.detach(), out.detach(), None if gate is None else gate.detach()
    order = _order(x, out, *(() if gate is None else (gate,)))
    triton = _triton(x.device)
    if triton is not None and order is not None and not _overlap(x, out) and not _overlap(gate, out):
        word = None if key is None else _word(key, x.device)
        with current(x):
            triton.round_all(x, out, gate, slot.constants, slot.rare, word, order, relu=relu)
        increment_version(out)
        return True
    bits = None if key is None else random_bits(x.shape, key, x.device)
    y = _rounded(x, slot, bits)
    if relu:
        y = _relu(y)
    out.copy_(y if gate is None else torch.where(gate > 0, y, 0.0))
    return True


def sgd_step(
    gradients: Sequence[Tensor],
    momenta: Sequence[Tensor] | None,
    accumulators: Sequence[Tensor] | None,
    weights: Sequence[Tensor],
    indices: Sequence[int],
    formats: tuple[Format | FormatSlot, Format | FormatSlot],
    modes: tuple[str, str, str],
    learning_rate: float | Tensor,
    momentum_factor: float,
    weight_decay: float,
    key: Key,
) -> bool:
    """Do the step of kernels.sgd_step; ``learning_rate`` may be on the device (float32 [1])."""
    device = weights[0].device if weights else torch.device("cpu")
    triton = _triton(device)
    slots = [_slot(fmt, device) if isinstance(fmt, FloatFormat) else fmt for fmt in formats]
    columns = [column for column in (gradients, momenta, accumulators, weights) if column is not None]
    orders = [_order(*(tensor.detach() for tensor in tensors)) for tensors in zip(*columns, strict=True)]
    a, b = slots
    if triton is None or None in orders or not isinstance(a, FormatSlot) or not isinstance(b, FormatSlot):
        return False
    rate = (
        learning_rate if isinstance(learning_rate, Tensor) else torch.full((1,), learning_rate, device=device)
    )
    stochastic = tuple(mode == "stochastic" for mode in modes)
    for i, (words, order) in enumerate(zip(_update_words(key, indices, device), orders, strict=True)):
        assert order is not None
        with current(weights[i]):
            triton.sgd(
                gradients[i],
                None if momenta is None else momenta[i],
                None if accumulators is None else accumulators[i],
                weights[i].detach(),
                (a.constants, b.constants),
                a.rare or b.rare,
                words,
                stochastic,
                rate,
                momentum_factor,
                weight_decay,
                order,
            )
    increment_version([tensor for column in columns[1:] for tensor in column])
    return True


def current(x: Tensor) -> AbstractContextManager[Any]:
    """Make the device of ``x`` the current one, on which Triton launches kernels."""
    return torch.cuda.device_of(x)  # type: ignore[no-untyped-call]


def _update_words(key: Key, indices: Sequence[int], device: torch.device) -> list[list[Tensor]]:
    """Return the keys of each parameter's roles: int64 [1] each."""
    if isinstance(key, PathKey):
        return [[mix(mix(key, index), role).word() for role in _ROLES] for index in indices]
    numbers = [signed64(mix(mix(key, index), role)) for index in indices for role in _ROLES]
    words = torch.tensor(numbers, dtype=torch.int64).to(device, non_blocking=True)
    return [[words[i + role : i + role + 1] for role in _ROLES] for i in range(0, len(numbers), len(_ROLES))]


def _word(key: Key, device: torch.device) -> Tensor:
    # A fill passes its number to the kernel; a copy from the host would wait.
    return key.word() if isinstance(key, PathKey) else torch.full((1,), signed64(key), device=device)


def _order(x: Tensor, *others: Tensor) -> tuple[int, int] | None:
    """Return pixels and channels of tensors that are all contiguous, or all channels_last; else None."""
    if any(t.shape != x.shape or t.dtype != torch.float32 or t.is_neg() for t in (x, *others)):
        return None
    if all(t.is_contiguous() for t in (x, *others)):
        return 1, max(x.numel(), 1)
    if x.dim() != 4 or x.numel() >= x.shape[1] << 32:  # the kernels count rows in 32 bits
        return None
    if all(t.is_contiguous(memory_format=torch.channels_last) for t in (x, *others)):
        return x.shape[2] * x.shape[3], x.shape[1]
    return None


def _overlap(x: Tensor | None, out: Tensor) -> bool:
    """Whether writing to ``out`` would overwrite other numbers of ``x`` that are read later."""
    return x is not None and 0 < abs(x.data_ptr() - out.data_ptr()) < 4 * out.numel()


def _rounded(x: Tensor, slot: FormatSlot, bits: Tensor | None) -> Tensor:
    """Round with torch operations: quantize.round_bits with a format from the device."""
    words, numbers = slot.constants, slot.constants.view(torch.float32)
    threshold, half, mask, highest = numbers[0], words[1], words[2], words[3]
    if bits is not None:
        threshold, lowest = numbers[10], words[11]
    magnitude = x.view(torch.int32) & 0x7FFFFFFF
    value = magnitude.view(torch.float32)
    tiny = value < threshold
    b = torch.where(tiny, (value + threshold).view(torch.int32), magnitude)
    if bits is not None:
        mask = ~(~mask << (lowest - (b >> 23)).clamp(min=0))
        b = b + (bits & mask)
    elif slot.rare:
        b = torch.where((b & mask) == half, (b + half) & words[4], b + half)
    else:
        b = b + half
    y = (b & ~mask).view(torch.float32)
    y = torch.where(tiny, y - threshold, y)
    if slot.rare:
        if bits is None:
            y = torch.where(value < numbers[6], (value + numbers[5]) - numbers[5], y)
        y = torch.where(y >= numbers[7], y, torch.where(y > numbers[7] * 0.5, numbers[7], 0.0))
        y = torch.where(y > numbers[8], numbers[9], y)
    signed = torch.minimum(y.view(torch.int32), highest) | (x.view(torch.int32) & -(1 << 31))
    return torch.where(x.isnan(), x, signed.view(torch.float32))


def _relu(y: Tensor) -> Tensor:
    """torch.relu as on the CPU, where -0 stays -0; on a GPU it may become 0."""
    return torch.where(y < 0, 0.0, y)


@lru_cache(maxsize=8)
def _triton(device: torch.device) -> ModuleType | None:
    """Return the Triton kernels of rounding and SGD if they pass :func:`check` on the device, else None."""
    return trusted(device, "triton_kernels", check, "rounding")


def trusted(device: torch.device, module: str, check: _Check, what: str) -> ModuleType | None:
    """Return a ``module`` of Triton kernels if its ``check`` finds nothing wrong on a GPU, else None."""
    if device.type != "cuda":
        return None
    try:
        kernels_there = import_module(f"peppp.lowprec.gpu.{module}")
        with torch.cuda.device(device):
            wrong = check(kernels_there, device)
    except Exception as error:  # a compiler, its absence or a driver can raise anything
        wrong = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if wrong:
        warnings.warn(
            f"no Triton kernels on {device} ({wrong}); {what} uses torch operations, which is slower",
            stacklevel=3,
        )
        return None
    return kernels_there


def check(triton: ModuleType, device: torch.device) -> str:
    """Compare the kernels of rounding and SGD with torch operations; return what is wrong, or an empty text.

    This covers numbers of all magnitudes, both layouts, both rounding modes, common and rare formats, and
    sizes that 16 divides (for which the compiler makes other code) and that it does not.
    """
    for shape, texts in (((2, 5, 33, 31), ("1-8-7", "1-6-7", "1-3-2@ieee")), ((2, 64, 8, 8), ("1-4-1",))):
        contiguous = any_numbers(shape).to(device)
        for x in (contiguous, contiguous.to(memory_format=torch.channels_last)):
            for fmt in map(FloatFormat.parse, texts):
                for key in (None, -3):
                    wrong = _check_rounding(triton, x, fmt, key)
                    if wrong:
                        return wrong
    return _check_sgd(triton, device)


def any_numbers(shape: tuple[int, ...]) -> Tensor:
    """Return float32 numbers with random bits."""
    draw = torch.Generator().manual_seed(0)
    numbers = torch.randint(-(2**31), 2**31, shape, generator=draw, dtype=torch.int64)
    return numbers.to(torch.int32).view(torch.float32)


def _check_rounding(triton: ModuleType, x: Tensor, fmt: FloatFormat, key: int | None) -> str:
    slot, gate, out = _slot(fmt, x.device), torch.empty_like(x).copy_(x.flip(0)), torch.empty_like(x)
    word = None if key is None else _word(key, x.device)
    args = slot.constants, slot.rare, word, _order(x) or (1, 1)
    expected = _rounded(x, slot, None if key is None else random_bits(x.shape, key, x.device))
    triton.round_all(x, out, gate, *args)
    if not same_bits(out, torch.where(gate > 0, expected, 0.0)):
        return f"wrong bits at {fmt}"
    triton.round_all(x, out, None, *args, relu=True)
    return "" if same_bits(out, _relu(expected)) else f"wrong bits at {fmt} with relu"


def _check_sgd(triton: ModuleType, device: torch.device) -> str:
    draw = torch.Generator().manual_seed(1)
    g, v, acc, w = torch.randn(4, 1000, generator=draw).to(device)
    a, b = (_slot(FloatFormat.parse(text), device) for text in ("1-4-1", "1-6-7"))
    words = [_word(role, device) for role in range(4)]

    def stochastic(x: Tensor, slot: FormatSlot, role: int) -> Tensor:
        return _rounded(x, slot, random_bits(x.shape, role, device))

    d = stochastic(g, b, GRADIENT) + acc * 0.0005
    d = v * 0.9 + d
    acc_after = stochastic(acc - d * 0.01, b, ACCUMULATOR)
    expected = stochastic(d, b, FIRST_STATE), acc_after, stochastic(acc_after, a, WEIGHT)
    rate = torch.full((1,), 0.01, device=device)
    flags = (True, True, True)
    args = (a.constants, b.constants), False, words, flags, rate, 0.9, 0.0005, (1, 1000)
    triton.sgd(g, v, acc, w, *args)
    same = all(same_bits(*pair) for pair in zip((v, acc, w), expected, strict=True))
    return "" if same else "wrong bits in SGD's step"


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two float32 tensors have the same bits, including NaN and signs of zeros."""
    return torch.equal(a.view(torch.int32), b.view(torch.int32))
