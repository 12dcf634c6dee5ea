"""Every method that chooses what to measure on a new task and predicts its errors, behind one call.

=====================  ========================================  ==========================================
method                 measures                                  predicts by
=====================  ========================================  ==========================================
ed-mf (the paper's)    a greedy D-optimal design                 least squares on the embeddings
qr-mf                  the pivots of the error matrix            the same
random-mf              at random                                 the same
bo-mf                  by expected improvement, over embeddings  the mean of the Gaussian process
bo-full                the same, over columns                    the same
bo-mf-zero-mean,       as the two before, with the mean zero instead of the columns' means
bo-full-zero-mean
additive               as ed-mf                                  a term for Format A and one for Format B
ed-mf-rank-1, -2, -5   as ed-mf, with that many components       the same
i-optimal, frontier,   one after the other, by the designs of    the Gaussian learned from the table
ehvi, ei               :mod:`peppp.metalearn.sequential`         (:mod:`peppp.metalearn.posterior`)
zero                   nothing                                   the means of the table's columns
high-memory            nothing                                   more memory, less error
=====================  ========================================  ==========================================

The automatic choice among them is :mod:`peppp.metalearn.automatic`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from peppp.errors import TableError
from peppp.formats import Configuration
from peppp.metalearn.additive import additive_model
from peppp.metalearn.bayesopt import GaussianProcess, optimise
from peppp.metalearn.completion import Completion, factorise
from peppp.metalearn.design import candidates, d_optimal_designs, least_squares
from peppp.metalearn.factors import learn
from peppp.metalearn.posterior import Posterior
from peppp.metalearn.sequential import DESIGNS, propose
from peppp.metalearn.threads import single_thread

PAPER_METHODS = ("ed-mf", "qr-mf", "random-mf", "bo-mf", "bo-full")
RANKED = ("ed-mf-rank-1", "ed-mf-rank-2", "ed-mf-rank-5")
GAUSSIAN: tuple[str, ...] = DESIGNS
METHODS = (
    *PAPER_METHODS, "bo-mf-zero-mean", "bo-full-zero-mean", "additive", "zero", "high-memory",
    *RANKED, *GAUSSIAN,
)  # fmt: skip
MEASURES_NOTHING = ("zero", "high-memory")


@dataclass(frozen=True, slots=True)
class Exploration:
    """What a method measured, in that order: ``chosen`` [l], and the errors [d] it then believes in.

    ``estimate`` holds the measured errors where there are any; it is not clipped.
    """

    chosen: NDArray[np.intp]
    estimate: NDArray[np.float64]


@single_thread()
def explore(
    method: str,
    training: Completion,
    measure: Callable[[int], float],
    counts: Sequence[int],
    *,
    memory: ArrayLike,
    feasible: ArrayLike | None = None,
    configurations: Sequence[Configuration] | None = None,
    seed: int | Sequence[int] = 0,
) -> list[Exploration]:
    """What ``method`` does with each number of measurements of ``counts`` on a new task.

    ``training`` is the completed table of other tasks; ``measure`` gives the error of a configuration by its
    index; ``memory`` [d] and ``feasible`` [d] bool are the new task's. Only what fits is measured, so it can
    be fewer than asked for. ``seed`` draws the random choices: random-mf, the start of Bayesian optimisation,
    qr-mf once it is out of pivots. Nothing that is given is changed.

    Raises BudgetError if nothing is feasible, and TableError for a method that is not known.

    >>> training = Completion(np.array([[0.8, 0.4, 0.2], [0.4, 0.2, 0.1]]), [1.0], [[0.87], [0.44], [0.22]])
    >>> errors = np.array([0.6, 0.3, 0.15])
    >>> one, = explore("ed-mf", training, errors.item, [1], memory=[1, 2, 3])
    >>> one.chosen, one.estimate.round(2)
    (array([0]), array([0.6 , 0.3 , 0.15]))
    """
    if method not in METHODS:
        raise TableError(f"no method {method!r}; there are {', '.join(METHODS)}")
    if any(count < 0 for count in counts):
        raise TableError(f"a number of measurements is 0 or more, not {min(counts)}")
    if method in RANKED:
        rank = int(method.rpartition("-")[2])
        training = replace(training, configuration_embeddings=factorise(training.estimate, rank))
        method = "ed-mf"
    allowed = candidates(training.configuration_embeddings, feasible)
    mean = training.estimate.mean(axis=0)
    rng = np.random.default_rng(seed)
    measured: dict[int, float] = {}

    def error_of(j: int) -> float:
        if j not in measured:
            measured[j] = float(measure(int(j)))
        return measured[j]

    def explored(chosen: ArrayLike, estimate: NDArray[np.float64]) -> Exploration:
        S = np.asarray(chosen, dtype=np.intp)
        kept = np.array(estimate)
        kept[S] = [error_of(j) for j in S]
        return Exploration(S, kept)

    if method == "zero":
        return [explored([], mean)] * len(counts)
    if method == "high-memory":
        m = np.asarray(memory, dtype=np.float64)
        share = m / m[allowed].max()
        # Of equal memories one is drawn: by less than any two different ones differ, in bytes.
        return [explored([], 1.0 - share + 1e-6 * rng.random(len(m)))] * len(counts)
    if method in ("ed-mf", "additive", "qr-mf", "random-mf"):
        order = _order(method, training, allowed, rng)
        model = _additive(training, configurations) if method == "additive" else None
        Y = training.configuration_embeddings
        if order is None:
            designs = d_optimal_designs(Y, counts, feasible=feasible)
        else:
            designs = [order[:count] for count in counts]
        found = []
        for S in designs:
            if not len(S):
                found.append(explored([], mean))
                continue
            errors = np.array([error_of(j) for j in S])
            estimate = model.posterior(list(S), errors)[0] if model else least_squares(Y, S, errors)
            found.append(explored(S, estimate))
        return found

    within = np.isin(np.arange(len(mean)), allowed)
    if method in GAUSSIAN:
        prior = prior_of(training)
        m = np.asarray(memory, dtype=np.float64)
        order_of: list[int] = []
        while len(order_of) < min(max(counts, default=0), len(allowed)):
            order_of += next_of(method, prior, measured, 1, memory=m, measurable=within, feasible=within)
            error_of(order_of[-1])
        return [
            explored(
                order_of[:count],
                prior.given(order_of[:count], [measured[j] for j in order_of[:count]]).mean,
            )
            for count in counts
        ]
    process = _process(method, training, mean)
    start = int(rng.choice(allowed))
    order_bo, means = optimise(process, error_of, max(counts, default=0), start=start, feasible=within)
    return [
        explored(order_bo[:count], means[min(count, len(means)) - 1]) if count else explored([], mean)
        for count in counts
    ]


@lru_cache(maxsize=32)  # by identity: an evaluation asks for the same one for many tasks and methods
def prior_of(training: Completion) -> Posterior:
    """The Gaussian that the entries which ``training`` observed teach."""
    return learn(training.estimate, training.known, groups=training.groups)


def next_of(
    method: str,
    prior: Posterior,
    told: Mapping[int, float],
    count: int,
    *,
    memory: NDArray[np.float64],
    measurable: NDArray[np.bool_],
    feasible: NDArray[np.bool_],
) -> list[int]:
    """The next ``count`` configurations that one of ``GAUSSIAN`` measures."""
    design = next(design for design in DESIGNS if method.startswith(design))
    return propose(prior, told, design, count, memory=memory, measurable=measurable, feasible=feasible)


def _order(
    method: str, training: Completion, allowed: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.intp] | None:
    """The feasible configurations in the order of measuring, if it is the same for all counts."""
    if method == "random-mf":
        return rng.permutation(allowed)
    if method == "qr-mf":
        pivots = allowed[scipy.linalg.qr(training.estimate[:, allowed], mode="r", pivoting=True)[1]]
        telling = min(training.estimate.shape[0], len(allowed))
        return np.concatenate([pivots[:telling], rng.permutation(pivots[telling:])])
    return None


def _process(method: str, training: Completion, mean: NDArray[np.float64]) -> GaussianProcess:
    Y = training.configuration_embeddings
    # Embeddings on the scale of the singular values: bare singular vectors make it three times worse.
    features = Y * training.singular_values[: Y.shape[1]] if "mf" in method else training.estimate.T
    return GaussianProcess.rbf(features, 0.0 * mean if method.endswith("zero-mean") else mean)


def _additive(training: Completion, configurations: Sequence[Configuration] | None) -> GaussianProcess:
    if configurations is None:
        raise TableError("the additive model needs columns that are configurations, as 1-4-1/1-6-7")
    return additive_model(
        training.estimate,
        [c.format_a for c in configurations],
        [c.format_b for c in configurations],
    ).process
