"""How sure the predictions for one new task are: calibrated intervals and probabilities, whatever predicts.

The Gaussian of :mod:`peppp.metalearn.posterior` says which predictions are surer than others and how they
hang together, the table's own tasks (:mod:`peppp.metalearn.calibration`) by how much in all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from peppp.formats import Configuration
from peppp.metalearn.automatic import choose_method
from peppp.metalearn.calibration import Calibration, calibrate
from peppp.metalearn.completion import Completion
from peppp.metalearn.descriptors import place
from peppp.metalearn.inner import Fold, inner_folds
from peppp.metalearn.methods import prior_of
from peppp.metalearn.posterior import Posterior, chance_of_change, near_best, on_frontier
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
        if self.near_best is None or self.change is None:
            return ""
        if self.near_best[best] >= until_sure:
            return f"after {counted(count)} the choice is sure enough ({self.near_best[best]:.0%})"
        # Before the embedding is determined a single measurement seems to tell less than it does.
        if count >= rank and self.change <= 1 - until_sure:
            return f"after {counted(count)} another one would hardly change the choice ({self.change:.0%})"
        return ""


def counted(count: int) -> str:
    """``1 measurement``, ``2 measurements``."""
    return f"{count} measurement{'' if count == 1 else 's'}"


class Knowledge:
    """What a completed table says about how well a new task of some memory [d] can be predicted.

    ``columns`` are the table's columns that the new task has, ``families`` [n] the table's, ``measurable``
    [d] what may be measured on the new task. What is costly is found when first asked for, and kept.
    """

    def __init__(
        self,
        completion: Completion,
        columns: Sequence[int],
        families: Sequence[str],
        memory: NDArray[np.float64],
        measurable: NDArray[np.bool_],
    ) -> None:
        self._completion, self._columns, self._families = completion, list(columns), families
        self._values, self._known = completion.estimate[:, self._columns], completion.known[:, self._columns]
        self._memory, self._measurable = memory, measurable
        self._calibrations: dict[tuple[str, int], Calibration] = {}

    @cached_property
    def _folds(self) -> list[Fold]:
        rank, groups = self._completion.configuration_embeddings.shape[1], self._completion.groups
        return inner_folds(
            self._values, self._known, self._families, rank=rank, shrinkage=self._completion.shrinkage,
            groups=None if groups is None else groups[self._columns],
        )  # fmt: skip

    @property
    def prior(self) -> Posterior:
        """The belief before any measurement."""
        return prior_of(self._completion).take(self._columns)

    def calibration(self, method: str, count: int) -> Calibration:
        """How far the method misses after ``count`` measurements."""
        key = (method, count)
        if key not in self._calibrations:
            self._calibrations[key] = calibrate(
                self._values, self._known, self._folds, method, count,
                memory=self._memory, feasible=self._measurable,
            )  # fmt: skip
        return self._calibrations[key]

    def unseen(
        self,
        configurations: Sequence[Configuration],
        seen: Sequence[Configuration],
        estimate: NDArray[np.float64],
        belief: Belief,
        scale: float = 1.0,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Error [u] and the ends [u] of its 90 % interval at configurations that the table lacks.

        Its estimates [d] are interpolated (:mod:`peppp.metalearn.descriptors`). Intervals reach as far as
        what is interpolated between is uncertain, together with what interpolation misses on the table, more
        the further a configuration lies from the table's.
        """
        placed = place(configurations, seen, self._values, self._known)
        errors = np.clip(placed.weights @ estimate, 0.0, 1.0)
        if belief.covariance is None:
            return errors, np.zeros(len(errors)), np.ones(len(errors))
        variance = np.einsum("uj,jk,uk->u", placed.weights, belief.covariance, placed.weights)
        reach = GAUSSIAN_90 * np.sqrt(np.maximum(variance, 0.0) + (scale * placed.deviation) ** 2)
        return errors, np.clip(errors - reach, 0.0, 1.0), np.clip(errors + reach, 0.0, 1.0)

    def choose(self, count: int) -> str:
        """The method that the table's own tasks speak for."""
        return choose_method(
            self._values, self._known, self._folds, [count], memory=self._memory, feasible=self._measurable
        )[0]

    @single_thread()
    def believe(
        self,
        method: str,
        measured: Sequence[int],
        errors: NDArray[np.float64],
        estimate: NDArray[np.float64],
        *,
        feasible: NDArray[np.bool_],
        scale: float = 1.0,
        tolerance: float = 0.01,
    ) -> Belief:
        """How sure an ``estimate`` [d] is after the ``measured`` configurations (indices) had ``errors`` [l].

        The errors and the estimate are multiples of ``scale``, as are the table's; what is returned is not.
        A measured error is known; its interval is that of another run, at most as wide as what no other
        configuration tells.
        """
        S = list(measured)
        prior = self.prior
        posterior = prior.given(S, errors / scale)
        calibration = self.calibration(method, len(S))
        quantile = calibration.quantile()
        if not np.isfinite(quantile):
            return Belief(np.zeros(len(estimate)), np.ones(len(estimate)), None, None, None)
        reach = scale * quantile * posterior.deviation
        if prior.noise is not None:
            reach[S] = (scale * GAUSSIAN_90 * np.sqrt(prior.noise))[S]
        samples = estimate + scale * calibration.inflation * (posterior.sample(_SAMPLES) - posterior.mean)
        samples = np.clip(samples, 0.0, 1.0)
        samples[:, S] = errors
        believed = np.array(estimate)
        believed[S] = errors
        covariance = (scale * calibration.inflation) ** 2 * posterior.covariance
        return Belief(
            np.clip(believed - reach, 0.0, 1.0),
            np.clip(believed + reach, 0.0, 1.0),
            on_frontier(samples, self._memory, feasible),
            near_best(samples, feasible, tolerance),
            chance_of_change(believed, covariance, self._measurable, feasible, tolerance),
            covariance,
        )
