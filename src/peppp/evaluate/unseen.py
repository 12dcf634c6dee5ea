"""Whether formats that a table lacks are predicted, and honestly: each Format A in turn is taken out of it.

The family of the new task is held out as well. What is predicted at the missing configurations, by precision
and range alone, is compared with their errors, beside the naive answer: what is predicted at the nearest one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peppp.evaluate.bootstrap import family_mean, family_ratio
from peppp.evaluate.judges import noise_free
from peppp.evaluate.leave_one_out import leave_one_out, new_task
from peppp.learn.belief import GAUSSIAN_90, unseen
from peppp.learn.descriptors import point
from peppp.learn.methods import DEFAULT_METHOD, run
from peppp.learn.strategy import strategy
from peppp.learn.threads import single_thread
from peppp.table.matrix import ErrorMatrix

COLUMNS = ("covered", "score", "width", "miss", "nearest", "seen_width")
_ALPHA = 0.1


@dataclass(frozen=True)
class Unseen:
    """``values`` [counts, formats, rows, 6], NaN where nothing is known.

    ``covered``, ``score`` and ``width`` are those of :mod:`peppp.evaluate.coverage` at the missing
    configurations; ``miss`` is the root mean square of what the prediction misses there, ``nearest`` of the
    naive one; ``seen_width`` is the width of the intervals at the unmeasured configurations of the table.
    """

    counts: tuple[int, ...]
    formats: tuple[str, ...]
    families: tuple[str, ...]
    values: NDArray[np.float64]

    def summary(self, by_format: bool = False) -> list[dict[str, Any]]:
        """A record for each count, or each count and format: means over families with 95 % intervals."""
        records = []
        for c, count in enumerate(self.counts):
            for k, name in enumerate(self.formats) if by_format else [(slice(None), "all")]:
                values = self.values[c, k]
                rows = values if by_format else np.nanmean(values, axis=0)
                record: dict[str, Any] = {"measurements": count, "format_a": name}
                for column, at in zip(COLUMNS, rows.T, strict=True):
                    found = family_mean(at, self.families)
                    record[column] = found.mean
                    record[f"{column}_low"], record[f"{column}_high"] = found.low, found.high
                ratio = family_ratio(rows[:, 3], rows[:, 4], self.families)
                record |= {"ratio": ratio.mean, "ratio_low": ratio.low, "ratio_high": ratio.high}
                records.append(record)
        return records


@single_thread()
def left_out_formats(
    known: ErrorMatrix, *, counts: Sequence[int] = (0, 3), method: str = DEFAULT_METHOD
) -> Unseen:
    """Leave out one family and one Format A at a time; predict the errors of the one at the other.

    Judged by noise-free errors, as in :mod:`peppp.evaluate.coverage`.

    ``counts`` are the measurements made by ``method`` at the configurations that remain. Raises Lacking for
    a table that is too small.
    """
    known.require()
    of = np.array([str(c.format_a) for c in known.configurations])
    points = np.array([point(c) for c in known.configurations])
    formats = tuple(dict.fromkeys(of.tolist()))
    values = np.full((len(counts), len(formats), len(known.rows), len(COLUMNS)), np.nan)
    truth_of = noise_free(known)
    for f, name in enumerate(formats):
        out = of == name
        rest = known.take(np.arange(len(known.rows)), ~out)
        gone = [known.configurations[j] for j in np.flatnonzero(out)]
        apart = ((points[out][:, None] - points[~out]) ** 2).sum(axis=2)
        nearest = apart.argmin(axis=1)
        for i, learned in leave_one_out(rest):
            judged, task = known.observed[i, out], new_task(rest, i)
            if not judged.any() or task is None:
                continue
            for c, count in enumerate(counts):
                found = strategy(DEFAULT_METHOD, learned, task, count)
                told = run(found, rest.values[i].item)
                belief, errors = found.believe(told), found.errors(told)
                error, low, high = (ends[judged] for ends in unseen(learned, task, gone, errors, belief))
                truth, runs = (of_all[out][judged] for of_all in truth_of(i, {}))
                if belief.noise is not None:  # the truth is a mean of few runs
                    wider = GAUSSIAN_90 * np.sqrt(belief.noise.mean() / np.maximum(runs, 1))
                    half, middle = np.hypot((high - low) / 2, wider), (high + low) / 2
                    low, high = middle - half, middle + half
                outside = np.maximum(low - truth, 0.0) + np.maximum(truth - high, 0.0)
                open_to = np.delete(belief.high - belief.low, list(told))
                values[c, f, i] = [
                    (outside == 0).mean(),
                    (high - low + 2.0 / _ALPHA * outside).mean(),
                    (high - low).mean(),
                    np.sqrt(((error - truth) ** 2).mean()),
                    np.sqrt(((errors[nearest][judged] - truth) ** 2).mean()),
                    open_to.mean(),
                ]
    return Unseen(tuple(counts), formats, known.families, values)
