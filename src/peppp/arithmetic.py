"""Which measurements of an older arithmetic version today's version would repeat bit for bit.

``ARITHMETIC_VERSION`` rises when a change could move any stored error. Most errors do not move, and their
rows go on serving. Version 2 rounds what a user's network computes in place, through views and in tuples. It
computes strided 1x1 convolutions of few channels correctly. In stochastic rounding it keeps the low bits of a
subnormal's fraction, and in formats that have a scale it keeps infinity.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from peppp.floats import FloatFormat
from peppp.formats import parse_format
from peppp.precisions.known import Precision
from peppp.precisions.named import NamedPrecision
from peppp.records import ARITHMETIC_VERSION, Measurement, Recipe, RoundingModes

_RESNET = re.compile(r"resnet\d+-w(\d+)", re.ASCII)
_ENOUGH_CHANNELS = 16  # into a strided 1x1 convolution, for torch's CPU library to be right


@lru_cache(maxsize=4096)  # a table has many rows, few recipes and few configurations
def current_recipe(recipe: Recipe, configuration: Precision) -> Recipe:
    """The recipe as today's version names it, if it trains to the same bits; else the recipe as it is.

    >>> from peppp import Configuration, Recipe
    >>> configuration = Configuration.parse("1-4-1/1-6-7")
    >>> current_recipe(Recipe(arithmetic_version=1), configuration) == Recipe()
    True
    >>> own = Recipe(network="mine:net", arithmetic_version=1)
    >>> current_recipe(own, configuration) == own
    True
    """
    if recipe.arithmetic_version != 1 or not _same_network(recipe.network):
        return recipe
    if not _same_rounding(recipe, configuration):
        return recipe
    return replace(recipe, arithmetic_version=ARITHMETIC_VERSION)


def older_recipes(recipe: Recipe) -> list[Recipe]:
    """The same recipe under each older version."""
    return [replace(recipe, arithmetic_version=version) for version in range(1, ARITHMETIC_VERSION)]


def current(measurement: Measurement) -> Measurement:
    """The measurement with :func:`current_recipe`."""
    recipe = current_recipe(measurement.recipe, measurement.configuration)
    return measurement if recipe is measurement.recipe else replace(measurement, recipe=recipe)


def outdated(measurements: Iterable[Measurement]) -> int:
    """How many are of another version and not the same under today's."""
    return sum(current(m).recipe.arithmetic_version != ARITHMETIC_VERSION for m in measurements)


def outdated_note(count: int, place: object) -> str:
    """One line that says how many measurements of a place are not used, and why."""
    are = "measurement is" if count == 1 else "measurements are"
    return (
        f"{count} {are} not used: {place} holds them from another arithmetic version than "
        f"{ARITHMETIC_VERSION}, which would not repeat them; measure them again"
    )


def _same_network(name: str) -> bool:
    """Whether a network never needed what version 2 does differently; see tests/test_arithmetic.py."""
    if ":" in name:
        return False
    match = _RESNET.fullmatch(name)
    return match is None or int(match[1]) >= _ENOUGH_CHANNELS


def _same_rounding(recipe: Recipe, configuration: Precision) -> bool:
    """Whether the formats round to the same numbers.

    A subnormal of a stochastically rounded format of 5 mantissa bits or more may differ. With 6 exponent bits
    or more there are such numbers only below 2^-30: ``benchmarks/remeasure.py`` counts the errors that moved.
    """
    if isinstance(configuration, NamedPrecision):  # younger than the first version
        return False
    if configuration.is_fp32:
        return True
    a, b = configuration.format_a, configuration.format_b
    errors = {"A": a, "B": b}.get(recipe.error_format) or parse_format(recipe.error_format)
    modes = RoundingModes.parse(recipe.rounding)
    roles = ((a, modes.values), (errors, modes.errors), (b, modes.gradient), (b, modes.states))
    return all(
        isinstance(fmt, FloatFormat)
        and (mode == "nearest" or fmt.mantissa_bits < 5 or fmt.exponent_bits >= 6)
        for fmt, mode in roles
    )
