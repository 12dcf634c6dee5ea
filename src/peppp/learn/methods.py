"""The methods: what each measures on a new task, and how it predicts the errors of what it did not measure.

=====================  ========================================  ==========================================
design                 measures                                  predicts by
=====================  ========================================  ==========================================
ed-mf (the paper's)    a greedy D-optimal design                 least squares on the embeddings
qr-mf                  the pivots of the error matrix            the same
random-mf              at random                                 the same
bo-mf                  by expected improvement, over embeddings  the mean of the Gaussian process
bo-full                the same, over columns                    the same
bo-mf-zero-mean,       as the two before, with the mean zero instead of the columns' means
bo-full-zero-mean
additive               as ed-mf                                  a term for Format A and one for Format B
zero                   nothing                                   the means of the table's columns
high-memory            nothing                                   more memory, less error
gaussian (default)     what should improve the pick most,        noise-free errors: see
                       until nothing is worth it                 :mod:`peppp.learn.noise_free`
two-best               the table's two best Formats A in turn    their runs' means
=====================  ========================================  ==========================================

Here they work on the scale of the completed table and know no intervals; :mod:`peppp.learn.strategy` is
what advises and what is evaluated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from peppp import pareto
from peppp.errors import BudgetError, TableError
from peppp.learn.additive import additive_model
from peppp.learn.bayesopt import GaussianProcess, expected_improvement
from peppp.learn.completion import Completion, factorise
from peppp.learn.design import d_optimal, determines, least_squares
from peppp.table.labels import pairs

Told = Mapping[int, float]
Seed = int | Sequence[int]


@dataclass(frozen=True, eq=False)
class Task:
    """A new task, as far as it is known before any training: arrays [d] over the table's columns.

    ``memory`` in bytes; ``feasible`` is what may be picked, ``measurable`` what may be measured. ``scale`` is
    what errors are multiples of on the table's scale: the chance error, or 1.
    """

    memory: NDArray[np.float64]
    feasible: NDArray[np.bool_]
    measurable: NDArray[np.bool_]
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "memory", np.asarray(self.memory, dtype=np.float64))
        for name in ("feasible", "measurable"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=bool))
            if not getattr(self, name).any():
                raise BudgetError(
                    "no configuration is feasible, so none can be measured; raise the memory cap"
                )

    def pick(self, estimate: NDArray[np.float64], told: Told) -> int:
        """The feasible configuration of least error, measured or else estimated; of ties, of least memory."""
        best = pareto.best(self.memory, pareto.settled(kept(estimate, told)), self.feasible)
        assert best is not None  # something is feasible
        return best


def kept(estimate: NDArray[np.float64], told: Told) -> NDArray[np.float64]:
    """Errors [d] in [0, 1]: measured where they were, else estimated.

    >>> kept(np.array([0.3, -0.1]), {0: 0.25})
    array([0.25, 0.  ])
    """
    errors = np.clip(estimate, 0.0, 1.0)
    errors[list(told)] = list(told.values())
    return errors


class Rule(Protocol):
    """A design and a predictor on one completed table and one task; errors are on the table's scale."""

    sequential: bool  # whether what is measured next depends on the errors told

    def next(self, told: Told, count: int = 1) -> list[int]:
        """The next configurations to measure, at most ``count``; none once enough were."""
        ...

    def predict(self, told: Told) -> NDArray[np.float64]:
        """Estimated errors [d], of the measured configurations too; not clipped."""
        ...

    def reliable(self, told: Told) -> bool:
        """Whether what was told determines all that the prediction rests on."""
        ...


_R = TypeVar("_R", bound=Rule)


def run(rule: "Rule", measure: Callable[[int], float], told: Told | None = None) -> dict[int, float]:
    """What is told once ``rule`` (or a strategy) wants no more, each error from ``measure``.

    >>> from peppp.learn.completion import complete_values
    >>> E = np.outer([0.5, 1.0, 0.8], [0.8, 0.4, 0.2])
    >>> task = Task(np.array([1, 2, 3]), [True, True, False], [True, True, False])
    >>> one = rule_of(Method("ed-mf"), complete_values(E, E > 0, rank=1), task, 1)
    >>> run(one, [0.6, 0.3, 0.15].__getitem__), one.predict({0: 0.6}).round(2)
    ({0: 0.6}, array([0.6 , 0.3 , 0.15]))
    """
    found = dict(told or {})
    while wanted := rule.next(found):
        found |= {j: float(measure(j)) for j in wanted}
    return found


@dataclass(frozen=True, slots=True)
class Method:
    """A design, by the names above, and the rank of the embeddings it uses (None: the completion's).

    >>> Method.parse("ed-mf-rank-2"), str(Method("two-best"))
    (Method(design='ed-mf', rank=2), 'two-best')
    """

    design: str
    rank: int | None = None

    @classmethod
    def parse(cls, text: "str | Method") -> "Method":
        """The method of a text; a method is handed back. Raises TableError for one that there is not."""
        if isinstance(text, Method):
            return text
        design, ranked, rank = text.partition("-rank-")
        if text in REMOVED:
            raise TableError(f"the method {text} was removed: its picks got worse by measuring; use gaussian")
        if design not in METHODS or (ranked and not (design in _EMBEDDED and rank.isdecimal() and int(rank))):
            raise TableError(
                f"no method {text!r}; there are {', '.join(METHODS)}; with another rank, as ed-mf-rank-2: "
                f"{', '.join(_EMBEDDED)}"
            )
        return cls(design, int(rank) if ranked else None)

    def __str__(self) -> str:
        return self.design if self.rank is None else f"{self.design}-rank-{self.rank}"


