"""The advisor: it asks for the errors of a few configurations on a new task, and picks a configuration.

By default, a Gaussian learned from the errors of other tasks determines what to measure and what to believe
(:mod:`peppp.learn.noise_free`). The paper's ED-MF and other methods are available, too. The caller does the
training, so nothing here needs torch.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from peppp import pareto
from peppp.advise import requests
from peppp.advise.pick import Pick
from peppp.advise.predictions import Prediction, Reference
from peppp.arguments import checked
from peppp.formats import Configuration
from peppp.learn.belief import GAUSSIAN_90, Belief
from peppp.learn.completion import complete
from peppp.learn.methods import DEFAULT_METHOD
from peppp.learn.noise_free import TOLERANCE
from peppp.learn.strategy import strategy
from peppp.learn.task import Task
from peppp.records import Footprint
from peppp.table.labels import Label, as_label
from peppp.table.matrix import ErrorMatrix
from peppp.units import parse_bytes


class Advisor:
    """Choose what to measure on a new task and, from the measured errors, the configuration to train with.

    ``table`` holds the errors of other tasks. ``footprints`` holds the new task's bytes for the table's
    columns, as a :class:`~peppp.records.Footprint` or a total. Columns without a footprint are learned from,
    but not chosen; footprints without a column are ignored.
    ``peaks`` are bytes of the same columns that the budget and the cap bound instead, such as the peak of a
    training step. ``cap`` bounds the memory of the measurements (default: the budget); both bounds are
    inclusive. ``rank`` and ``shrinkage`` are passed to :func:`peppp.learn.completion.complete`. With
    ``chance_error``, the error of guessing on the new task, errors are compared as multiples of it; without,
    as they are. The arguments are never changed.

    ``fp32_error`` is the error of an fp32 training on the new task, if it is known. The table must then have
    a column fp32/fp32 without a footprint.

    ``noise`` is the standard deviation of the error over trainings that differ only in their seed. By
    default, ``gaussian`` learns it from the table, which needs columns that are configurations, or repeated
    runs.

    ``method`` is one of :mod:`peppp.learn.methods`. The default, ``gaussian``, treats a measured error as one
    noisy run, picks the least expected error (among errors within ``tolerance``, the least memory), and asks
    for at most ``measurements``, fewer once another training is not worth it. With ``until_sure``, a
    probability, it also stops once the pick is at most ``tolerance`` above the best with that probability.
    The other methods have no intervals and no probabilities.

    Raises TableError if no column has a footprint, or an argument does not suit the table or the method.
    Raises BudgetError if nothing fits in the budget or the cap, if ``measurements`` is negative or, except
    for ``gaussian``, if fewer than ``measurements`` configurations fit in the cap.

    >>> from peppp.formats import paper_grid
    >>> from peppp.table.matrix import Row
    >>> a, b, c = paper_grid()[:3]
    >>> errors = np.outer([0.5, 1.0], [0.8, 0.4, 0.2])  # the second task is twice as hard throughout
    >>> table = ErrorMatrix.from_values(errors, [Row("easy", "", ""), Row("hard", "", "")], [a, b, c])
    >>> footprints = {x: Footprint(10, 0, 0, {"momentum": i}) for i, x in enumerate([a, b, c])}
    >>> advisor = Advisor(table, footprints, budget=11, measurements=1, method="ed-mf")  # a tiny table
    >>> while (configuration := advisor.ask()) is not None:
    ...     advisor.tell(configuration, error={a: 0.6, b: 0.3}[configuration])  # trained by the caller
    >>> pick = advisor.recommend()  # c is beyond the budget
    >>> dict(pick.measured) == {a: 0.6}, pick.configuration == b, round(pick.predicted_error, 3)
    (True, True, 0.3)
    """

    @checked
    def __init__(
        self,
        table: ErrorMatrix,
        footprints: Mapping[Configuration, Footprint] | Mapping[Label, Footprint | int],
        budget: int | str,
        *,
        measurements: int = 6,
        cap: int | str | None = None,
        rank: int = 3,
        shrinkage: float | None = None,
        chance_error: float | None = None,
        task: str = "",
        network: str = "",
        method: str = DEFAULT_METHOD,
        until_sure: float | None = None,
        tolerance: float = TOLERANCE,
        fp32_error: float | None = None,
        noise: float | None = None,
        peaks: Mapping[Configuration, int] | Mapping[Label, int] | None = None,
    ) -> None:
        chosen = requests.check_request(method, until_sure, noise)
        requests.check_numbers(chosen, fp32_error, chance_error, tolerance)
        self.footprints = requests.footprints_of(table.columns, footprints)
        self.configurations = tuple(self.footprints)
        self.budget, self.measurements = parse_bytes(budget), measurements
        self.task, self.network = task, network
        self._peaks = None if peaks is None else requests.peaks_of(self.configurations, peaks)
        self._memory = np.array(  # [d] bytes
            [f.total for f in self.footprints.values()] if self._peaks is None else [*self._peaks.values()]
        )
        self._permissible = self._within(self.budget, "a budget")
        measurable = self._permissible if cap is None else self._within(parse_bytes(cap), "a cap")
        if chosen.design == DEFAULT_METHOD:  # for which measurements is only a maximum
            measurements = self.measurements = min(measurements, int(measurable.sum()))
        requests.check_count(measurements, int(measurable.sum()))
        # Learn from the whole table, including the columns without a footprint.
        learned = complete(table, rank=rank, shrinkage=shrinkage, relative_to_chance=chance_error is not None)
        columns = [j for j, label in enumerate(table.columns) if label in self.footprints]
        self._learned = learned.take(columns)
        scale = 1.0 if chance_error is None else chance_error
        self.new_task = Task(self._memory, self._permissible, measurable, scale)
        self._reference = requests.fp32_column(table.columns, self.footprints, fp32_error)
        self._fp32_error = fp32_error
        beyond = {} if fp32_error is None or self._reference is None else {self._reference: fp32_error}
        self._strategy = strategy(
            chosen, learned, self.new_task, measurements, tolerance=tolerance, columns=columns, beyond=beyond,
            noise=noise,
        )  # fmt: skip
        self._notes = requests.noise_notes(noise, table) if chosen.design == DEFAULT_METHOD else ()
        self._until_sure, self._tolerance = until_sure, tolerance
        self._column = {configuration: j for j, configuration in enumerate(self.configurations)}
        self._measured: dict[Label, float] = {}
        self._judged: dict[int, Belief] = {}  # by the number of measured errors
        self.plan: tuple[Label, ...] = self._labels(self._strategy.next({}, measurements))

    def ask(self) -> Label | None:
        """The next configuration to measure, or None once enough is known.

        A method that is not :attr:`sequential`, such as ``ed-mf``, follows ``plan``, whose configurations can
        also be measured at once (``ed-mf`` plans the most informative first). A sequential method looks at
        the errors observed so far. Asking alone changes nothing. Errors given without being asked for
        count as measurements.
        """
        return next(iter(self.batch(1)), None)

    @checked
    def batch(self, count: int) -> list[Label]:
        """The next ``count`` configurations to measure at once, or fewer if fewer are wanted."""
        if self.stopped:
            return []
        return list(self._labels(self._strategy.next(self._by_column(), count)))

    @property
    def method(self) -> str:
        """The name of the method in use."""
        return str(self._strategy.method)

    @property
    def observed(self) -> Mapping[Label, float]:
        """The errors observed so far, in the order in which :meth:`tell` was given them."""
        return MappingProxyType(self._measured)

    @property
    def measurable(self) -> tuple[Label, ...]:
        """The configurations within the cap, in the table's order."""
        return self._labels(np.flatnonzero(self.new_task.measurable).tolist())

    @property
    def sequential(self) -> bool:
        """Whether the next configuration to measure depends on the errors observed so far."""
        return self._strategy.sequential

    @property
    def stopped(self) -> str:
        """Why it asks for nothing more although it could; empty if it does not stop early."""
        enough = self._strategy.enough(self._by_column())
        if enough or self._until_sure is None:
            return enough
        return self._belief().enough(self._best(), self._until_sure, len(self.observed))

    @checked
    def tell(self, configuration: Label, error: float) -> None:
        """Record a measured error, a fraction in [0, 1], whether it was asked for or not.

        Raises TableError for an unknown configuration, an error outside [0, 1], or a second, different error
        for the same configuration.
        """
        configuration, error = as_label(configuration), float(error)
        requests.check_error(configuration, error, self._column, self.observed)
        self._measured.setdefault(configuration, error)

    def predictions(self) -> tuple[Prediction, ...]:
        """What is believed about each configuration, in the table's order; errors are clipped to [0, 1].

        Without any measurement, the errors are the means of the completed table's columns, or the Gaussian's.
        """
        belief = self._belief()
        return tuple(
            Prediction(
                configuration=configuration,
                estimated_error=float(estimate),
                measured_error=self.observed.get(configuration),
                footprint=footprint,
                peak=None if self._peaks is None else self._peaks[configuration],
                permissible=bool(self._permissible[j]),
                interval=None if belief.unsure else (float(belief.low[j]), float(belief.high[j])),
                on_frontier=None if belief.on_frontier is None else float(belief.on_frontier[j]),
                near_best=None if belief.near_best is None else float(belief.near_best[j]),
                settled=self._strategy.settles,
            )
            for j, (estimate, (configuration, footprint)) in enumerate(
                zip(self._strategy.predict(self._by_column()), self.footprints.items(), strict=True)
            )
        )

    def recommend(self) -> Pick:
        """The configuration with the least error within the budget; ties go to the least memory.

        Without a tolerance, it is the Pareto optimal one with the highest allowed memory, as in section 3.2.
        ``gaussian`` and ``two-best`` go by estimated errors only, the other methods by measured errors where
        there are any. It can be called at any time.
        """
        predictions = self.predictions()
        optimal = pareto.frontier(self._memory, self._errors(), self._permissible)
        best = predictions[self._best()]
        return Pick(
            configuration=best.configuration,
            predicted_error=best.error,
            interval=best.interval,
            footprint=best.footprint,
            budget=self.budget,
            predictions=predictions,
            frontier=self._labels(optimal.tolist()),
            rank=self._strategy.rank,
            reliable=self._strategy.reliable(self._by_column()),
            task=self.task,
            network=self.network,
            sureness=best.near_best,
            method=self.method,
            tolerance=self._strategy.tolerance,
            stopped=self.stopped,
            reference=self.fp32(),
            notes=(*self._notes, *self._as_good(best)),
            run_interval=self._belief().run_interval(self._errors(), self._best()),
            saving=self._strategy.saving(self._by_column()),
        )

    def fp32(self) -> Reference | None:
        """What is believed about fp32 on the new task; None if the table or the method has no estimate.

        It is also None if fp32 has a footprint, and so is one of the configurations.
        """
        if self._reference is None:
            return None
        if self._fp32_error is not None:
            return Reference(self._fp32_error, None, "given")
        found = self._strategy.elsewhere(self._by_column(), self._reference)
        return found and Reference(found[0], found[1:], "estimated")

    def _as_good(self, best: Prediction) -> tuple[str, ...]:
        """A note if the pick's Format A was not trained, and a trained configuration may be as good."""
        covariance, measured = self._belief().covariance, self._by_column()
        groups = self._learned.groups
        if covariance is None or not measured or groups is None:
            return ()
        j, errors = self._column[best.configuration], self._errors()
        tried = [k for k in measured if self._permissible[k]]
        if not tried or groups[j] in groups[tried]:
            return ()
        k = min(tried, key=lambda k: (errors[k], self._memory[k]))
        spread = float(covariance[j, j] + covariance[k, k] - 2 * covariance[j, k]) ** 0.5
        if errors[k] - errors[j] > GAUSSIAN_90 * spread:
            return ()
        return (
            f"{self.configurations[k]}, which was trained, has an expected error "
            f"{errors[k] - errors[j]:.3f} higher; the estimates cannot distinguish the two",
        )

    def _labels(self, columns: Sequence[int]) -> tuple[Label, ...]:
        return tuple(self.configurations[j] for j in columns)

    def _belief(self) -> Belief:
        count = len(self.observed)  # identifies them: observed errors never change
        if count not in self._judged:
            self._judged[count] = self._strategy.believe(self._by_column(), self._tolerance)
        return self._judged[count]

    def _errors(self) -> NDArray[np.float64]:
        """The errors [d] that the pick goes by: measured or estimated, depending on the method."""
        return pareto.settled(self._strategy.errors(self._by_column()))

    def _best(self) -> int:
        return self._strategy.pick(self._by_column())

    def _by_column(self) -> dict[int, float]:
        """The measured errors, by the index of the column."""
        return {self._column[c]: error for c, error in self._measured.items()}

    def _within(self, limit: int, name: str) -> NDArray[np.bool_]:
        sizes = dict(zip(self.configurations, self._memory.tolist(), strict=True))
        requests.check_limit(limit, name, sizes, "footprint" if self._peaks is None else "peak")
        return np.asarray(self._memory <= limit)  # [d]
