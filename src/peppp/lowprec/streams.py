"""Random bits of stochastic rounding: a hash of (element index, key), the key a hash of where and when.

The bits depend on nothing else: not on threads, memory layout, packing, recomputation or the device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_MASK64 = (1 << 64) - 1

# An odd constant near 2^32 / golden ratio, and the two multipliers of a well-mixing 32-bit hash.
GOLDEN = 0x9E3779B9
MULTIPLIER_1 = 0x7FEB352D
MULTIPLIER_2 = 0x846CA68B
# Of a linear step and of the splitmix64 finaliser.
MIX_CONSTANTS = (
    0xD1342543DE82EF95,
    0x9E3779B97F4A7C15,
    0x632BE59BD9B4E019,
    0xBF58476D1CE4E5B9,
    0x94D049BB133111EB,
)
# What is rounded in an update of a parameter, as numbers of its key.
GRADIENT, ACCUMULATOR, WEIGHT, FIRST_STATE = range(4)


def mix(key: int, value: int) -> int:
    """A 64-bit key from a key and a number (the splitmix64 finaliser): neighbours land far apart.

    >>> mix(0, 1) != mix(1, 0)
    True
    """
    of_key, of_value, offset, first, second = MIX_CONSTANTS
    z = (key * of_key + value * of_value + offset) & _MASK64
    z = ((z ^ (z >> 30)) * first) & _MASK64
    z = ((z ^ (z >> 27)) * second) & _MASK64
    return z ^ (z >> 31)


def mix_text(key: int, text: str) -> int:
    """A 64-bit key from a key and a text."""
    for byte in text.encode():
        key = mix(key, byte)
    return key


def _signed(word: int) -> int:
    """The int32 of the same 32 bits: torch has no arithmetic on unsigned ones."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >> 31 else word


def random_bits(shape: torch.Size, key: int, device: torch.device | None = None) -> Tensor:
    """32 random bits for each element, as int32 of ``shape``: the readable twin of the kernels' hash.

    An element's index is its row-major position within the tensor, modulo 2^32.
    """
    h = torch.arange(shape.numel(), dtype=torch.int64, device=device).to(torch.int32).view(shape)
    h = h * _signed(GOLDEN) + _signed(key)
    h = h ^ ((h >> 16) & 0xFFFF)
    h = h * MULTIPLIER_1
    h = h ^ _signed(key >> 32)  # between the rounds, so that no two keys give one stream, shifted
    h = h ^ ((h >> 15) & 0x1FFFF)
    h = h * _signed(MULTIPLIER_2)
    return h ^ ((h >> 16) & 0xFFFF)


@dataclass(slots=True)
class Clock:
    """Where a run stands: its seed, optimizer steps done, passes since the last one.

    Evaluation counts its passes apart, so that testing does not change a training.
    """

    seed: int
    step: int = 0
    training_pass: int = -1
    evaluation_pass: int = -1

    def begin_pass(self, training: bool) -> int:
        """Count one more forward pass; its key."""
        if training:
            self.training_pass += 1
            self.evaluation_pass = -1
            return mix(mix(self.seed, self.step), 2 * self.training_pass)
        self.evaluation_pass += 1
        return mix(mix(self.seed, self.step), 2 * self.evaluation_pass + 1)

    def update_key(self) -> int:
        """The key of the roundings of gradients and optimizer states after the current pass."""
        return mix(mix(mix(self.seed, self.step), 2 * max(self.training_pass, 0)), 0x757064)

    def advance(self) -> None:
        """Count one optimizer step."""
        self.step += 1
        self.training_pass = -1
        self.evaluation_pass = -1
