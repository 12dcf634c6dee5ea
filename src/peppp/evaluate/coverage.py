"""Check how often the intervals contain the true error: each family of a known table in turn is the new one.

Nothing about the held-out family is used: the Gaussian learns from the other rows only. The intervals are for
noise-free errors, which the table knows only as means of few runs (:mod:`peppp.evaluate.judges`). Each
interval is therefore widened by the noise of such a mean. The interval score of Gneiting and Raftery (2007)
adds the width and 2 / 0.1 times the distance by which an error lies outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peppp.evaluate.bootstrap import Interval, family_mean
from peppp.evaluate.judges import Judge, noise_free
from peppp.evaluate.leave_one_out import SETTINGS, Leave, leave_one_out, new_task
from peppp.learn.belief import GAUSSIAN_90
from peppp.learn.methods import DEFAULT_METHOD
from peppp.learn.strategy import strategy
from peppp.learn.task import run
from peppp.learn.threads import single_thread
from peppp.table.matrix import ErrorMatrix

COLUMNS = ("covered", "score", "width", "pick_covered")
_ALPHA = 0.1


@dataclass(frozen=True)
class Coverage:
    """``values`` [settings, counts, rows, 4]: the ``COLUMNS``, averaged over seeds; NaN where nothing fits.

    ``covered`` is the share of a row's noise-free errors that lie in their 90 % interval, ``score`` the mean
    interval score, and ``width`` the mean width. ``pick_covered`` says whether the interval of the picked
    configuration contains its error; a pick favours errors that were underestimated.
    """

    settings: tuple[str, ...]
    counts: tuple[int, ...]
    families: tuple[str, ...]
    values: NDArray[np.float64]

    def interval(self, column: str, setting: str, count: int) -> Interval:
        """The mean of a column over families, with its 95 % bootstrap interval."""
        at = self.settings.index(setting), self.counts.index(count)
        return family_mean(self.values[at][:, COLUMNS.index(column)], self.families)

    def summary(self) -> list[dict[str, Any]]:
        """One record for each setting and count."""
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
    share: float = 0.2,
    cap: float | None = None,
    leave: Leave = "family",
    judge: Judge | None = None,
) -> Coverage:
    """Replay how often the 90 % intervals of the default method contain the noise-free error.

    The ``judge`` supplies the noise-free errors (default: the means of the table's runs). For the other
    arguments see :func:`peppp.evaluate.evaluation.evaluate`; everything is as in a pick. Raises Lacking if
    the table is too small.

    >>> from peppp.paper.synthetic import synthetic_table
    >>> from peppp.table.measured import error_matrix
    >>> known = error_matrix(synthetic_table(15, further=False))  # invented errors
    >>> found = coverage(known, settings=("I",), counts=(3,)).interval("covered", "I", 3)
    >>> bool(found.mean > 0.6)
    True
    """
    known.require()
    truth_of = noise_free(known) if judge is None else judge
    limit = float(np.median(known.bytes)) if cap is None else cap
    shape = (len(settings), len(counts), len(seeds), len(known.rows), len(COLUMNS))
    values = np.full(shape, np.nan)
    for r, seed in enumerate(seeds):
        for s, name in enumerate(settings):
            if r and SETTINGS[name].sampling == "full":
                continue  # nothing is random, so other seeds repeat the first
            for i, learned in leave_one_out(
                known, sampling=SETTINGS[name].sampling, seed=seed, leave=leave, share=share
            ):
                task = new_task(known, i, limit=limit if SETTINGS[name].capped else np.inf)
                if task is None:
                    continue
                for c, count in enumerate(counts):
                    found = strategy(DEFAULT_METHOD, learned, task, count)
                    measured = run(found, known.values[i].item)
                    belief, truth = found.believe(measured), truth_of(i, measured)
                    if belief.noise is None:
                        continue  # too few tasks to learn from
                    wider = GAUSSIAN_90 * np.sqrt(belief.noise / np.maximum(truth.runs, 1))
                    middle, half = (belief.high + belief.low) / 2, (belief.high - belief.low) / 2
                    half = np.hypot(half, wider)
                    judged = known.observed[i] & np.isfinite(truth.errors)
                    values[s, c, r, i] = _scored(truth.errors, middle - half, middle + half, judged)
                    pick = found.pick(measured)
                    if judged[pick]:
                        holds = abs(truth.errors[pick] - middle[pick]) <= half[pick]
                        values[s, c, r, i, -1] = float(holds)
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
