"""Whether cheap looks pay: picks with and without them at equal training time, from a table's curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peppp.metalearn.completion import Completion
from peppp.metalearn.looks import LookModel, learn_looks, next_training
from peppp.metalearn.methods import explore, prior_of
from peppp.metalearn.sequential import Design
from peppp.metalearn.threads import single_thread
from peppp.records import Measurement
from peppp.replay.intervals import family_mean, family_ratio
from peppp.replay.known import KnownTable
from peppp.replay.loocv import SETTINGS, splits, train
from peppp.replay.scores import scores
from peppp.replay.slices import main_seed

METRICS = ("hyperdiff", "regret", "relative_error")


@dataclass(frozen=True)
class LookReplay:
    """``values`` [2, settings, counts, rows, metrics]: whole trainings only, then with looks."""

    settings: tuple[str, ...]
    counts: tuple[int, ...]
    families: tuple[str, ...]
    values: NDArray[np.float64]
    looked: NDArray[np.float64]

    def summary(self) -> list[dict[str, Any]]:
        """Both means, their ratio and their difference with 95 % intervals, and how many looks there were."""
        records = []
        for s, setting in enumerate(self.settings):
            for c, count in enumerate(self.counts):
                for k, metric in enumerate(METRICS):
                    whole, looks = self.values[0, s, c, :, k], self.values[1, s, c, :, k]
                    ratio = family_ratio(looks, whole, self.families)
                    difference = family_mean(looks - whole, self.families)
                    records.append(
                        {
                            "setting": setting, "trainings": count, "metric": metric,
                            "whole": family_mean(whole, self.families).mean,
                            "with_looks": family_mean(looks, self.families).mean,
                            "ratio": ratio.mean, "low": ratio.low, "high": ratio.high,
                            "difference": difference.mean,
                            "difference_low": difference.low, "difference_high": difference.high,
                            "looks": float(np.nanmean(self.looked[s, c, :, 0])),
                            "whole_ones": float(np.nanmean(self.looked[s, c, :, 1])),
                        }
                    )  # fmt: skip
        return records


@single_thread()
def replay_looks(
    known: KnownTable,
    measurements: Sequence[Measurement],
    *,
    epochs: Sequence[int] = (1, 3),
    settings: Sequence[str] = ("I", "II", "IV"),
    counts: Sequence[int] = (1, 2, 3, 5, 8),
    design: Design = "frontier",
    share: float = 0.2,
    seed: int = 0,
    judge: NDArray[np.float64] | None = None,
) -> LookReplay:
    """Each family in turn is new: which pick is better after as many epochs as ``counts`` trainings take.

    Both ways measure by the same ``design`` from the same Gaussian; a whole training shows its looks, too,
    and a look is not resumed: training that configuration whole costs all of its epochs again. What looks are
    worth is learned from the other families' curves. ``measurements`` are those that ``known`` was made of,
    ``judge`` is that of :func:`peppp.replay.loocv.evaluate`.
    """
    curves, lengths = _curves(known, measurements, epochs)
    judged = known.known if judge is None else known.known & np.isfinite(judge)
    truths = known.errors if judge is None else np.where(judged, judge, 1.0)
    limit = float(np.median(known.memory))
    shape = (len(settings), len(counts), len(known.names))
    values = np.full((2, *shape, len(METRICS)), np.nan)
    looked = np.full((*shape, 2), np.nan)
    for split, (training, held) in enumerate(splits(known, "family")):
        apart = {known.tasks[i] for i in held}
        model = learn_looks(
            [m for m in measurements if m.fingerprint not in apart], epochs, relative_to_chance=False
        )
        for s, name in enumerate(settings):
            completed = train(
                known.errors[training], known.memory[training], known.known[training],
                SETTINGS[name].sampling, share=share, rank=3, shrinkage=0.1, seed=[seed, split],
                groups=known.groups,
            )  # fmt: skip
            for i in held:
                m = known.memory[i]
                feasible = judged[i] & (m <= limit if SETTINGS[name].capped else True)
                feasible &= np.isfinite(curves[:, i]).all(axis=0)
                if not feasible.any():
                    continue
                found = explore(design, completed, known.errors[i].item, counts, memory=m, feasible=feasible)
                estimates = [
                    _with_looks(
                        model, completed, design, known.errors[i], curves[:, i], m, feasible,
                        int(lengths[i]), count,
                    )
                    for count in counts
                ]  # fmt: skip
                for way, rows in enumerate([[f.estimate for f in found], [e[0] for e in estimates]]):
                    scored = scores(m, truths[i], rows, feasible)
                    values[way, s, :, i] = np.column_stack([scored[metric] for metric in METRICS])
                looked[s, :, i] = [e[1:] for e in estimates]
    return LookReplay(tuple(settings), tuple(counts), known.families, values, looked)


def _with_looks(
    model: LookModel,
    completed: Completion,
    design: Design,
    errors: NDArray[np.float64],
    curves: NDArray[np.float64],
    memory: NDArray[np.float64],
    feasible: NDArray[np.bool_],
    length: int,
    count: int,
) -> tuple[NDArray[np.float64], int, int]:
    """The estimate [d] after so many trainings' time, how many looks and whole trainings that took."""
    prior = prior_of(completed)
    told: dict[int, float] = {}
    looks: dict[tuple[int, int], float] = {}
    left, made = float(length * count), 0
    while wanted := next_training(
        model, prior, design, told, looks,
        memory=memory, measurable=feasible, feasible=feasible, epochs=length, left=left,
    ):  # fmt: skip
        j, epochs = wanted
        left -= epochs
        if epochs == length:
            told[j] = float(errors[j])
        else:
            made += 1
        for k, e in enumerate(model.epochs):
            if e <= epochs:
                looks[j, e] = float(curves[k, j])
    estimate = model.given(prior, looks, list(told), list(told.values())).errors
    estimate[list(told)] = list(told.values())
    return estimate, made, len(told)


def _curves(
    known: KnownTable, measurements: Sequence[Measurement], epochs: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Errors after ``epochs`` [q, n, d], NaN where the table has none, and each row's epochs [n]."""
    wanted = tuple(sorted(set(epochs)))
    main = main_seed(m for m in measurements if not m.configuration.is_fp32)
    rows = {(t, r): i for i, (t, r) in enumerate(zip(known.tasks, known.recipes, strict=True))}
    columns = {column: j for j, column in enumerate(known.columns)}
    curves = np.full((len(wanted), len(known.names), len(known.columns)), np.nan)
    lengths = np.ones(len(known.names))
    for m in measurements:
        i, j = rows.get((m.fingerprint, m.recipe)), columns.get(str(m.configuration))
        if m.seed != main or i is None or j is None or not m.curve:
            continue
        lengths[i] = max(lengths[i], m.curve[-1][0])
        for k, epoch in enumerate(wanted):
            curves[k, i, j] = dict(m.curve).get(epoch, np.nan)
    return curves, lengths
