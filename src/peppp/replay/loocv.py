"""Meta-leave-one-out: each task of a known table in turn is the new one (section 4.2, Table 1)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from peppp.campaign.sampling import nonuniform, uniform
from peppp.errors import BudgetError, TableError
from peppp.labels import groups as groups_of
from peppp.metalearn.automatic import choose_method
from peppp.metalearn.completion import Completion, complete_values, inverse_propensity
from peppp.metalearn.inner import inner_folds
from peppp.metalearn.methods import METHODS, PAPER_METHODS, explore
from peppp.metalearn.threads import single_thread
from peppp.replay.intervals import Interval, family_mean
from peppp.replay.scores import METRICS, scores
from peppp.tables import ErrorMatrix, Lacking

Leave = Literal["family", "row"]


@dataclass(frozen=True, slots=True)
class Setting:
    """How much of the meta-training table is known, and whether a new task's memory is capped."""

    sampling: Literal["full", "uniform", "nonuniform"]
    capped: bool


# Table 1.
SETTINGS = {
    "I": Setting("full", False),
    "II": Setting("full", True),
    "III": Setting("uniform", False),
    "IV": Setting("uniform", True),
    "V": Setting("nonuniform", False),
    "VI": Setting("nonuniform", True),
}
AUTO = "auto"
MEMORY_USED = "memory_used"
MEASURED = "measured"


@dataclass(frozen=True)
class Evaluation:
    """``values`` [settings, methods, counts, seeds, rows, metrics]; NaN where nothing fits the cap.

    The metrics are those of :mod:`peppp.replay.scores`, then ``memory_used``, the memory of the
    measurements as a share of that of all permissible ones (the x axis of Figure 11), and ``measured``, how
    many they are.
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
        """A metric of each row, the mean over seeds: [n]."""
        place = self.settings.index(setting), self.methods.index(method), self.counts.index(count)
        values: NDArray[np.float64] = self.values[place][..., self.metrics.index(metric)].mean(axis=0)
        return values

    def interval(self, metric: str, setting: str, method: str, count: int) -> Interval:
        """The mean over families of a metric and its interval; the mean over rows if rows were left out."""
        values = self.of(metric, setting, method, count)
        families = self.known.families if self.leave == "family" else self.known.names
        return family_mean(values, families)

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
    judge: NDArray[np.float64] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Every method in every setting on every task of a known table, as if the task were new.

    ``leave="family"`` learns from the other families' rows, ``"row"`` from all other rows, as the paper
    does. Settings III to VI know a ``share`` of the training entries, drawn anew for each split and seed,
    uniformly or with probabilities that fall with memory (and then weighs them by the inverse). ``cap`` is
    that of Settings II, IV and VI, by default the median of the table's memory. Nothing that a method sees
    depends on the held out row, but for the errors that it asks for. With ``judge`` [n, d], errors of other
    runs (:mod:`peppp.replay.judges`), all metrics are taken with those as the true ones, on the
    configurations that have one; what is measured stays the table's.

    Raises Lacking for a table with too few rows or families, TableError for a name that is not known.

    >>> from peppp.replay.synthetic import synthetic_table
    >>> from peppp.tables import error_matrix
    >>> known = error_matrix(synthetic_table(11, further=False))  # invented errors
    >>> found = evaluate(known, methods=("ed-mf", "zero"), counts=(4,))
    >>> bool(found.interval("relative_error", "I", "ed-mf", 4).mean < 0.5)
    True
    """
    known.require()
    for name in settings:
        if name not in SETTINGS:
            raise TableError(f"no setting {name!r}; there are {', '.join(SETTINGS)} (Table 1 of the paper)")
    for name in methods:
        if name not in (*METHODS, AUTO):
            raise TableError(f"no method {name!r}; there are {', '.join(METHODS)} and {AUTO}")
    if not settings or not methods or not counts:
        raise TableError(
            "an evaluation needs a setting, a method and a number of measurements, as I, ed-mf, 3"
        )
    if any(count < 0 for count in counts):
        raise TableError(f"a number of measurements is 0 or more, not {min(counts)}")
    if not 0 < share <= 1:
        raise TableError(f"a share of the table lies above 0, up to 1; {share:g} does not")
    configurations = known.configurations if "additive" in methods else None
    limit = float(np.median(known.bytes)) if cap is None else float(cap)
    if any(SETTINGS[s].capped for s in settings) and not (known.bytes <= limit).any():
        raise BudgetError(
            f"a cap of {limit:.0f}B is below every footprint of the table; the smallest is "
            f"{known.bytes.min():.0f}B"
        )
    shape = (len(settings), len(methods), len(counts), len(seeds), len(known.names), len(METRICS) + 2)
    values = np.full(shape, np.nan)
    parts = splits(known, leave)
    judged = known.observed if judge is None else known.observed & np.isfinite(judge)
    truths = known.values if judge is None else np.where(judged, judge, 1.0)
    kinds = list(dict.fromkeys(SETTINGS[name].sampling for name in settings))
    done, total = 0, len(seeds) * len(parts)
    for r, seed in enumerate(seeds):
        for split, (training, held) in enumerate(parts):
            for kind in kinds:
                completed = train(
                    known.values[training], known.bytes[training], known.observed[training], kind,
                    share=share, rank=rank, shrinkage=shrinkage, seed=[seed, split],
                    groups=groups_of(known.columns),
                )  # fmt: skip
                # The automatic choice sees the training rows alone, each of their families held out in turn.
                folds = (
                    inner_folds(
                        completed.estimate, completed.known, [known.families[i] for i in training],
                        rank=rank, shrinkage=completed.shrinkage, groups=groups_of(known.columns),
                    )
                    if AUTO in methods
                    else []
                )  # fmt: skip
                for s, name in enumerate(settings):
                    if SETTINGS[name].sampling != kind:
                        continue
                    for i in held:
                        m = known.bytes[i]
                        feasible = judged[i] & (m <= limit if SETTINGS[name].capped else True)
                        if not feasible.any():
                            continue
                        for j, method in enumerate(methods):
                            chosen = [method] * len(counts)
                            if method == AUTO:
                                chosen = choose_method(
                                    completed.estimate, completed.known, folds, counts,
                                    memory=m, feasible=feasible,
                                )  # fmt: skip
                            by_method = {
                                one: explore(
                                    one, completed, known.values[i].item, counts, memory=m,
                                    feasible=feasible, configurations=configurations, seed=[seed, int(i)],
                                )
                                for one in dict.fromkeys(chosen)
                            }  # fmt: skip
                            found = [by_method[one][c] for c, one in enumerate(chosen)]
                            scored = scores(m, truths[i], [f.estimate for f in found], feasible)
                            for column, metric in enumerate(METRICS):
                                values[s, j, :, r, i, column] = scored[metric]
                            used = [m[f.chosen].sum() / m[feasible].sum() for f in found]
                            values[s, j, :, r, i, -2] = used
                            values[s, j, :, r, i, -1] = [len(f.chosen) for f in found]
            done += 1
            if progress:
                progress(done, total)
    return Evaluation(
        known, tuple(settings), tuple(methods), tuple(counts), tuple(seeds), limit, leave, values
    )


