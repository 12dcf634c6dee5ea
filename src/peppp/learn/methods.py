"""The methods: what each one measures on a new task, and how it predicts the other errors.

=====================  ========================================  ==========================================
design                 measures                                  predicts by
=====================  ========================================  ==========================================
ed-mf (the paper's)    a greedy D-optimal design                 least squares on the embeddings
qr-mf                  the pivots of the error matrix            the same
random-mf              at random                                 the same
bo-mf                  by expected improvement, over embeddings  the mean of the Gaussian process
bo-full                the same, over columns                    the same
bo-mf-zero-mean,       like the two before, with a prior mean of zero instead of the columns' means
bo-full-zero-mean
additive               like ed-mf                                a term for Format A and one for Format B
zero                   nothing                                   the means of the table's columns
high-memory            nothing                                   assuming less error with more memory
gaussian (default)     the run that should improve the pick      noise-free errors: see
                       most, until none is worth it              :mod:`peppp.learn.noise_free`
two-best               the table's two best Formats A in turn    the means of their runs
=====================  ========================================  ==========================================

The rules in this module use the scale of the completed table and give no intervals. The strategies in
:mod:`peppp.learn.strategy` wrap them; advice and evaluation use those.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from peppp.errors import TableError
from peppp.learn.additive import additive_model
from peppp.learn.bayesopt import GaussianProcess, expected_improvement
from peppp.learn.completion import Completion, factorise
from peppp.learn.design import d_optimal, determines, least_squares
from peppp.learn.task import Measured, Rule, Task
from peppp.table.labels import pairs

Seed = int | Sequence[int]


@dataclass(frozen=True, slots=True)
class Method:
    """A design, by a name listed above, and the rank of its embeddings (None: that of the completion).

    >>> Method.parse("ed-mf-rank-2"), str(Method("two-best"))
    (Method(design='ed-mf', rank=2), 'two-best')
    """

    design: str
    rank: int | None = None

    @classmethod
    def parse(cls, text: "str | Method") -> "Method":
        """The method named by a text; a Method is returned as it is. Raises TableError for an unknown one."""
        if isinstance(text, Method):
            return text
        design, ranked, rank = text.partition("-rank-")
        if text in REMOVED:
            raise TableError(f"the method {text} was removed: measuring made its picks worse; use gaussian")
        if design not in METHODS or (ranked and not (design in _EMBEDDED and rank.isdecimal() and int(rank))):
            raise TableError(
                f"no method {text!r}; there are {', '.join(METHODS)}; these also take a rank, for example "
                f"ed-mf-rank-2: {', '.join(_EMBEDDED)}"
            )
        return cls(design, int(rank) if ranked else None)

    def __str__(self) -> str:
        return self.design if self.rank is None else f"{self.design}-rank-{self.rank}"


def rule_of(method: Method, learned: Completion, task: Task, measurements: int, *, seed: Seed = 0) -> Rule:
    """The rule of a method for a task on which at most ``measurements`` are made.

    ``seed`` determines the random choices: all of random-mf, the start of Bayesian optimisation, qr-mf once
    it has no pivots left, and ties in high-memory. Fewer measurements are made if fewer columns are
    measurable. Raises TableError for a negative number of measurements, or if the method does not suit the
    columns.
    """
    if measurements < 0:
        raise TableError(f"the number of measurements must be 0 or more, not {measurements}")
    if method.rank is not None:
        embeddings = factorise(learned.estimate, method.rank)
        learned = replace(learned, configuration_embeddings=embeddings)
    return _RULES[method.design](method.design, learned, task, measurements, np.random.default_rng(seed))


class _Rule:
    sequential: bool = False

    def __init__(
        self, design: str, learned: Completion, task: Task, measurements: int, rng: np.random.Generator
    ) -> None:
        self._design, self._learned, self._task, self._measurements = design, learned, task, measurements
        self._mean = learned.estimate.mean(axis=0)  # [d]
        self._prepare(rng)

    def next(self, measured: Measured, count: int = 1) -> list[int]:
        count = min(count, self._measurements - len(measured))
        return self._next(measured, count) if count > 0 else []

    def predict(self, measured: Measured) -> NDArray[np.float64]:
        if not measured:
            return np.array(self._mean)
        return self._predict(list(measured), np.array(list(measured.values())))

    def reliable(self, measured: Measured) -> bool:
        return True

    def _prepare(self, rng: np.random.Generator) -> None: ...

    def _next(self, measured: Measured, count: int) -> list[int]:
        return []

    def _predict(self, S: list[int], errors: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array(self._mean)


class _Planned(_Rule):
    """Plans all measurements before any error is known, and predicts the others by least squares."""

    def _prepare(self, rng: np.random.Generator) -> None:
        self._plan = self._order(rng)

    def _order(self, rng: np.random.Generator) -> list[int]:
        Y = self._learned.configuration_embeddings
        return list(d_optimal(Y, self._measurements, feasible=self._task.measurable).tolist())

    def _next(self, measured: Measured, count: int) -> list[int]:
        return [j for j in self._plan if j not in measured][:count]

    def _predict(self, S: list[int], errors: NDArray[np.float64]) -> NDArray[np.float64]:
        return least_squares(self._learned.configuration_embeddings, S, errors)

    def reliable(self, measured: Measured) -> bool:
        return determines(self._learned.configuration_embeddings, list(measured))


class _Pivots(_Planned):
    def _order(self, rng: np.random.Generator) -> list[int]:
        E, allowed = self._learned.estimate, np.flatnonzero(self._task.measurable)
        pivots = allowed[scipy.linalg.qr(E[:, allowed], mode="r", pivoting=True)[1]]
        informative = min(len(E), len(allowed))
        return [*pivots[:informative].tolist(), *rng.permutation(pivots[informative:]).tolist()]


class _AtRandom(_Planned):
    def _order(self, rng: np.random.Generator) -> list[int]:
        return list(rng.permutation(np.flatnonzero(self._task.measurable)).tolist())


class _Additive(_Planned):
    def _prepare(self, rng: np.random.Generator) -> None:
        super()._prepare(rng)
        columns = pairs(self._learned.columns)
        if not columns:
            raise TableError("the additive model needs columns that are configurations, such as 1-4-1/1-6-7")
        formats = [c.format_a for c in columns], [c.format_b for c in columns]
        self._process = additive_model(self._learned.estimate, *formats).process

    def _predict(self, S: list[int], errors: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._process.posterior(S, errors)[0]

    def reliable(self, measured: Measured) -> bool:
        return True


class _Bayesian(_Rule):
    """The paper's Bayesian optimisation: a random start, then the largest expected improvement."""

    sequential = True

    def _prepare(self, rng: np.random.Generator) -> None:
        Y, mean = self._learned.configuration_embeddings, self._mean
        # The singular values scale the embeddings: bare singular vectors make the method three times worse.
        embedded = self._design in ("bo-mf", "bo-mf-zero-mean")
        features = Y * self._learned.singular_values[: Y.shape[1]] if embedded else self._learned.estimate.T
        zero = self._design in ("bo-mf-zero-mean", "bo-full-zero-mean")
        self._process = GaussianProcess.rbf(features, 0.0 * mean if zero else mean)
        self._start = int(rng.choice(np.flatnonzero(self._task.measurable)))

    def _next(self, measured: Measured, count: int) -> list[int]:
        believed, chosen = dict(measured), list[int]()
        while len(chosen) < count:
            open_to = self._task.measurable & ~np.isin(np.arange(len(self._mean)), list(believed))
            if not open_to.any():
                break
            mean, best = self._mean, self._start
            if believed:
                S, errors = list(believed), np.array(list(believed.values()))
                mean, deviation = self._process.posterior(S, errors)
                gain = expected_improvement(mean, deviation, min(believed.values()))
                best = int(np.where(open_to, gain, -np.inf).argmax())
            chosen.append(best)
            believed[best] = float(mean[best])  # the rest of a batch assumes that this comes out as expected
        return chosen

    def _predict(self, S: list[int], errors: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._process.posterior(S, errors)[0]


class _Largest(_Rule):
    """Assumes less error with more memory. A random term, smaller than other differences, breaks ties."""

    def _prepare(self, rng: np.random.Generator) -> None:
        m = self._task.memory
        self._mean = 1.0 - m / m[self._task.feasible].max() + 1e-6 * rng.random(len(m))


_RULES: Mapping[str, type[_Rule]] = {
    "ed-mf": _Planned,
    "qr-mf": _Pivots,
    "random-mf": _AtRandom,
    "bo-mf": _Bayesian,
    "bo-full": _Bayesian,
    "bo-mf-zero-mean": _Bayesian,
    "bo-full-zero-mean": _Bayesian,
    "additive": _Additive,
    "zero": _Rule,
    "high-memory": _Largest,
}
DRAWN = ("qr-mf", "random-mf", "bo-mf", "bo-full", "bo-mf-zero-mean", "bo-full-zero-mean", "high-memory")
_EMBEDDED = ("ed-mf", "qr-mf", "random-mf", "bo-mf", "bo-mf-zero-mean")
PAPER_METHODS = ("ed-mf", "qr-mf", "random-mf", "bo-mf", "bo-full")
DEFAULT_METHOD = "gaussian"
METHODS = ("gaussian", *_RULES, "two-best")
REMOVED = ("auto", "i-optimal", "frontier", "ehvi", "ei")  # from earlier versions: they chased noise
