"""An evaluation: what methods would have picked on each task of a known table, in the settings of Table 1.

:func:`evaluate` runs the loop of :mod:`peppp.evaluate.leave_one_out`, and an :class:`Evaluation` holds the
metrics of every pick.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peppp.errors import BudgetError, TableError
from peppp.evaluate.bootstrap import Interval, family_mean
from peppp.evaluate.judges import Judge, fixed
from peppp.evaluate.leave_one_out import SETTINGS, Leave, leave_one_out, new_task
from peppp.evaluate.scores import METRICS, scores
from peppp.learn.methods import DRAWN, PAPER_METHODS, Method
from peppp.learn.strategy import Strategy, strategy
from peppp.learn.task import Measured, Task, outcomes
from peppp.learn.threads import single_thread
from peppp.table.matrix import ErrorMatrix

MEMORY_USED = "memory_used"
MEASURED = "measured"


@dataclass(frozen=True)
class Evaluation:
    """``values`` [settings, methods, counts, seeds, rows, metrics]; NaN where nothing fits the cap.

    The metrics are those of :mod:`peppp.evaluate.scores`, then ``memory_used``, the memory of the
    measurements as a share of the memory of all permissible ones (the x axis of Figure 11), and ``measured``,
    the number of measurements.
    """

    known: ErrorMatrix
    settings: tuple[str, ...]
    methods: tuple[str, ...]
    counts: tuple[int, ...]
    seeds: tuple[int, ...]
    cap: float
    leave: Leave
    values: NDArray[np.float64]
    metrics: tuple[str, ...] = (*METRICS, MEMORY_USED, MEASURED)

    def of(self, metric: str, setting: str, method: str, count: int) -> NDArray[np.float64]:
        """A metric of each row, averaged over seeds: [n]."""
        place = self.settings.index(setting), self.methods.index(method), self.counts.index(count)
        values: NDArray[np.float64] = self.values[place][..., self.metrics.index(metric)].mean(axis=0)
        return values

    @property
    def families(self) -> tuple[str, ...]:
        """What the bootstrap resamples: families, or rows if rows were left out."""
        return self.known.families if self.leave == "family" else self.known.names

    def interval(self, metric: str, setting: str, method: str, count: int) -> Interval:
        """The mean of a metric over families, or rows if rows were left out, with its interval."""
        return family_mean(self.of(metric, setting, method, count), self.families)

    @property
    def judged_share(self) -> float:
        """The share of the picks that could be judged."""
        played = np.isfinite(self.values[..., self.metrics.index(MEASURED)])
        judged = np.isfinite(self.values[..., self.metrics.index("regret")])
        return float(judged[played].mean()) if played.any() else 1.0

    def summary(self, metrics: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """One record for each setting, method and count: mean, interval and standard error over rows."""
        records = []
        for setting in self.settings:
            for method in self.methods:
                for count in self.counts:
                    record: dict[str, Any] = {"setting": setting, "method": method, "measurements": count}
                    for metric in metrics or self.metrics:
                        values = self.of(metric, setting, method, count)
                        values = values[np.isfinite(values)]
                        found = self.interval(metric, setting, method, count)
                        record[metric] = found.mean
                        record[f"{metric}_low"], record[f"{metric}_high"] = found.low, found.high
                        spread = values.std(ddof=1) if len(values) > 1 else np.nan
                        record[f"{metric}_se"] = float(spread / np.sqrt(max(len(values), 1)))
                    records.append(record)
        return records

    def rows(self) -> list[dict[str, Any]]:
        """One record for each setting, method, count, seed and task."""
        return [
            {
                "setting": setting,
                "method": method,
                "measurements": count,
                "seed": seed,
                "task": self.known.names[i],
                "family": self.known.families[i],
                **dict(zip(self.metrics, self.values[s, m, c, r, i].tolist(), strict=True)),
            }
            for s, setting in enumerate(self.settings)
            for m, method in enumerate(self.methods)
            for c, count in enumerate(self.counts)
            for r, seed in enumerate(self.seeds)
            for i in range(len(self.known.names))
        ]


@single_thread()
def evaluate(
    known: ErrorMatrix,
    *,
    settings: Sequence[str] = ("I",),
    methods: Sequence[str] = PAPER_METHODS,
    counts: Sequence[int] = (1, 2, 3, 5, 8),
    seeds: Sequence[int] = (0,),
    rank: int = 3,
    shrinkage: float | None = None,
    share: float = 0.2,
    cap: float | None = None,
    leave: Leave = "family",
    relative_to_chance: bool = True,
    runs: NDArray[np.float64] | None = None,
    judge: Judge | NDArray[np.float64] | None = None,
    noise: float | None = None,
) -> Evaluation:
    """Evaluate every method in every setting on every task of a known table, as if the task were new.

    For the arguments see also :func:`peppp.evaluate.leave_one_out.leave_one_out`. By default everything is as
    in a pick; the paper's figures compare plain errors and use its lambda. ``cap`` bounds the memory in
    Settings II, IV and VI (default: the median of the table's memory). The only errors of the held-out row
    that a method sees are those it asks for, taken from ``runs`` [n, d] if given. A ``judge``
    (:mod:`peppp.evaluate.judges`, or errors [n, d]) supplies the true errors of picks; ``pick_error`` and
    ``regret`` are NaN where it has none. The other metrics compare estimated frontiers with those of the
    measured errors, as in the paper. ``noise`` is the standard deviation of a run's error, for ``gaussian``
    (default: learned from the table).

    Raises Lacking for a table with too few rows or families, TableError for an unknown name or an unusable
    count or share, and BudgetError for a cap below every footprint.

    >>> from peppp.paper.synthetic import synthetic_table
    >>> from peppp.table.measured import error_matrix
    >>> known = error_matrix(synthetic_table(11, further=False))  # invented errors
    >>> found = evaluate(known, methods=("ed-mf", "zero"), counts=(4,))
    >>> bool(found.interval("relative_error", "I", "ed-mf", 4).mean < 0.5)
    True
    """
    known.require()
    parsed = [Method.parse(name) for name in methods]
    limit = _checked(known, settings, methods, counts, share, cap)
    measured = known.values if runs is None else runs
    truth = fixed(measured) if judge is None else judge if callable(judge) else fixed(judge)
    judged = np.array(
        [np.isfinite(measured[i]) & np.isfinite(truth(i, {}).errors) for i in range(len(known.rows))]
    )
    shape = (len(settings), len(methods), len(counts), len(seeds), len(known.rows), len(METRICS) + 2)
    values = np.full(shape, np.nan)
    how: dict[str, Any] = {
        "leave": leave, "share": share, "rank": rank, "shrinkage": shrinkage,
        "relative_to_chance": relative_to_chance,
    }  # fmt: skip
    for r, seed in enumerate(seeds):
        for kind in dict.fromkeys(SETTINGS[name].sampling for name in settings):
            for i, learned in leave_one_out(known, sampling=kind, seed=seed, **how):
                for s, name in enumerate(settings):
                    task = new_task(
                        known, i, within=judged[i], limit=limit if SETTINGS[name].capped else np.inf,
                        relative_to_chance=relative_to_chance,
                    )  # fmt: skip
                    if SETTINGS[name].sampling != kind or task is None:
                        continue
                    for j, method in enumerate(parsed):
                        if r and kind == "full" and method.design not in DRAWN:  # nothing is random
                            values[s, j, :, r, i] = values[s, j, :, 0, i]
                            continue
                        played = outcomes(
                            lambda count, m=method, t=task, c=learned, key=(seed, i): strategy(  # type: ignore[misc]
                                m, c, t, count, seed=key, noise=noise
                            ),
                            measured[i].item,
                            counts,
                        )
                        for c, (found, errors) in enumerate(played):
                            values[s, j, c, r, i, :-2] = _scored(
                                task, measured[i], truth(i, errors).errors, found, errors
                            )
                        everything = task.memory[task.feasible].sum()
                        used = [task.memory[list(errors)].sum() / everything for _, errors in played]
                        values[s, j, :, r, i, -2] = used
                        values[s, j, :, r, i, -1] = [len(errors) for _, errors in played]
    texts = tuple(str(method) for method in parsed)
    return Evaluation(known, tuple(settings), texts, tuple(counts), tuple(seeds), limit, leave, values)


def _scored(
    task: Task, errors: NDArray[np.float64], truth: NDArray[np.float64], found: Strategy, measured: Measured
) -> list[float]:
    """The ``METRICS``: of the frontier by the measured errors, of the pick by the truth (NaN: unknown)."""
    scored = scores(task.memory, errors, found.errors(measured), task.feasible)
    judged, error = task.feasible & np.isfinite(truth), truth[found.pick(measured)]
    least = truth[judged].min() if judged.any() else np.nan
    scored |= {"pick_error": error, "regret": error - least}
    return [float(np.squeeze(scored[metric])) for metric in METRICS]


def _checked(
    known: ErrorMatrix,
    settings: Sequence[str],
    methods: Sequence[str],
    counts: Sequence[int],
    share: float,
    cap: float | None,
) -> float:
    """Check the arguments; return the cap of Settings II, IV and VI."""
    for name in settings:
        if name not in SETTINGS:
            raise TableError(f"no setting {name!r}; there are {', '.join(SETTINGS)} (Table 1 of the paper)")
    if not settings or not methods or not counts:
        raise TableError(
            "an evaluation needs a setting, a method and a number of measurements, such as I, ed-mf, 3"
        )
    if any(count < 0 for count in counts):
        raise TableError(f"the number of measurements must be 0 or more, not {min(counts)}")
    if not 0 < share <= 1:
        raise TableError(f"the share of the table must be above 0, up to 1, not {share:g}")
    limit = float(np.median(known.bytes)) if cap is None else float(cap)
    if any(SETTINGS[s].capped for s in settings) and not (known.bytes <= limit).any():
        raise BudgetError(
            f"a cap of {limit:.0f}B is below every footprint of the table; the smallest is "
            f"{known.bytes.min():.0f}B"
        )
    return limit
