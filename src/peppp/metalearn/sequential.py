"""Which configuration to measure next, given what is believed of all errors: four designs.

=============  ==========================================================================================
i-optimal      lowers the summed variance of all feasible configurations most (Cohn, 1996)
frontier       the same, each weighted by its probability of being Pareto optimal
ehvi           raises the area that measured configurations dominate most, in expectation (Emmerich, 2006)
ei             lowers the least measured feasible error most, in expectation (Mockus, 1978)
=============  ==========================================================================================

Not in the paper.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from peppp.metalearn.bayesopt import expected_improvement
from peppp.metalearn.posterior import Posterior, on_frontier
from peppp.metalearn.threads import single_thread

Design = Literal["i-optimal", "frontier", "ehvi", "ei"]
DESIGNS: tuple[Design, ...] = ("i-optimal", "frontier", "ehvi", "ei")
_SAMPLES = 200


@single_thread()
def propose(
    prior: Posterior,
    told: Mapping[int, float],
    design: Design,
    count: int,
    *,
    memory: NDArray[np.float64],
    measurable: NDArray[np.bool_],
    feasible: NDArray[np.bool_],
) -> list[int]:
    """The next ``count`` configurations to measure, the most useful first: indices.

    ``told`` are the errors known so far, by index; ``memory`` [d]; ``measurable`` and ``feasible`` [d] say
    what may be measured and what may be chosen. To measure several at once, each is taken as if the ones
    before it had come out as expected. Fewer are returned where no more may be measured.

    >>> covariance = np.array([[0.02, 0.019, 0], [0.019, 0.02, 0], [0, 0, 0.01]])
    >>> prior = Posterior(np.array([0.5, 0.5, 0.5]), covariance)
    >>> all_three = np.array([True, True, True])
    >>> propose(prior, {}, "i-optimal", 2, memory=np.array([1.0, 2.0, 3.0]), measurable=all_three,
    ...     feasible=all_three)
    [0, 2]
    """
    believed = dict(told)
    chosen: list[int] = []
    for _ in range(count):
        open_to = measurable & ~np.isin(np.arange(len(memory)), list(believed))
        if not open_to.any():
            break
        posterior = prior.given(list(believed), np.array(list(believed.values())))
        gain = _gain(design, posterior, believed, memory, feasible)
        best = int(np.where(open_to, gain, -np.inf).argmax())
        chosen.append(best)
        believed[best] = float(np.clip(posterior.mean[best], 0.0, 1.0))
    return chosen


def _gain(
    design: Design,
    posterior: Posterior,
    believed: Mapping[int, float],
    memory: NDArray[np.float64],
    feasible: NDArray[np.bool_],
) -> NDArray[np.float64]:
    if design == "ehvi":
        return hypervolume_gain(posterior, believed, memory, feasible)
    if design == "ei":
        least = min((error for j, error in believed.items() if feasible[j]), default=1.0)
        return feasible * expected_improvement(posterior.mean, posterior.deviation, least, xi=0.0)
    weights = feasible.astype(np.float64)
    if design == "frontier":
        weights = on_frontier(posterior.sample(_SAMPLES), memory, feasible)
    variance = np.maximum(np.diag(posterior.covariance), 1e-12)
    return np.asarray((weights @ posterior.covariance**2) / variance)


def hypervolume_gain(
    posterior: Posterior,
    believed: Mapping[int, float],
    memory: NDArray[np.float64],
    feasible: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """By how much measuring each configuration is expected to raise the dominated area: [d].

    The area between a new point and the frontier of what is ``believed`` is a sum over steps of memory, and
    on each the expectation is that of an improvement below the step: exact for a Gaussian, no sampling.

    >>> sure = Posterior(np.array([0.5, 0.25]), np.zeros((2, 2)))
    >>> hypervolume_gain(sure, {0: 0.5}, np.array([1.0, 2.0]), np.array([True, True])).round(6)
    array([0., 0.])
    >>> hypervolume_gain(sure, {}, np.array([1.0, 2.0]), np.array([True, True])).round(6)
    array([0.25, 0.  ])
    """
    largest = memory[feasible].max()
    share = memory / largest
    levels = np.unique(share[feasible])  # [s]
    widths = np.diff(levels, append=1.0)
    curve = np.ones(len(levels))
    for j, error in believed.items():
        if feasible[j]:
            curve[levels >= share[j]] = np.minimum(curve[levels >= share[j]], error)
    mean, deviation = posterior.mean, posterior.deviation
    gains = np.column_stack([expected_improvement(mean, deviation, step, xi=0.0) for step in curve])  # [d, s]
    reached = levels[None] >= share[:, None]
    return np.asarray(((gains * reached) @ widths) * feasible)
