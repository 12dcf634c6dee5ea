"""Whether intervals hold what they promise: each family of a known table in turn is the new one.

Nothing about the held out family is used: the completion, the Gaussian and the calibration see the other rows
only. The interval score of Gneiting and Raftery (2007) charges width, and 2 / 0.1 times what lies outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peppp.labels import groups as groups_of
from peppp.metalearn.belief import Knowledge
from peppp.metalearn.methods import explore
from peppp.metalearn.threads import single_thread
from peppp.replay.intervals import Interval, family_mean
from peppp.replay.loocv import SETTINGS, Leave, splits, train
from peppp.tables import ErrorMatrix

COLUMNS = ("covered", "score", "width", "pick_covered")
_ALPHA = 0.1


@dataclass(frozen=True)
class Coverage:
    """``values`` [settings, counts, rows, 4]: mean over seeds of ``COLUMNS``; NaN where nothing fits.

    ``covered`` is the share of a row's unmeasured known errors that their 90 % interval holds, ``score`` the
    mean interval score, ``width`` the mean width, ``pick_covered`` whether the interval of the picked
    configuration holds its error, where it was not measured: the choice favours what was underestimated.
    """

    settings: tuple[str, ...]
    counts: tuple[int, ...]
    families: tuple[str, ...]
    values: NDArray[np.float64]

    def interval(self, column: str, setting: str, count: int) -> Interval:
        """The mean over families, with its 95 % bootstrap interval."""
        at = self.settings.index(setting), self.counts.index(count)
        return family_mean(self.values[at][:, COLUMNS.index(column)], self.families)

    def summary(self) -> list[dict[str, Any]]:
        """A record for each setting and count."""
        records = []
        for setting in self.settings:
            for count in self.counts:
                record: dict[str, Any] = {"setting": setting, "measurements": count}
                for column in COLUMNS:
                    found = self.interval(column, setting, count)
                    record[column] = found.mean
                    record[f"{column}_low"], record[f"{column}_high"] = found.low, found.high
                records.append(record)
        return records


@single_thread()
def coverage(
    known: ErrorMatrix,
    *,
    settings: Sequence[str] = ("I", "II", "IV"),
    counts: Sequence[int] = (0, 1, 2, 3, 5, 8),
    seeds: Sequence[int] = (0,),
    method: str = "ed-mf",
    rank: int = 3,
    shrinkage: float | None = None,
    share: float = 0.2,
    cap: float | None = None,
    leave: Leave = "family",
) -> Coverage:
    """How often the 90 % intervals around the predictions of ``method`` hold the error, by replay.

    Arguments are those of :func:`peppp.replay.loocv.evaluate`. Raises Lacking for a table that is too small.

    >>> from peppp.replay.synthetic import synthetic_table
    >>> from peppp.tables import error_matrix
    >>> known = error_matrix(synthetic_table(15, further=False))  # invented errors
    >>> found = coverage(known, settings=("I",), counts=(3,)).interval("covered", "I", 3)
    >>> bool(found.mean > 0.6)
    True
    """
    known.require()
    limit = float(np.median(known.bytes)) if cap is None else cap
    shape = (len(settings), len(counts), len(seeds), len(known.names), len(COLUMNS))
    values = np.full(shape, np.nan)
    for r, seed in enumerate(seeds):
        for split, (training, held) in enumerate(splits(known, leave)):
            families = [known.families[i] for i in training]
            for s, name in enumerate(settings):
                setting = SETTINGS[name]
                completed = train(
                    known.values[training], known.bytes[training], known.observed[training], setting.sampling,
                    share=share, rank=rank, shrinkage=shrinkage, seed=[seed, split],
                    groups=groups_of(known.columns),
                )  # fmt: skip
                for i in held:
                    m, truth = known.bytes[i], known.values[i]
                    feasible = known.observed[i] & (m <= limit if setting.capped else True)
                    if not feasible.any():
                        continue
                    # By memory alone: which of its errors are known tells nothing of a new task.
                    measurable = m <= limit if setting.capped else np.ones(len(m), dtype=bool)
                    knowledge = Knowledge(completed, range(len(m)), families, m, measurable)
                    explored = explore(
                        method,
                        completed,
                        truth.item,
                        counts,
                        memory=m,
                        feasible=feasible,
                        seed=[seed, int(i)],
                    )
                    for c, found in enumerate(explored):
                        S = found.chosen
                        belief = knowledge.believe(
                            method, S.tolist(), truth[S], found.estimate, feasible=feasible
                        )
                        judged = known.observed[i].copy()
                        judged[S] = False
                        values[s, c, r, i] = _scored(truth, belief.low, belief.high, judged)
                        pick = int(np.where(feasible, np.clip(found.estimate, 0, 1), np.inf).argmin())
                        if judged[pick]:
                            held_it = belief.low[pick] <= truth[pick] <= belief.high[pick]
                            values[s, c, r, i, -1] = float(held_it)
    counted = np.isfinite(values).sum(axis=2)
    means = np.where(counted, np.nansum(values, axis=2) / np.maximum(counted, 1), np.nan)
    return Coverage(tuple(settings), tuple(counts), known.families, means)


def _scored(
    truth: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    judged: NDArray[np.bool_],
) -> list[float]:
    if not judged.any():
        return [np.nan] * len(COLUMNS)
    e, a, b = truth[judged], low[judged], high[judged]
    outside = np.maximum(a - e, 0.0) + np.maximum(e - b, 0.0)
    score = (b - a) + 2.0 / _ALPHA * outside
    return [float((outside == 0).mean()), float(score.mean()), float((b - a).mean()), np.nan]
