"""Binary floating-point formats 1-E-M and the quantities derived from their fields."""

import math
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from peppp.errors import FormatError

Ties = Literal["away", "even"]
Overflow = Literal["saturate", "inf", "nan"]


@dataclass(frozen=True, slots=True)
class Flavour:
    """What the text 1-E-M leaves open: which codes are numbers, how ties round, what overflow gives.

    ``infinities`` and ``nan`` are sets of exponent widths. In formats with a width in ``infinities``, the top
    exponent is reserved for infinities and NaN; with a width in ``nan``, only the last code is NaN. Overflow
    gives infinity or NaN if the format has it, unless the flavour ``saturates``. ``shift`` is added to all
    exponents. ``only`` lists the allowed pairs of exponent and mantissa bits (empty: all pairs).
    """

    ties: Ties
    subnormals: bool
    description: str
    infinities: frozenset[int] = frozenset()
    nan: frozenset[int] = frozenset()
    saturates: bool = False
    shift: int = 0
    only: frozenset[tuple[int, int]] = frozenset()


_OCP = frozenset({(5, 2), (4, 3), (3, 2), (2, 3), (2, 1)})
_IEEE = frozenset(range(2, 9))
FLAVOURS: dict[str, Flavour] = {
    "qpytorch": Flavour(
        "away", True, "QPyTorch 0.3.0: every code a number, subnormals, overflow saturates",
        infinities=frozenset({8}),
    ),
    "qpytorch-0.2": Flavour("away", False, "QPyTorch 0.2.0: one binade lower, no subnormals", shift=-1),
    "ieee": Flavour(
        "even", True, "IEEE 754: top exponent kept for inf and NaN, overflow gives inf",
        infinities=_IEEE,
    ),
    "ocp": Flavour(
        "even", True, "OCP 8-bit and MX element formats; overflow as in ml_dtypes",
        infinities=frozenset({5}), nan=frozenset({4}), only=_OCP,
    ),
    "ocp-sat": Flavour(
        "even", True, "OCP element formats; overflow saturates",
        infinities=frozenset({5}), nan=frozenset({4}), only=_OCP, saturates=True,
    ),
}  # fmt: skip

