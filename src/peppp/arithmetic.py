"""Which measurements of an older arithmetic version the current version would reproduce bit for bit.

``ARITHMETIC_VERSION`` rises whenever a change could move any stored error. Most errors do not move, and rows
with these errors remain in use. Version 2 changed three things:

- It rounds what a user's own network computes in place, through views and in tuples.
- It computes strided 1x1 convolutions of few channels correctly.
- Its stochastic rounding keeps the low bits of a subnormal's fraction, and its formats with a scale keep
  infinity.
"""

import re
from collections.abc import Iterable
from dataclasses import fields, replace
from functools import lru_cache

from peppp.arguments import trusted
from peppp.floats import FloatFormat
from peppp.formats import parse_format
from peppp.precisions.known import Precision
from peppp.precisions.named import NamedPrecision
from peppp.records import ARITHMETIC_VERSION, Measurement, Recipe, RoundingModes

_RESNET = re.compile(r"resnet\d+-w(\d+)", re.ASCII)
_ENOUGH_CHANNELS = 16  # with fewer, torch's CPU library can get a strided 1x1 convolution wrong


@lru_cache(maxsize=4096)  # a table has many rows, but few recipes and configurations
def current_recipe(recipe: Recipe, configuration: Precision) -> Recipe:
    """Return the recipe with the current arithmetic version if it trains to the same bits, else unchanged.

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
    """Return the same recipe under each older arithmetic version."""
    return [replace(recipe, arithmetic_version=version) for version in range(1, ARITHMETIC_VERSION)]


def current(measurement: Measurement) -> Measurement:
    """Return the measurement with its recipe passed through :func:`current_recipe`."""
    recipe = current_recipe(measurement.recipe, measurement.configuration)
    if recipe.arithmetic_version == measurement.recipe.arithmetic_version:
        return measurement
    parts = {field.name: getattr(measurement, field.name) for field in fields(Measurement)}
    return trusted(Measurement, **(parts | {"recipe": recipe}))


def outdated(measurements: Iterable[Measurement]) -> int:
    """Count the measurements of another version that the current one would not reproduce."""
    return sum(current(m).recipe.arithmetic_version != ARITHMETIC_VERSION for m in measurements)


def outdated_note(count: int, place: object) -> str:
    """Return one line that says how many measurements in ``place`` are not used, and why."""
    are = "measurement is" if count == 1 else "measurements are"
    return (
        f"{count} {are} not used: {place} holds them from another arithmetic version, and version "
        f"{ARITHMETIC_VERSION} would not reproduce them; measure them again"
    )


def _same_network(name: str) -> bool:
    """Whether no change of version 2 affects a network; tests/test_arithmetic.py checks this."""
    if ":" in name:
        return False
    match = _RESNET.fullmatch(name)
    return match is None or int(match[1]) >= _ENOUGH_CHANNELS


def _same_rounding(recipe: Recipe, configuration: Precision) -> bool:
    """Whether versions 1 and 2 round to the same numbers in these formats.

    A subnormal of a stochastically rounded format with 5 or more mantissa bits may differ. With 6 or more
    exponent bits, subnormals are below 2^-30; ``benchmarks/remeasure.py`` counts the errors that moved.
    """
    if isinstance(configuration, NamedPrecision):  # version 1 had no named precisions
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
