"""How sure the predictions for one new task are: calibrated intervals and probabilities, whatever predicts.

The Gaussian of :mod:`peppp.metalearn.posterior` says which predictions are surer than others and how they
hang together, the table's own tasks (:mod:`peppp.metalearn.calibration`) by how much in all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peppp.formats import Configuration
from peppp.labels import plain
from peppp.metalearn.calibration import Calibration
from peppp.metalearn.completion import Completion
from peppp.metalearn.descriptors import place
from peppp.metalearn.methods import Task, Told, kept, prior_of
from peppp.metalearn.posterior import chance_of_change, near_best, on_frontier
from peppp.metalearn.threads import single_thread

GAUSSIAN_90 = 1.6449
_SAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Belief:
    """About each of d configurations of a new task, and about the choice among them.

    ``low`` and ``high`` [d] are 90 % intervals of the error; ``on_frontier`` and ``near_best`` [d] the
    probabilities that a configuration is Pareto optimal within the budget, and that it errs no more than the
    tolerance above the best within the budget; ``covariance`` [d, d] is that of the errors, as wide as the
    intervals; ``change`` is the probability that the most telling further measurement would
    change the choice for one better by more than the tolerance. Probabilities are None, and intervals all of
    [0, 1], where the table has fewer than three rows to learn from.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    on_frontier: NDArray[np.float64] | None
    near_best: NDArray[np.float64] | None
    change: float | None
    covariance: NDArray[np.float64] | None = None

    def enough(self, best: int, until_sure: float, count: int, rank: int) -> str:
        """Why ``count`` measurements suffice to choose the configuration ``best``; nothing if they do not.

        They do if the choice is sure enough, or if another one would hardly change it.
        """
        if self.near_best is None:
            return ""
        if self.near_best[best] >= until_sure:
            return f"after {counted(count)} the choice is sure enough ({self.near_best[best]:.0%})"
        # Before the embedding is determined a single measurement seems to tell less than it does.
        if count >= rank and self.change is not None and self.change <= 1 - until_sure:
            return f"after {counted(count)} another one would hardly change the choice ({self.change:.0%})"
        return ""


def counted(count: int) -> str:
    """``1 measurement``, ``2 measurements``."""
    return f"{count} measurement{'' if count == 1 else 's'}"


@single_thread()
def believe(
    learned: Completion,
    task: Task,
    told: Told,
    estimate: NDArray[np.float64],
    calibration: Calibration,
    tolerance: float = 0.01,
) -> Belief:
    """How sure an ``estimate`` [d] is after the errors ``told``, by how far such estimates miss.

    A measured error is known; its interval is that of another run, at most as wide as what no other
    configuration tells.
    """
    S, errors, scale = list(told), np.array(list(told.values())), task.scale
    prior = prior_of(learned)
    posterior = prior.given(S, errors / scale)
    quantile = calibration.quantile()
    if not np.isfinite(quantile):
        return Belief(np.zeros(len(estimate)), np.ones(len(estimate)), None, None, None)
    reach = scale * quantile * posterior.deviation
    if prior.noise is not None:
        reach[S] = (scale * GAUSSIAN_90 * np.sqrt(prior.noise))[S]
    samples = estimate + scale * calibration.inflation * (posterior.sample(_SAMPLES) - posterior.mean)
    samples = np.clip(samples, 0.0, 1.0)
    samples[:, S] = errors
    believed = kept(estimate, told)
    covariance = (scale * calibration.inflation) ** 2 * posterior.covariance
    return Belief(
        np.clip(believed - reach, 0.0, 1.0),
        np.clip(believed + reach, 0.0, 1.0),
        on_frontier(samples, task.memory, task.feasible),
        near_best(samples, task.feasible, tolerance),
        chance_of_change(believed, covariance, task.measurable, task.feasible, tolerance),
        covariance,
    )


def unseen(
    learned: Completion,
    task: Task,
    configurations: Sequence[Configuration],
    errors: NDArray[np.float64],
    belief: Belief,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Error [u] and the ends [u] of its 90 % interval at configurations that the table lacks.

    The ``errors`` [d] at its own are interpolated (:mod:`peppp.metalearn.descriptors`). Intervals reach as
    far as what is interpolated between is uncertain, together with what interpolation misses on the table,
    more the further a configuration lies from the table's.
    """
    placed = place(configurations, plain(learned.columns), learned.estimate, learned.observed)
    found = np.clip(placed.weights @ errors, 0.0, 1.0)
    if belief.covariance is None:
        return found, np.zeros(len(found)), np.ones(len(found))
    variance = np.einsum("uj,jk,uk->u", placed.weights, belief.covariance, placed.weights)
    reach = GAUSSIAN_90 * np.sqrt(np.maximum(variance, 0.0) + (task.scale * placed.deviation) ** 2)
    return found, np.clip(found - reach, 0.0, 1.0), np.clip(found + reach, 0.0, 1.0)
