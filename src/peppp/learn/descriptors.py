"""Configurations that a table lacks, placed among its own by what their formats can represent.

A format is described by its bits of precision and of range; a Gaussian process over these descriptors
interpolates between the configurations of the table (kriging). How well it does is measured on the table:
each Format A is left out in turn, and what is missed, relative to the process's own deviation there, sets how
wide intervals are. So they widen with the distance from what the table knows. Not in the paper.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from peppp.formats import (
    BlockFormat,
    Configuration,
    FloatFormat,
    Format,
    ScaledFormat,
    TwoLevelFormat,
)

_LENGTHS = (1.0, 2.0, 4.0, 8.0)
_NUGGET = 0.03
_APART = 2.0  # bits, for want of a measurement
_BLOCK_RANGE = 8.0  # the shared exponent's bits: values of one block differ less than those of a tensor


@dataclass(frozen=True, slots=True)
class Placement:
    """``weights`` [u, d] of the table's configurations, which sum to 1; the ``deviation`` [u] they leave.

    1.6449 deviations reach as far as 90 % of what was missed on the table at the same distance.
    """

    weights: NDArray[np.float64]
    deviation: NDArray[np.float64]


def describe(fmt: Format) -> tuple[float, float]:
    """Bits of precision and of range (base-2 logarithm of the number of binades).

    >>> from peppp.formats import parse_format
    >>> describe(FloatFormat(4, 3)), describe(parse_format("int8"))
    ((3.0, 4.0), (6.0, 3.0))
    """
    if isinstance(fmt, FloatFormat):
        return float(fmt.mantissa_bits), float(fmt.exponent_bits)
    if isinstance(fmt, ScaledFormat):  # of one scale, which adds no range within a tensor
        return describe(fmt.element)
    if isinstance(fmt, (BlockFormat, TwoLevelFormat)):
        return float(fmt.element.mantissa_bits), min(fmt.element.exponent_bits + 2.0, _BLOCK_RANGE)
    # The largest integers have all bits but the sign and the leading one as precision, smaller ones fewer.
    return fmt.bits - 2.0, math.log2(fmt.bits)


HARDWARE: tuple[Format, ...] = tuple(
    FloatFormat.parse(text) for text in ("1-4-3@ocp", "1-5-2@ocp", "fp16", "bf16")
)


def nearest_hardware(fmt: Format) -> Format:
    """The hardware format nearest to one: enough range first, then the closest precision, then fewer bits.

    >>> str(nearest_hardware(FloatFormat(4, 3))), str(nearest_hardware(FloatFormat(6, 7)))
    ('1-4-3@ocp', '1-8-7@ieee')
    """
    precision, span = describe(fmt)

    def distance(other: Format) -> tuple[float, float, float]:
        its_precision, its_span = describe(other)
        return max(span - its_span, 0.0), abs(its_precision - precision), float(other.bits)

    return min(HARDWARE, key=distance)


def place(
    unseen: Sequence[Configuration],
    seen: Sequence[Configuration],
    values: NDArray[np.float64],
    observed: NDArray[np.bool_],
) -> Placement:
    """How configurations that the table lacks are made of those ``seen`` [d], judged on a table [n, d].

    ``values`` are complete (estimated where not ``observed``); misses count where they are observed.

    >>> from peppp.formats import paper_grid
    >>> grid = paper_grid()
    >>> E = np.array([[0.05 * (4 - c.format_a.mantissa_bits) for c in grid]] * 3)
    >>> placed = place([Configuration.parse("1-4-3@ocp/bf16")], grid, E, E >= 0)
    >>> (placed.weights @ E[0]).round(2)
    array([0.05])
    """
    here, there = (np.array([point(c) for c in side]) for side in (seen, unseen))
    groups = np.unique([str(c.format_a) for c in seen], return_inverse=True)[1]
    if groups.max(initial=0) < 2:
        groups = np.arange(len(here))
    best, least, relative = _LENGTHS[0], math.inf, np.array([math.inf])
    for length in _LENGTHS:
        squares: list[NDArray[np.float64]] = []
        distances: list[NDArray[np.float64]] = []
        for group in np.unique(groups):
            out = groups == group
            if out.all():
                continue
            weights, deviation = _kriging(here[out], here[~out], length)
            missed = values[:, ~out] @ weights.T - values[:, out]
            squares.append((missed**2)[observed[:, out]])
            distances.append((np.abs(missed) / deviation)[observed[:, out]])
        if squares and (mean := float(np.concatenate(squares).mean())) < least:
            best, least, relative = length, mean, np.concatenate(distances)
    weights, deviation = _kriging(there, here, best)
    return Placement(weights, deviation * float(np.quantile(relative, 0.9)) / 1.6449)


def point(configuration: Configuration) -> tuple[float, ...]:
    """A configuration's place: precision, range and kind of Format A, then of Format B.

    Bits count less the more there are, as what rounding and underflow cost saturates: far beyond the table a
    format is predicted like its most precise ones. Formats with a scale (integers, blocks) lie apart from
    floats of equal bits: nothing in a table of floats says that they train alike, so their intervals are
    wider.
    """
    place: list[float] = []
    for side in (configuration.format_a, configuration.format_b):
        precision, span = describe(side)
        place += [4 * (1 - 2 ** (-precision / 2)), 8 * (1 - 2 ** (-span / 4))]
        place.append(0.0 if isinstance(side, FloatFormat) else _APART)
    return tuple(place)


def _kriging(
    there: NDArray[np.float64], here: NDArray[np.float64], length: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights of ordinary kriging, which sum to 1 as the mean is unknown; its deviations up to a scale."""
    scale = length * np.array([1.0, 1.0, 1.0, 3.0, 3.0, 3.0])  # Format B matters less

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        apart = ((a[:, None] - b[None]) / scale) ** 2
        return np.asarray(np.exp(-0.5 * apart.sum(axis=2)))

    K = np.zeros((len(here) + 1, len(here) + 1))
    K[:-1, :-1] = kernel(here, here) + _NUGGET * np.eye(len(here))
    K[-1, :-1] = K[:-1, -1] = 1.0
    right = np.ones((len(here) + 1, len(there)))
    right[:-1] = kernel(here, there)
    solved = scipy.linalg.solve(K, right, assume_a="sym")
    variance = 1.0 + _NUGGET - (solved * right).sum(axis=0)
    return np.asarray(solved.T[:, :-1]), np.sqrt(np.maximum(variance, _NUGGET))