def rule_of(method: Method, learned: Completion, task: Task, measurements: int, *, seed: Seed = 0) -> Rule:
    """The rule of a method for a task that at most so many measurements are made on.

    ``seed`` draws the random choices: random-mf, the start of Bayesian optimisation, qr-mf once it is out of
    pivots. Fewer are measured where fewer may be.
    """
    if measurements < 0:
        raise TableError(f"a number of measurements is 0 or more, not {measurements}")
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

    def next(self, told: Told, count: int = 1) -> list[int]:
        count = min(count, self._measurements - len(told))
        return self._next(told, count) if count > 0 else []

    def predict(self, told: Told) -> NDArray[np.float64]:
        return self._predict(list(told), np.array(list(told.values()))) if told else np.array(self._mean)

    def reliable(self, told: Told) -> bool:
        return True

    def _prepare(self, rng: np.random.Generator) -> None: ...

    def _next(self, told: Told, count: int) -> list[int]:
        return []

    def _predict(self, S: list[int], errors: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array(self._mean)


class _Planned(_Rule):
    """What is measured is settled before any error is known; least squares predict the rest."""

    def _prepare(self, rng: np.random.Generator) -> None:
        self._plan = self._order(rng)

    def _order(self, rng: np.random.Generator) -> list[int]:
        Y = self._learned.configuration_embeddings
        return list(d_optimal(Y, self._measurements, feasible=self._task.measurable).tolist())

    def _next(self, told: Told, count: int) -> list[int]:
        return [j for j in self._plan if j not in told][:count]

    def _predict(self, S: list[int], errors: NDArray[np.float64]) -> NDArray[np.float64]:
        return least_squares(self._learned.configuration_embeddings, S, errors)

    def reliable(self, told: Told) -> bool:
        return determines(self._learned.configuration_embeddings, list(told))


class _Pivots(_Planned):
    def _order(self, rng: np.random.Generator) -> list[int]:
        E, allowed = self._learned.estimate, np.flatnonzero(self._task.measurable)
        pivots = allowed[scipy.linalg.qr(E[:, allowed], mode="r", pivoting=True)[1]]
        telling = min(len(E), len(allowed))
        return [*pivots[:telling].tolist(), *rng.permutation(pivots[telling:]).tolist()]


class _AtRandom(_Planned):
    def _order(self, rng: np.random.Generator) -> list[int]:
        return list(rng.permutation(np.flatnonzero(self._task.measurable)).tolist())


class _Additive(_Planned):
    def _prepare(self, rng: np.random.Generator) -> None:
        super()._prepare(rng)
        columns = pairs(self._learned.columns)
        if not columns:
            raise TableError("the additive model needs columns that are configurations, as 1-4-1/1-6-7")
        formats = [c.format_a for c in columns], [c.format_b for c in columns]
        self._process = additive_model(self._learned.estimate, *formats).process

    def _predict(self, S: list[int], errors: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._process.posterior(S, errors)[0]

    def reliable(self, told: Told) -> bool:
        return True


class _Bayesian(_Rule):
    """The paper's Bayesian optimisation: from a random start by expected improvement."""

    sequential = True

    def _prepare(self, rng: np.random.Generator) -> None:
        Y, mean = self._learned.configuration_embeddings, self._mean
        # Embeddings on the scale of the singular values: bare singular vectors make it three times worse.
        embedded = self._design in ("bo-mf", "bo-mf-zero-mean")
        features = Y * self._learned.singular_values[: Y.shape[1]] if embedded else self._learned.estimate.T
        zero = self._design in ("bo-mf-zero-mean", "bo-full-zero-mean")
        self._process = GaussianProcess.rbf(features, 0.0 * mean if zero else mean)
        self._start = int(rng.choice(np.flatnonzero(self._task.measurable)))

    def _next(self, told: Told, count: int) -> list[int]:
        believed, chosen = dict(told), list[int]()
        while len(chosen) < count:
            open_to = self._task.measurable & ~np.isin(np.arange(len(self._mean)), list(believed))
            if not open_to.any():
                break
            mean, best = self._mean, self._start
            if believed:  # several at once: as if the ones before had come out as expected
                S, errors = list(believed), np.array(list(believed.values()))
                mean, deviation = self._process.posterior(S, errors)
                gain = expected_improvement(mean, deviation, min(believed.values()))
                best = int(np.where(open_to, gain, -np.inf).argmax())
            chosen.append(best)
            believed[best] = float(mean[best])
        return chosen

    def _predict(self, S: list[int], errors: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._process.posterior(S, errors)[0]


class _Largest(_Rule):
    """More memory, less error. Of equal memories one is drawn: by less than two different ones differ."""

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
REMOVED = ("auto", "i-optimal", "frontier", "ehvi", "ei")  # of earlier versions: they chased noise


def outcomes(
    build: Callable[[int], _R], measure: Callable[[int], float], counts: Sequence[int]
) -> list[tuple[_R, dict[int, float]]]:
    """The rule and what it was told, for each number of measurements of ``counts``.

    What one that asks by errors was told with fewer measurements is where it goes on with more.
    """
    found: dict[int, tuple[_R, dict[int, float]]] = {}
    before: tuple[object, dict[int, float]] = (None, {})
    for count in sorted(set(counts)):
        rule = build(count)
        kind = getattr(rule, "method", type(rule))
        told = run(rule, measure, before[1] if rule.sequential and before[0] == kind else {})
        found[count], before = (rule, told), (kind, told)
    return [found[count] for count in counts]
