"""A synthetic table of the paper's shape, with invented errors and real footprints.

It serves tests and trying out the commands, and is labelled synthetic wherever it is shown. Nothing it shows
is evidence for or against a claim of the paper.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peppp.formats import Configuration, FloatFormat, paper_grid
from peppp.records import Footprint, Measurement, Outcome, Recipe

if TYPE_CHECKING:
    from peppp.footprint.counting import ElementCounts

NETWORKS = ("resnet34", "resnet8")
RATES = (0.01, 0.0001)


def synthetic_table(
    tasks: int = 87, *, seed: int = 0, noise: float = 0.012, further: bool = True
) -> list[Measurement]:
    """Invent measurements of ``tasks`` tasks at the paper's 99 configurations (the paper has 87 tasks).

    Each task has a least error that it can reach, a number of classes, and needs of exponent and mantissa
    bits; the less a configuration meets these needs, the closer the error comes to chance. Every fourth task
    has 32 pixels per side, the others 64. Five tasks form a family with similar needs. Errors have normal
    noise of standard deviation ``noise``, which is five times larger in about one of twenty trainings.

    ``further`` adds, for the first tasks, a second seed, rounding to nearest, two more learning rates, 100
    epochs and two more networks, as the figures of Appendix E need.

    >>> table = synthetic_table(2, further=False)
    >>> len(table), table[0].task, table[0].provenance["synthetic"]
    (198, 'synthetic-01', 'invented errors')
    """
    grid = paper_grid()
    base = Recipe(network="resnet18")
    kinds: list[tuple[Recipe, int, int, float, float]] = [(base, 0, tasks, 0.0, 0.0)]
    if further:
        kinds += [
            (base, 1, 4, 0.0, 0.0),
            (replace(base, rounding="nearest"), 0, 12, 0.6, 0.0),
            *(
                (replace(base, learning_rate=rate), 0, 6, 0.3 if rate > 0.001 else 0.5, 0.05)
                for rate in RATES
            ),
            (replace(base, epochs=100), 0, 2, -0.2, -0.12),
            *((replace(base, network=network), 0, 6, 0.1, 0.03) for network in NETWORKS),
        ]
    return [
        measurement
        for number, (recipe, run, count, harder, higher) in enumerate(kinds)
        for i in range(min(count, tasks))
        for measurement in _row(i, recipe, run, grid, [seed, number, i], noise, harder, higher)
    ]


def _row(
    i: int,
    recipe: Recipe,
    run: int,
    grid: Sequence[Configuration],
    key: list[int],
    noise: float,
    harder: float,
    higher: float,
) -> Iterator[Measurement]:
    """The measurements of task i: its needs depend on i and the seed ``key[0]``, its noise on all ``key``."""
    resolution = 32 if i % 4 == 0 else 64
    errors, chance = _errors(i, grid, key[0], harder, higher)
    rng = np.random.default_rng([*key, run])
    scale = noise * np.where(rng.random(len(grid)) < 0.05, 5.0, 1.0)
    errors = np.clip(errors + scale * rng.normal(size=len(grid)), 0.0, 1.0)
    recipe = replace(recipe, resolution=resolution)
    for configuration, error in zip(grid, errors.tolist(), strict=True):
        yield Measurement(
            task=f"synthetic-{i + 1:02d}",
            fingerprint=f"synthetic-{key[0]}-{i + 1:02d}",
            group=f"synthetic-family-{i // 5 + 1:02d}",
            configuration=configuration,
            recipe=recipe,
            seed=run,
            chance_error=chance,
            test_error=error,
            train_error=error,
            curve=((recipe.epochs, error),),
            footprint=_footprint(recipe.network, resolution, configuration),
            outcome=Outcome.FINISHED,
            seconds=1.0,
            provenance={"synthetic": "invented errors"},
        )


def _errors(
    i: int, grid: Sequence[Configuration], seed: int, harder: float, higher: float
) -> tuple[NDArray[np.float64], float]:
    """The task's errors [d] without noise, and its chance error."""
    family, own = np.random.default_rng([seed, 1, i // 5]), np.random.default_rng([seed, 2, i])

    def need(mean: float, spread: float) -> float:
        return mean + spread * (0.8 * family.normal() + 0.6 * own.normal())

    floats = [[f for f in (c.format_a, c.format_b) if isinstance(f, FloatFormat)] for c in grid]
    bits = np.array([[n for f in pair for n in (f.exponent_bits, f.mantissa_bits)] for pair in floats])
    bits = bits - np.array([4, 2, 7, 9])
    z = need(-0.4, 0.9) + harder  # how far the middle configuration is from meeting the task's needs
    z = z - bits @ np.array([need(0.9, 0.35), need(0.45, 0.25), need(0.1, 0.1), need(0.05, 0.05)])
    z = z + need(0.12, 0.15) * bits[:, 0] * bits[:, 1]
    chance = 1.0 - 1.0 / float(own.choice([2, 5, 10, 20, 40]))
    reached = float(np.clip(own.uniform(0.2, 0.9) * chance + higher, 0.01, chance))
    return reached + (chance - reached) / (1.0 + np.exp(-2.0 * z)), chance


@cache
def _footprint(network: str, resolution: int, configuration: Configuration) -> Footprint:
    return _counts(network, resolution).footprint(configuration)


@cache
def _counts(network: str, resolution: int) -> "ElementCounts":
    from peppp.footprint.counting import count_elements
    from peppp.tasks import networks

    module = networks.build(network, classes=10, channels=3, device="meta")
    return count_elements(module, (3, resolution, resolution), batch_size=32)
