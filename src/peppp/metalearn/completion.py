"""Matrix completion: a partly observed error matrix filled in, and what it says of each configuration.

SoftImpute (Mazumder et al., 2010; the paper's Algorithm 1, Appendix B) solves

    minimise  1/2 (sum over observed ij of W_ij (E_ij - Z_ij)^2)  +  shrinkage (sum of Z's singular values)

by proximal gradient steps: with step size t, thresholds are ``shrinkage * t``. t = 1 is Algorithm 1; larger
steps, found by the backtracking of TFOCS (Becker et al., 2011) as in the paper, need fewer of them.
"""

from dataclasses import dataclass, fields
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from peppp.errors import TableError
from peppp.metalearn.descriptors import equal_format_a
from peppp.metalearn.effects import row_and_column_effects
from peppp.metalearn.threads import single_thread
from peppp.tables import ErrorMatrix

# TFOCS's defaults: the inverse step size shrinks by the first at each iteration and grows by the second
# at each step that proves too long.
_SHRINK, _GROW = 0.9, 2.0
# Singular vectors beyond those kept that go along to the next step, so that one more may be kept there.
_SPARE = 4


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """A completed error matrix. Arrays are read-only copies.

    ``estimate`` [n, d] holds errors, or errors divided by their row's chance error if that was asked for;
    ``singular_values`` [min(n, d)] are its own, descending; ``configuration_embeddings`` [d, k] are the rows
    of Y in E ~ X Y^T, its k leading right singular vectors (section 3.2). ``observed`` [n, d] says which
    entries are no estimates but the given ones (default: all), ``groups`` [d] which configurations are alike.
    """

    estimate: NDArray[np.float64]
    singular_values: NDArray[np.float64]
    configuration_embeddings: NDArray[np.float64]
    observed: NDArray[np.bool_] | None = None
    groups: NDArray[np.intp] | None = None

    def __post_init__(self) -> None:
        if self.observed is None:
            object.__setattr__(self, "observed", np.ones(np.shape(self.estimate), dtype=bool))
        for field in fields(self):
            if getattr(self, field.name) is None:
                continue
            kind = {"observed": bool, "groups": np.intp}.get(field.name, np.float64)
            array = np.array(getattr(self, field.name), dtype=kind)
            array.setflags(write=False)
            object.__setattr__(self, field.name, array)

    @property
    def known(self) -> NDArray[np.bool_]:
        """``observed``."""
        assert self.observed is not None
        return self.observed


def complete(
    matrix: ErrorMatrix,
    *,
    rank: int = 5,
    shrinkage: float = 0.1,
    relative_to_chance: bool = False,
    weights: NDArray[np.float64] | None = None,
    effects: bool = False,
) -> Completion:
    """The error matrix with its gaps filled by :func:`soft_impute`; measured entries are kept (section 3.1).

    Keeping them changes no embedding: where Algorithm 1 stands still, its estimate is the kept matrix with
    smaller singular values and the same singular vectors (without ``weights``).

    ``relative_to_chance`` divides each row by its chance error first, which keeps tasks of few and of many
    classes comparable. ``weights`` [n, d] are inverse sampling probabilities. ``effects`` has SoftImpute fill
    what row and column effects leave: better where few entries are observed, not in the paper.

    Raises TableError for a row or a column without any measurement: completion would call its errors zero.

    >>> from peppp.formats import paper_grid
    >>> from peppp.tables import Row
    >>> rows = [Row(name, "", name) for name in ("digits", "letters")]
    >>> matrix = ErrorMatrix.from_values(np.array([[0.8, 0.4], [0.4, np.nan]]), rows, paper_grid()[:2])
    >>> complete(matrix, shrinkage=1e-3).estimate.round(2)
    array([[0.8, 0.4],
           [0.4, 0.2]])
    """
    _refuse_empty_lines(matrix)
    E = matrix.values  # [n, d]
    if relative_to_chance:
        E = E / _chance_errors(matrix)[:, None]
    return complete_values(
        E, matrix.observed, rank=rank, shrinkage=shrinkage, weights=weights, effects=effects,
        groups=equal_format_a(matrix.configurations),
    )  # fmt: skip


