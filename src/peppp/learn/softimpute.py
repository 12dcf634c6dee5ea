"""SoftImpute: fill in a partly observed matrix by one of low rank.

SoftImpute (Mazumder et al., 2010; the paper's Algorithm 1, Appendix B) solves

    minimise  1/2 (sum over observed ij of W_ij (E_ij - Z_ij)^2)  +  shrinkage (sum of Z's singular values)

by proximal gradient steps. A step of size t has the threshold ``shrinkage * t``. With t = 1 this is Algorithm
1; larger steps, found by the backtracking of TFOCS (Becker et al., 2011) as in the paper, need fewer
iterations.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from peppp.arguments import checked, matrix_of
from peppp.errors import ArgumentError
from peppp.learn.threads import single_thread

# TFOCS's factors on the inverse step size: at each iteration, and after a step that was too long.
_SHRINK, _GROW = 0.9, 2.0
# The next step starts from this many singular vectors more than were kept, so that it can keep more.
_SPARE = 4


@checked
@single_thread()
def soft_impute(
    values: NDArray[np.float64],
    observed: NDArray[np.bool_],
    *,
    shrinkage: float = 0.1,
    weights: NDArray[np.float64] | None = None,
    start: NDArray[np.float64] | None = None,
    accelerate: bool = True,
    tolerance: float = 1e-4,
    iterations: int = 1000,
) -> NDArray[np.float64]:
    """A low-rank estimate [n, d] of ``values`` [n, d], known where ``observed`` [n, d] is true (Algorithm 1).

    ``shrinkage`` is the paper's lambda, an absolute number. ``weights`` [n, d] (inverse sampling
    probabilities, see :func:`inverse_propensity`; Ma and Chen, 2019) are normalised to mean 1 over the
    observed entries, so that lambda keeps its meaning. ``start`` [n, d] is the first estimate (default:
    zero). The iteration stops when a step changes the estimate by at most ``tolerance`` of its norm, or after
    ``iterations``.

    ``accelerate`` adds Nesterov's momentum, restarted when it points uphill (O'Donoghue and Candes, 2015).
    This is a few times faster, but only the plain step never raises the objective.

    Raises ValueError if shapes differ, nothing is observed, an observed value or the start is not finite, or
    an observed weight is not positive and finite.

    >>> E = np.outer([1.0, 0.5], [0.4, 0.8])
    >>> soft_impute(E, np.array([[True, True], [True, False]]), shrinkage=1e-3).round(2)
    array([[0.4, 0.8],
           [0.2, 0.4]])
    """
    E, W, Z = _prepared(values, observed, weights, start)  # [n, d] each; W is zero where nothing is observed
    if not (0 <= shrinkage < np.inf and 0 <= tolerance < np.inf):
        raise ArgumentError(f"shrinkage and tolerance are 0 or more, not {shrinkage} and {tolerance}")
    previous = Z
    largest = float(W.max())  # Lipschitz constant of the smooth part's gradient: 1 / largest is always safe
    inverse_step, theta = largest, 1.0
    span: NDArray[np.float64] | None = None
    for _ in range(iterations):
        last_inverse_step, last_theta = inverse_step, theta
        inverse_step = max(_SHRINK * inverse_step, 1e-6 * largest)
        while True:
            if accelerate:  # TFOCS's theta accounts for the ratio of successive step sizes
                theta = 2 / (1 + sqrt(1 + 4 * (inverse_step / last_inverse_step) / last_theta**2))
            Y = Z + theta * (1 / last_theta - 1) * (Z - previous)  # Z itself without momentum
            shrunk = _shrink(Y - W * (Y - E) / inverse_step, shrinkage / inverse_step, span)
            estimate = shrunk.estimate
            # The smooth part is quadratic: a step is short enough if the curvature along it is at most 1 / t.
            change = estimate - Y
            squared = float(np.vdot(change, change))
            curvature = float(np.vdot(W * change, change)) / squared if squared > 0 else 0.0
            if curvature <= inverse_step or inverse_step >= largest:
                break
            inverse_step = min(largest, max(curvature, _GROW * inverse_step))
        if accelerate and np.vdot(Y - estimate, estimate - Z) > 0:
            theta = 1.0
        previous, Z = Z, estimate
        # Singular vectors change little between steps, so the next step starts from these. Plain steps are
        # exact, because they must never raise the objective.
        span = shrunk.span if accelerate else None
        if np.linalg.norm(Z - previous) <= tolerance * np.linalg.norm(Z):
            if shrunk.exact:
                break
            span = None  # make the last step exact
    return Z


@dataclass(frozen=True, slots=True)
class _Shrunk:
    """``estimate`` [n, d], whether it is exact, and a ``span`` [min(n, d), s] to start the next step from."""

    estimate: NDArray[np.float64]
    exact: bool
    span: NDArray[np.float64] | None


def _shrink(Z: NDArray[np.float64], threshold: float, span: NDArray[np.float64] | None = None) -> _Shrunk:
    """Reduce the singular values of Z by the threshold, at most to zero: the paper's U S_lambda(S) V^T.

    With the eigenvectors U of Z Z^T, this is U (S_lambda(S) / S) U^T Z, which is twice as fast as a
    decomposition of Z. Squaring costs digits of small singular values only, which the threshold removes.

    A ``span`` that nearly contains the kept columns of U gives nearly the same result in a third of that
    time, by one step of subspace iteration (Halko et al., 2011, algorithm 4.4). It is not used if it may be
    too narrow.
    """
    if len(Z) > Z.shape[1]:
        turned = _shrink(Z.T, threshold, span)
        return _Shrunk(turned.estimate.T, turned.exact, turned.span)
    if span is not None:
        Q = np.linalg.qr(Z @ (Z.T @ span))[0]
        within = Q.T @ Z
        squares, V = np.linalg.eigh(within @ within.T)
        if squares[0] <= threshold**2:  # the span contains all that is kept, and more
            return _keep(Z, squares, Q @ V, threshold, exact=False)
    return _keep(Z, *np.linalg.eigh(Z @ Z.T), threshold, exact=True)


def _keep(
    Z: NDArray[np.float64],
    squares: NDArray[np.float64],
    U: NDArray[np.float64],
    threshold: float,
    *,
    exact: bool,
) -> _Shrunk:
    S = np.sqrt(np.maximum(squares, 0.0))  # ascending
    first = int((threshold >= S).sum())
    kept = U[:, first:]
    estimate = (kept * (1.0 - threshold / S[first:])) @ (kept.T @ Z)
    span = U[:, max(0, first - _SPARE) :]
    # A span of more than half of the dimensions saves no time.
    return _Shrunk(np.asarray(estimate), exact, span if 2 * span.shape[1] < len(Z) else None)


def _prepared(
    values: NDArray[np.float64],
    observed: NDArray[np.bool_],
    weights: NDArray[np.float64] | None,
    start: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """P_Omega(E), its weights, and the first estimate, as new arrays."""
    mask = np.asarray(observed, dtype=bool)
    shapes = {np.shape(array) for array in (values, mask, weights, start) if array is not None}
    if len(shapes) != 1 or mask.ndim != 2:
        raise ArgumentError(f"values, observed, weights and start must have one shape [n, d], not {shapes}")
    if not mask.any():
        raise ArgumentError("nothing is observed, so nothing can be completed")
    E = np.where(mask, values, 0.0)
    W = np.where(mask, 1.0 if weights is None else weights, 0.0)
    Z = np.zeros(E.shape) if start is None else np.array(start, dtype=np.float64)
    matrix_of(E, "observed values")
    matrix_of(Z, "the first estimate's numbers")
    if not ((W < 1e100).all() and (W[mask] > 1e-100).all()):
        raise ArgumentError("weights must be positive and finite wherever a value is observed")
    return E, W / W[mask].mean(), Z
