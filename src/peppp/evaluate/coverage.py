"""Whether intervals hold what they promise: each family of a known table in turn is the new one.

Nothing about the held out family is used: the Gaussian learns from the other rows only. Intervals are those
of noise-free errors. The table knows these as means of few runs (:mod:`peppp.evaluate.judges`), so each
interval is widened by what such a mean scatters. The interval score of Gneiting and Raftery (2007) charges
width, and 2 / 0.1 times what lies outside.
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
from peppp.learn.methods import DEFAULT_METHOD, run
from peppp.learn.strategy import strategy
from peppp.learn.threads import single_thread
from peppp.table.matrix import ErrorMatrix

COLUMNS = ("covered", "score", "width", "pick_covered")
_ALPHA = 0.1


@dataclass(frozen=True)
class Coverage:
    """``values`` [settings, counts, rows, 4]: mean over seeds of ``COLUMNS``; NaN where nothing fits.

    ``covered`` is the share of a row's noise-free errors that their 90 % interval holds, ``score`` the mean
    interval score, ``width`` the mean width, ``pick_covered`` whether the interval of the picked
    configuration holds its error: the choice favours what was underestimated.
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
    share: float = 0.2,
    cap: float | None = None,
    leave: Leave = "family",
    judge: Judge | None = None,
) -> Coverage:
    """How often the default method's 90 % intervals hold the noise-free error, by replay.

    The ``judge`` knows these errors (default: the means of the table's runs). Other arguments are those of
    :func:`peppp.evaluate.leave_one_out.evaluate`; all is as in a pick. Raises Lacking for a table that is too
    small.

    >>> from peppp.paper.synthetic import synthetic_table
    >>> from peppp.table.matrix import error_matrix
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
                continue  # nothing is drawn anew
            for i, learned in leave_one_out(
                known, sampling=SETTINGS[name].sampling, seed=seed, leave=leave, share=share
            ):
                task = new_task(known, i, limit=limit if SETTINGS[name].capped else np.inf)
                if task is None:
                    continue
                for c, count in enumerate(counts):
                    found = strategy(DEFAULT_METHOD, learned, task, count)
                    told = run(found, known.values[i].item)
                    belief, truth = found.believe(told), truth_of(i, told)
                    if belief.noise is None:
                        continue  # too few tasks to learn from
                    wider = GAUSSIAN_90 * np.sqrt(belief.noise / np.maximum(truth.runs, 1))
                    middle, half = (belief.high + belief.low) / 2, (belief.high - belief.low) / 2
                    half = np.hypot(half, wider)
                    judged = known.observed[i] & np.isfinite(truth.errors)
                    values[s, c, r, i] = _scored(truth.errors, middle - half, middle + half, judged)
                    pick = found.pick(told)
                    if judged[pick]:
                        held_it = abs(truth.errors[pick] - middle[pick]) <= half[pick]
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