@single_thread()
def complete_values(
    values: NDArray[np.float64],
    observed: NDArray[np.bool_],
    *,
    rank: int = 5,
    shrinkage: float = 0.1,
    weights: NDArray[np.float64] | None = None,
    effects: bool = False,
    groups: NDArray[np.intp] | None = None,
) -> Completion:
    """:func:`complete` for plain arrays [n, d], of which only the ``observed`` entries are looked at.

    ``groups`` [d] number the configurations that are alike; completion itself makes no use of it.

    >>> complete_values(np.array([[0.8, 0.4], [0.4, np.nan]]), np.array([[True, True], [True, False]]),
    ...     shrinkage=1e-3).estimate.round(2)
    array([[0.8, 0.4],
           [0.4, 0.2]])
    """
    mask = np.asarray(observed, dtype=bool)
    E = np.asarray(values, dtype=np.float64)
    if not mask.all():
        fit = row_and_column_effects(E, mask)
        base = fit if effects else np.zeros(mask.shape)
        # Where SoftImpute starts changes what it finds by its tolerance only, and the time by half or more.
        start = None if effects else fit
        rest = np.where(mask, E - base, 0.0)
        filled = base + soft_impute(rest, mask, shrinkage=shrinkage, weights=weights, start=start)
        # A configuration that no row knows has no low-rank estimate: shrinkage would call its errors zero.
        E = np.where(mask, E, np.where(mask.any(axis=0), filled, fit))
    S, Vt = _singular(E)
    return Completion(E, S, _embeddings(S, Vt, rank, max(E.shape)), mask, groups)


