"""Random bits for stochastic rounding: a hash of (element index, key), where the key hashes place and time.

The bits depend on nothing else: not on threads, memory layout, packing, recomputation or the device.
"""

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch
from torch import Tensor

_MASK64 = (1 << 64) - 1

# An odd constant near 2^32 / golden ratio, and the two multipliers of a 32-bit hash.
GOLDEN = 0x9E3779B9
MULTIPLIER_1 = 0x7FEB352D
MULTIPLIER_2 = 0x846CA68B
# The constants of a linear step and of the splitmix64 finaliser.
MIX_CONSTANTS = (
    0xD1342543DE82EF95,
    0x9E3779B97F4A7C15,
    0x632BE59BD9B4E019,
    0xBF58476D1CE4E5B9,
    0x94D049BB133111EB,
)
# The roles of the numbers that an update of a parameter rounds; they enter the keys.
GRADIENT, ACCUMULATOR, WEIGHT, FIRST_STATE = range(4)
# Enters the key of an update.
UPDATE = 0x757064


@dataclass(frozen=True, slots=True)
class PathKey:
    """A key that only the device knows: a path of numbers to mix, one by one, into a root stored there.

    A step that is captured once and replayed has different keys each time, but the same paths (keytable.py).
    """

    table: "Table"
    path: tuple[int, ...] = ()

    def word(self) -> Tensor:
        """The key on the device: int64 [1]."""
        return self.table.word(self.path)


class Table(Protocol):
    """Stores the keys of paths on the device."""

    def word(self, path: tuple[int, ...]) -> Tensor:
        """The key of a path on the device: int64 [1]."""


Key = int | PathKey
_Key = TypeVar("_Key", int, PathKey, Key)


def mix(key: _Key, value: int) -> _Key:
    """Mix a number into a 64-bit key (splitmix64 finaliser); adjacent numbers give unrelated keys.

    >>> mix(0, 1) != mix(1, 0)
    True
    """
    if isinstance(key, PathKey):
        return PathKey(key.table, (*key.path, value))
    of_key, of_value, offset, first, second = MIX_CONSTANTS
    z = (key * of_key + value * of_value + offset) & _MASK64
    z = ((z ^ (z >> 30)) * first) & _MASK64
    z = ((z ^ (z >> 27)) * second) & _MASK64
    return z ^ (z >> 31)


def mix_words(keys: Tensor, values: Tensor | int) -> Tensor:
    """Apply :func:`mix` to int64 tensors element by element, with broadcasting: the same bits on any device.

    >>> mix_words(torch.tensor([5]), 7).item() & _MASK64 == mix(5, 7)
    True
    """
    of_key, of_value, offset, first, second = (signed64(number) for number in MIX_CONSTANTS)
    z = keys * of_key + (values * of_value if isinstance(values, Tensor) else signed64(values * of_value))
    z = z + offset
    z = (z ^ ((z >> 30) & ((1 << 34) - 1))) * first
    z = (z ^ ((z >> 27) & ((1 << 37) - 1))) * second
    return z ^ ((z >> 31) & ((1 << 33) - 1))


def signed64(word: int) -> int:
    """Return the int64 with the same 64 bits."""
    word &= _MASK64
    return word - (1 << 64) if word >> 63 else word


def mix_text(key: int, text: str) -> int:
    """Mix a text into a 64-bit key, byte by byte."""
    for byte in text.encode():
        key = mix(key, byte)
    return key


def _signed(word: int) -> int:
    """Return the int32 with the same 32 bits, since torch has no arithmetic on unsigned ones."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >> 31 else word


def _halves(word: Tensor) -> tuple[Tensor, Tensor]:
    """Return the low and the high word of an int64 [1], as int32 scalars."""
    low, high = word.view(torch.int32)
    return low, high


def random_bits(shape: torch.Size, key: Key, device: torch.device | None = None) -> Tensor:
    """Return 32 random bits per element, as int32 of ``shape``: the readable form of the kernels' hash.

    An element's index is its row-major position in the tensor, modulo 2^32.
    """
    h = torch.arange(shape.numel(), dtype=torch.int64, device=device).to(torch.int32).view(shape)
    low: Tensor | int
    high: Tensor | int
    if isinstance(key, PathKey):
        low, high = _halves(key.word())
    else:
        low, high = _signed(key), _signed(key >> 32)
    h = h * _signed(GOLDEN) + low
    h = h ^ ((h >> 16) & 0xFFFF)
    h = h * MULTIPLIER_1
    h = h ^ high  # between the rounds, so that no key gives a shifted copy of another key's stream
    h = h ^ ((h >> 15) & 0x1FFFF)
    h = h * _signed(MULTIPLIER_2)
    return h ^ ((h >> 16) & 0xFFFF)


@dataclass(slots=True)
class Clock:
    """The position of a run: its seed, the optimizer steps so far, and the passes since the last step.

    Evaluation passes are counted separately, so that testing does not change a training.
    """

    seed: int
    step: int = 0
    training_pass: int = -1
    evaluation_pass: int = -1
    _key: int | None = None  # of the last step; _stepped holds the optimizers that took part in it
    _stepped: set[int] = field(default_factory=set)

    def begin_pass(self, training: bool) -> int:
        """Count one more forward pass and return its key."""
        if training:
            self.training_pass += 1
            self.evaluation_pass = -1
            return mix(mix(self.seed, self.step), 2 * self.training_pass)
        self.evaluation_pass += 1
        return mix(mix(self.seed, self.step), 2 * self.evaluation_pass + 1)

    def update_key(self) -> int:
        """Return the key for rounding gradients and optimizer states after the current pass."""
        return mix(mix(mix(self.seed, self.step), 2 * max(self.training_pass, 0)), UPDATE)

    def step_key(self, optimizer: int) -> int:
        """Return the key of an optimizer's step.

        The first step after a pass advances the clock; other optimizers that step after the same pass share
        its key. ``optimizer`` identifies the optimizer: if it steps again without a pass in between, a new
        step begins.
        """
        if self._key is None or self.training_pass >= 0 or optimizer in self._stepped:
            self._key = self.update_key()
            self._stepped.clear()
            self.advance()
        self._stepped.add(optimizer)
        return self._key

    def advance(self) -> None:
        """Count one optimizer step."""
        self.step += 1
        self.training_pass = -1
        self.evaluation_pass = -1
