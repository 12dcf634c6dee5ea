"""D-optimal design by convex relaxation: Problem 2 of Appendix C, beside the greedy Algorithm 2.

    maximise  log det (sum over j of v_j y_j y_j^T)  over  0 <= v <= 1,  sum v <= l,  v = 0 where infeasible

and measure the l configurations with the largest v.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike, NDArray

from peppp.metalearn.design import candidates, spanned
from peppp.metalearn.threads import single_thread


@dataclass(frozen=True, slots=True)
class RelaxedDesign:
    """The relaxed problem's solution ``weights`` [d] and the configurations ``chosen`` [l] by it."""

    weights: NDArray[np.float64]
    chosen: NDArray[np.intp]


@single_thread()
def relaxed_d_optimal(
    embeddings: NDArray[np.float64],
    count: int,
    *,
    feasible: ArrayLike | None = None,
    solver: Literal["multiplicative", "slsqp"] = "multiplicative",
) -> RelaxedDesign:
    """The relaxed D-optimal design of ``count`` configurations, the largest weights first.

    ``slsqp`` is the paper's solver (with exact gradients); ``multiplicative`` the update of Silvey,
    Titterington and Torsney (1978), which multiplies each weight by its share of the gradient and puts what
    exceeds 1 on the others: several times faster, with the same objective. Embeddings [d, k] and the feasible
    set are those of :func:`peppp.metalearn.design.d_optimal`, and so is what happens to a span of less than k
    dimensions.

    >>> design = relaxed_d_optimal(np.array([[1.0, 0.0], [0.9, 0.0], [0.0, 0.5], [0.0, 0.4]]), 2)
    >>> design.weights.round(2), sorted(design.chosen.tolist())
    (array([1., 0., 1., 0.]), [0, 2])
    """
    allowed = candidates(embeddings, feasible)
    count = min(count, len(allowed))
    Y = spanned(embeddings[allowed, : min(embeddings.shape[1], count)])  # [c, rank]
    if count == len(allowed):
        v = np.ones(len(allowed))
    elif solver == "slsqp":
        v = _slsqp(Y, count)
    elif solver == "multiplicative":
        v = _multiplicative(Y, count)
    else:
        raise ValueError(f"the solver is multiplicative or slsqp, not {solver!r}")
    weights = np.zeros(len(embeddings))
    weights[allowed] = v
    return RelaxedDesign(weights, np.asarray(allowed[np.argsort(-v, kind="stable")[:count]]))


def _slsqp(Y: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    c = len(Y)

    def negative(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        X = (Y.T * v) @ Y
        return -float(np.linalg.slogdet(X)[1]), -_gradient(Y, X)

    found = scipy.optimize.minimize(
        negative,
        np.full(c, count / c),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * c,
        constraints={"type": "ineq", "fun": lambda v: count - v.sum(), "jac": lambda v: -np.ones(c)},
        options={"maxiter": 200, "ftol": 1e-8},
    )
    return np.asarray(np.clip(found.x, 0.0, 1.0))  # SLSQP oversteps bounds by rounding errors


def _multiplicative(Y: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    v = np.full(len(Y), count / len(Y))
    for _ in range(5000):
        gradient = _gradient(Y, (Y.T * v) @ Y)
        # Concave: no design is better by more than the best feasible step along the gradient promises.
        promised = np.sort(gradient)[-count:].sum() - gradient @ v
        if promised < 1e-4:
            break
        v = _capped(v * gradient, count)
    return v


def _gradient(Y: NDArray[np.float64], X: NDArray[np.float64]) -> NDArray[np.float64]:
    """y_j^T X^-1 y_j: the derivative of log det X by v_j."""
    return np.asarray((Y * np.linalg.solve(X, Y.T).T).sum(axis=1))


def _capped(v: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    """V scaled to the sum ``total`` with no entry above 1; entries that would exceed it stand at 1."""
    full = np.zeros(len(v), dtype=bool)
    while True:
        scaled = np.where(full, 1.0, v * (total - full.sum()) / v[~full].sum())
        over = scaled > 1.0
        if not over.any():
            return np.asarray(scaled)
        full |= over