@single_thread()
def factorise(estimate: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """Configuration embeddings [d, k] of an error matrix [n, d]: its leading right singular vectors.

    With E = U S V^T the embedding of configuration j is row j of V: orthonormal columns, as Oboe has them
    (section 3.2 leaves the scale open). k = ``rank``, or less where the matrix has a lower rank.

    >>> abs(factorise(np.array([[0.3, 0.4], [0.6, 0.8]]), rank=2)).round(6)
    array([[0.6],
           [0.8]])
    """
    S, Vt = _singular(estimate)
    return _embeddings(S, Vt, rank, max(estimate.shape))


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
    """A low-rank estimate [n, d] of ``values`` [n, d], known where ``observed`` [n, d] (Algorithm 1).

    ``shrinkage`` is the paper's lambda, absolute; ``weights`` [n, d] (inverse sampling probabilities, see
    :func:`inverse_propensity`; Ma and Chen, 2019) are normalised to mean 1 over the observed entries, so that
    lambda keeps its meaning. ``start`` [n, d] is a first estimate, by default zero. Stops when a step changes
    the estimate by less than ``tolerance`` of its norm, or after ``iterations``.

    ``accelerate`` adds Nesterov's momentum, restarted when it points uphill (O'Donoghue and Candes, 2015):
    a few times faster, but only the plain step never raises the objective.

    Raises ValueError where shapes differ or an observed value or weight is unusable.

    >>> E = np.outer([1.0, 0.5], [0.4, 0.8])
    >>> soft_impute(E, np.array([[True, True], [True, False]]), shrinkage=1e-3).round(2)
    array([[0.4, 0.8],
           [0.2, 0.4]])
    """
    E, W, Z = _prepared(values, observed, weights, start)  # [n, d] each; W is zero where nothing is observed
    previous = Z
    largest = float(W.max())  # Lipschitz constant of the smooth part's gradient: 1 / largest is always safe
    inverse_step, theta = largest, 1.0
    span: NDArray[np.float64] | None = None
    for _ in range(iterations):
        last_inverse_step, last_theta = inverse_step, theta
        inverse_step = max(_SHRINK * inverse_step, 1e-6 * largest)
        while True:
            if accelerate:  # TFOCS's theta, which knows the ratio of successive step sizes
                theta = 2 / (1 + sqrt(1 + 4 * (inverse_step / last_inverse_step) / last_theta**2))
            Y = Z + theta * (1 / last_theta - 1) * (Z - previous)  # without momentum, Z itself
            shrunk = _shrink(Y - W * (Y - E) / inverse_step, shrinkage / inverse_step, span)
            estimate = shrunk.estimate
            # The smooth part is quadratic, so the step is short enough if its curvature along it is.
            change = estimate - Y
            squared = float(np.vdot(change, change))
            curvature = float(np.vdot(W * change, change)) / squared if squared > 0 else 0.0
            if curvature <= inverse_step or inverse_step >= largest:
                break
            inverse_step = min(largest, max(curvature, _GROW * inverse_step))
        if accelerate and np.vdot(Y - estimate, estimate - Z) > 0:
            theta = 1.0
        previous, Z = Z, estimate
        # Singular vectors turn little from step to step, so the next step begins with these; not the plain
        # one, which promises never to raise the objective.
        span = shrunk.span if accelerate else None
        if np.linalg.norm(Z - previous) <= tolerance * np.linalg.norm(Z):
            if shrunk.exact:
                break
            span = None  # the last step is exact
    return Z


def inverse_propensity(probabilities: NDArray[np.float64], *, floor: float = 0.02) -> NDArray[np.float64]:
    """Weights 1 / P of entries sampled with probabilities P, no P taken below ``floor`` (section 3.1).

    >>> inverse_propensity(np.array([0.5, 0.001]))
    array([ 2., 50.])
    """
    return np.asarray(1.0 / np.maximum(probabilities, floor))


@dataclass(frozen=True, slots=True)
class _Shrunk:
    """``estimate`` [n, d], whether it is exact, and a ``span`` [min(n, d), s] to begin the next one with."""

    estimate: NDArray[np.float64]
    exact: bool
    span: NDArray[np.float64] | None


def _shrink(Z: NDArray[np.float64], threshold: float, span: NDArray[np.float64] | None = None) -> _Shrunk:
    """Z with its singular values reduced by the threshold, none below zero: the paper's U S_lambda(S) V^T.

    With the eigenvectors U of Z Z^T it is U (S_lambda(S) / S) U^T Z, twice as fast as a decomposition of Z.
    The square costs digits of small singular values only, which the threshold takes away.

    A ``span`` that nearly holds the kept columns of U gives nearly the same in a third of that time, by one
    step of subspace iteration (Halko et al., 2011, algorithm 4.4); one that may be too narrow is not used.
    """
    if len(Z) > Z.shape[1]:
        turned = _shrink(Z.T, threshold, span)
        return _Shrunk(turned.estimate.T, turned.exact, turned.span)
    if span is not None:
        Q = np.linalg.qr(Z @ (Z.T @ span))[0]
        within = Q.T @ Z
        squares, V = np.linalg.eigh(within @ within.T)
        if squares[0] <= threshold**2:  # it holds all that is kept, and something more
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
    # Of a span of more than half of the dimensions nothing is gained.
    return _Shrunk(np.asarray(estimate), exact, span if 2 * span.shape[1] < len(Z) else None)


def _singular(E: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Singular values and right singular vectors (as rows)."""
    _, S, Vt = np.linalg.svd(E, full_matrices=False)
    return np.asarray(S), np.asarray(Vt)


def _embeddings(
    S: NDArray[np.float64], Vt: NDArray[np.float64], rank: int, longest: int
) -> NDArray[np.float64]:
    if rank < 1:
        raise ValueError(f"a factorisation has rank 1 or more, not {rank}")
    rounding = S[0] * longest * np.finfo(np.float64).eps
    numerical_rank = int((rounding < S).sum())  # beyond it, singular vectors are noise
    return np.array(Vt[: min(rank, numerical_rank)].T)


def _prepared(
    values: NDArray[np.float64],
    observed: NDArray[np.bool_],
    weights: NDArray[np.float64] | None,
    start: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """P_Omega(E), its weights, and the first estimate; the arguments are left as they are."""
    mask = np.asarray(observed, dtype=bool)
    shapes = {np.shape(array) for array in (values, mask, weights, start) if array is not None}
    if len(shapes) != 1 or mask.ndim != 2:
        raise ValueError(f"values, observed, weights and start are of one shape [n, d], not of {shapes}")
    if not mask.any():
        raise ValueError("nothing is observed, so nothing can be completed")
    E = np.where(mask, values, 0.0)
    W = np.where(mask, 1.0 if weights is None else weights, 0.0)
    Z = np.zeros(E.shape) if start is None else np.array(start, dtype=np.float64)
    if not (np.isfinite(E).all() and np.isfinite(Z).all()):
        raise ValueError("observed values and the first estimate must be finite")
    if not (np.isfinite(W).all() and (W[mask] > 0).all()):
        raise ValueError("weights must be positive and finite wherever a value is observed")
    return E, W / W[mask].mean(), Z


def _refuse_empty_lines(matrix: ErrorMatrix) -> None:
    if not matrix.observed.any():
        raise TableError("the table is empty; measure some configurations on some tasks first")
    tasks = [row.task for row in matrix.rows]
    for axis, names in ((1, tasks), (0, matrix.configurations)):
        unknown = np.flatnonzero(~np.any(matrix.observed, axis=axis))
        if len(unknown):
            raise TableError(
                f"the table has no error of {names[unknown[0]]}; measure one at least or leave it out"
            )


def _chance_errors(matrix: ErrorMatrix) -> NDArray[np.float64]:
    for row in matrix.rows:
        if not 0 < row.chance_error <= 1:
            raise TableError(f"the chance error of {row.task} is {row.chance_error}; it lies in (0, 1]")
    return np.array([row.chance_error for row in matrix.rows])  # [n]