def train(
    errors: NDArray[np.float64],
    memory: NDArray[np.float64],
    observed: NDArray[np.bool_],
    sampling: str,
    *,
    share: float,
    rank: int,
    shrinkage: float | None,
    seed: Sequence[int],
    groups: NDArray[np.intp] | None = None,
) -> Completion:
    """What is learned from training rows [n, d] of which a ``share`` is sampled.

    Of rows that are partly ``observed``, the share of all entries is sampled among those that are.
    """
    if sampling == "full":
        return complete_values(errors, observed, rank=rank, shrinkage=shrinkage, groups=groups)
    if not observed.all():
        share = min(share / float(observed.mean()), 0.5 if sampling == "nonuniform" else 1.0)
    drawn = int(np.random.SeedSequence(list(seed)).generate_state(1)[0])
    weights = None
    if sampling == "uniform":
        mask = uniform(errors.shape, share, seed=drawn)
    else:
        mask, probabilities = nonuniform(memory, share=share, seed=drawn)
        weights = inverse_propensity(probabilities)
    mask = mask & observed
    if not mask.any():
        mask = observed
    return complete_values(errors, mask, rank=rank, shrinkage=shrinkage, weights=weights, groups=groups)


def splits(known: ErrorMatrix, leave: Leave) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Training rows and held out rows of each split."""
    if leave not in ("family", "row"):
        raise TableError(f"what is left out is a family or a row, not {leave!r}")
    if leave == "row":
        labels = np.arange(len(known.names))
    else:
        # A family, and whatever shares its data.
        labels = _joined(known.families, known.tasks)
        if len(np.unique(labels)) < 2:
            raise Lacking("the table lacks a second family to learn from; leave out rows instead of families")
    return [(np.flatnonzero(labels != one), np.flatnonzero(labels == one)) for one in np.unique(labels)]


def _joined(families: Sequence[str], tasks: Sequence[str]) -> NDArray[np.intp]:
    """One label for all rows that a chain of equal families or equal tasks connects."""
    labels = np.unique(np.asarray(families), return_inverse=True)[1].astype(np.intp)
    for task in set(tasks):
        rows = [i for i, other in enumerate(tasks) if other == task]
        for label in np.unique(labels[rows]):
            labels[labels == label] = labels[rows].min()
    return labels