_TEXT = re.compile(r"(?:1-(\d+)-(\d+)|e(\d+)m(\d+))(?:@([a-z0-9.\-]+))?", re.ASCII)
_ALIASES = {
    "float32": "fp32",
    "1-8-23": "fp32",
    "bf16": "1-8-7@ieee",
    "bfloat16": "1-8-7@ieee",
    "fp16": "1-5-10@ieee",
    "float16": "1-5-10@ieee",
    "tf32": "1-8-10@ieee",
    "fp8": "1-4-3@ocp-sat",
    "e4m3fn": "1-4-3@ocp",
    "float8_e4m3fn": "1-4-3@ocp",
    "e5m2": "1-5-2@ocp",
    "float8_e5m2": "1-5-2@ocp",
}
# Candidates for suggestions when a text is unknown; those after the aliases are parsed in formats.py.
_KNOWN = (
    "fp32", *_ALIASES, "int8", "int4", "fixed-8-6", "mxfp8", "mxfp6", "mxfp4", "nvfp4", "mx-1-4-3/32",
    "mx-1-2-1/32", "nv-1-2-1/16", "scaled-1-4-3", "scaled-1-5-2",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """A binary floating-point format: one sign bit, ``exponent_bits``, ``mantissa_bits`` (stored bits).

    With E exponent bits, the default flavour has bias 2^(E-1)-1, exponents 2-2^(E-1) .. 2^(E-1), subnormals,
    and no codes for infinities or NaN (E = 8 apart): the value set of QPyTorch 0.3.0, which the paper used.
    Raises FormatError for an unknown flavour or a number of bits that the flavour does not allow.
    >>> fmt = FloatFormat.parse("1-4-3")
    >>> fmt.bits, fmt.max, fmt.min_normal, fmt.min_subnormal
    (8, 480.0, 0.015625, 0.001953125)
    >>> str(FloatFormat.parse("e4m3@ocp")), FloatFormat.parse("1-4-3@ocp").max
    ('1-4-3@ocp', 448.0)
    """

    exponent_bits: int
    mantissa_bits: int
    flavour: str = "qpytorch"

    def __post_init__(self) -> None:
        E, M, flavour = self.exponent_bits, self.mantissa_bits, self.flavour
        if not (isinstance(E, int) and isinstance(M, int) and isinstance(flavour, str)):
            raise FormatError("a format has whole numbers of bits and a flavour's name, as FloatFormat(4, 3)")
        if flavour not in FLAVOURS:
            raise FormatError(f"unknown flavour in 1-{E}-{M}@{flavour}; known: {', '.join(FLAVOURS)}")
        if not 2 <= E <= 8 or not (0 <= M <= 22 or (E, M, flavour) == (8, 23, "ieee")):
            raise FormatError(
                f"no such format: 1-{E}-{M}; exponent bits are 2 to 8 and mantissa bits 0 to 22, as in 1-4-3"
            )
        only = FLAVOURS[flavour].only
        if only and (E, M) not in only:
            names = ", ".join(f"1-{e}-{m}" for e, m in sorted(only, reverse=True))
            raise FormatError(
                f"OCP has no 1-{E}-{M}; it has {names}; for others take flavour ieee or qpytorch"
            )

    @classmethod
    def parse(cls, text: str) -> "FloatFormat":
        """Parse a format such as ``1-4-3``, ``1-4-3@ocp``, ``e4m3@ocp``, ``fp32`` or ``bf16``.

        Raises FormatError for anything else.
        """
        if not isinstance(text, str):
            raise FormatError(f"the text of a format is a str, such as 1-4-3, not a {type(text).__name__}")
        stripped = text.strip().lower()
        stripped = _ALIASES.get(stripped, stripped)
        if stripped == "fp32":
            return FP32
        match = _TEXT.fullmatch(stripped)
        if match is None:
            near = " or ".join(get_close_matches(stripped, _KNOWN))
            near = f"take {near}, or " if near else ""
            raise FormatError(
                f"not a format: {text!r}; {near}write 1-EXPONENT-MANTISSA bits, such as 1-4-3, with @"
                f"{'|'.join(FLAVOURS)} for another flavour, or fp32, fp16, bf16, int8, fixed-8-6, "
                "mx-1-4-3/32, nv-1-2-1/16, scaled-1-4-3"
            )
        exponent, mantissa, named_exponent, named_mantissa, flavour = match.groups()
        if named_exponent and flavour is None:
            raise FormatError(
                f"{text!r} names several formats; choose one: {stripped}@ocp, {stripped}@ieee "
                f"or {stripped}@qpytorch"
            )
        return cls(int(exponent or named_exponent), int(mantissa or named_mantissa), flavour or "qpytorch")

    def __str__(self) -> str:
        if self == FP32:
            return "fp32"
        text = f"1-{self.exponent_bits}-{self.mantissa_bits}"
        return text if self.flavour == "qpytorch" else f"{text}@{self.flavour}"

    @property
    def bits(self) -> int:
        """Bits of one number, the sign included."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal number; at least fp32's -126, in which all arithmetic runs."""
        lowest = 2 + FLAVOURS[self.flavour].shift - (1 << (self.exponent_bits - 1))
        return max(lowest, -126)

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest number; at most fp32's 127, in which all arithmetic runs."""
        top = (1 << (self.exponent_bits - 1)) + FLAVOURS[self.flavour].shift
        return min(top - 1 if self.has_infinities else top, 127)

    @property
    def has_infinities(self) -> bool:
        """Whether the top exponent is reserved for infinities and NaN."""
        return self.exponent_bits in FLAVOURS[self.flavour].infinities

    @property
    def has_nan_only(self) -> bool:
        """Whether only the last code is reserved, for NaN."""
        return self.exponent_bits in FLAVOURS[self.flavour].nan

    @property
    def max(self) -> float:
        """The largest finite number."""
        significand = 2 - 2.0**-self.mantissa_bits
        if self.has_nan_only:
            significand -= 2.0**-self.mantissa_bits  # the top code is NaN
        return math.ldexp(significand, self.max_exponent)

    @property
    def overflow(self) -> Overflow:
        """What a number that is too large becomes: the maximum (saturate), inf or nan."""
        if FLAVOURS[self.flavour].saturates:
            return "saturate"
        return "inf" if self.has_infinities else "nan" if self.has_nan_only else "saturate"

    @property
    def ties(self) -> Ties:
        """Where nearest rounding sends a number halfway between two others: away from zero, or to even."""
        return FLAVOURS[self.flavour].ties

    @property
    def subnormals(self) -> bool:
        """Whether the format has nonzero numbers below ``min_normal``."""
        return FLAVOURS[self.flavour].subnormals or self.exponent_bits == 8

    @property
    def min_normal(self) -> float:
        """The smallest positive normal number."""
        return math.ldexp(1.0, self.min_exponent)

    @property
    def min_subnormal(self) -> float:
        """The smallest positive number."""
        return math.ldexp(1.0, self.min_exponent - self.mantissa_bits) if self.subnormals else self.min_normal

    @property
    def epsilon(self) -> float:
        """Distance from 1 to the next larger number."""
        return math.ldexp(1.0, -self.mantissa_bits)

    def values(self) -> NDArray[np.float64]:
        """Return all finite numbers of the format in ascending order, zero once: float64 [count].

        Raises FormatError for formats of more than 20 bits.

        >>> FloatFormat.parse("1-2-1").values()
        array([-6. , -4. , -3. , -2. , -1.5, -1. , -0.5,  0. ,  0.5,  1. ,  1.5, 2. ,  3. ,  4. ,  6. ])
        """
        if self.bits > 20:
            raise FormatError(f"{self} has 2^{self.bits} codes; values() lists formats of at most 20 bits")
        steps = np.arange(2**self.mantissa_bits) / 2.0**self.mantissa_bits
        exponents = np.arange(self.min_exponent, self.max_exponent + 1, dtype=np.float64)
        positive = ((1 + steps)[None, :] * 2.0 ** exponents[:, None]).ravel()
        if self.subnormals:
            positive = np.concatenate([steps[1:] * self.min_normal, positive])
        positive = positive[positive <= self.max]
        return np.concatenate([-positive[::-1], [0.0], positive])


FP32 = FloatFormat(8, 23, "ieee")
