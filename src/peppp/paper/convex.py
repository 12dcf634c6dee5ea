"""D-optimal design by convex relaxation (Problem 2 of Appendix C), the alternative to greedy Algorithm 2.

    maximise  log det (sum over j of v_j y_j y_j^T)  over  0 <= v <= 1,  sum v <= l,  v = 0 where infeasible

The design consists of the l configurations with the largest v.
"""

from dataclasses import dataclass

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike, NDArray

from peppp.learn.design import candidates, spanned
from peppp.learn.threads import single_thread


@dataclass(frozen=True, slots=True)
class RelaxedDesign:
    """The solution ``weights`` [d] of the relaxed problem, and the indices ``chosen`` [l] of the largest."""

    weights: NDArray[np.float64]
    chosen: NDArray[np.intp]


@single_thread()
def relaxed_d_optimal(
    embeddings: NDArray[np.float64],
    count: int,
    *,
    feasible: ArrayLike | None = None,
) -> RelaxedDesign:
    """Choose ``count`` configurations by the relaxed D-optimal design, those of largest weight first.

    The solver is SLSQP, as in the paper, but with exact gradients. ``embeddings`` [d, k] and ``feasible`` [d]
    mean the same as in :func:`peppp.learn.design.d_optimal`. As there, the design is optimal within the span
    of the feasible embeddings if they span less than k dimensions, fewer feasible configurations than
    ``count`` are all chosen, and BudgetError is raised if there are none.

    >>> design = relaxed_d_optimal(np.array([[1.0, 0.0], [0.9, 0.0], [0.0, 0.5], [0.0, 0.4]]), 2)
    >>> design.weights.round(2), sorted(design.chosen.tolist())
    (array([1., 0., 1., 0.]), [0, 2])
    """
    allowed = candidates(embeddings, feasible)
    count = min(count, len(allowed))
    Y = spanned(embeddings[allowed, : min(embeddings.shape[1], count)])  # [c, rank]
    v = np.ones(len(allowed)) if count == len(allowed) else _slsqp(Y, count)
    weights = np.zeros(len(embeddings))
    weights[allowed] = v
    return RelaxedDesign(weights, np.asarray(allowed[np.argsort(-v, kind="stable")[:count]]))


def _slsqp(Y: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    c = len(Y)

    def negative(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        X = (Y.T * v) @ Y
        gradient = (Y * np.linalg.solve(X, Y.T).T).sum(axis=1)  # y_j^T X^-1 y_j
        return -float(np.linalg.slogdet(X)[1]), -gradient

    found = scipy.optimize.minimize(
        negative,
        np.full(c, count / c),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * c,
        constraints={"type": "ineq", "fun": lambda v: count - v.sum(), "jac": lambda v: -np.ones(c)},
        options={"maxiter": 200, "ftol": 1e-8},
    )
    return np.asarray(np.clip(found.x, 0.0, 1.0))  # SLSQP may exceed the bounds by rounding errors
