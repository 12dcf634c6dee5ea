"""What figures are drawn from: a table's measurements, by the question that they answer."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from peppp.evaluate.judges import Judge, noise_free
from peppp.precisions.known import Precision, is_of_formats
from peppp.records import Measurement, Recipe
from peppp.table.matrix import ErrorMatrix, Lacking, error_matrix, placed
from peppp.table.slices import known_part, largest_slice, main_seed, meets


@dataclass(frozen=True)
class Study:
    """A table and how often to repeat what is random.

    ``masks`` is the paper's 100 samples of the error matrix, ``seeds`` how often an evaluation is repeated;
    ``cap`` and ``choice_cap`` are the paper's 816 MB and 275 MB (default: quantiles of the table's memory, as
    its scale is another). ``where`` chooses the way of training. ``matrices`` stands for measurements where
    there are only matrices.
    """

    measurements: Sequence[Measurement] = ()
    matrices: ErrorMatrix | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    masks: int = 100
    seeds: int = 1
    cap: float | None = None
    choice_cap: float | None = None
    leave: str = "family"
    progress: Callable[[str], None] | None = None

    @cached_property
    def known(self) -> ErrorMatrix:
        """The commonest way of training, on the seed that most was measured with."""
        return (self.matrices or self._known(self._slice)).require()

    def _known(self, measurements: Sequence[Measurement], seed: int | None = None) -> ErrorMatrix:
        """What is known on one seed: averaging where there are several would even out some rows only."""
        kept = [m for m in measurements if is_of_formats(m.configuration)]
        seed = main_seed(kept) if seed is None and kept else seed
        return known_part(error_matrix(kept, seed=seed))

    @cached_property
    def median(self) -> float:
        """The cap of Settings II, IV and VI."""
        return float(np.median(self.known.bytes)) if self.cap is None else self.cap

    @property
    def synthetic(self) -> bool:
        """Whether the table is invented."""
        return any("synthetic" in m.provenance for m in self.measurements)

    @cached_property
    def _slice(self) -> list[Measurement]:
        return largest_slice(self.measurements, self.where)

    @property
    def recipe(self) -> Recipe:
        """The commonest way of training."""
        return self._slice[0].recipe

    @cached_property
    def judge(self) -> Judge:
        """Noise-free errors of the tasks of :attr:`known`, whose own seed is the one that is told."""
        known = self.known
        if self.matrices is not None:
            return noise_free(known)
        every = error_matrix([m for m in self._slice if is_of_formats(m.configuration)])
        runs = np.ones(every.values.shape) if every.counts is None else every.counts
        values, counts = (placed(x, every, known.keys, known.columns) for x in (every.values, runs))
        values = np.where(known.observed, values, np.nan)
        return noise_free(replace(known, values=values, counts=np.nan_to_num(counts)), told=known)

    def other_seeds(self) -> list[ErrorMatrix]:
        """The same way of training with other seeds: one table a seed, complete rows only."""
        tables = []
        for seed in sorted({m.seed for m in self._slice} - {main_seed(self._slice)}):
            try:
                tables.append(self._known(self._slice, seed))
            except Lacking:
                continue
        return tables

    def varied(self, *fields: str) -> dict[str, list[Measurement]]:
        """Measurements whose recipe differs from the commonest in these fields only, by the differing text.

        The commonest itself is among them.
        """
        if self.matrices is not None:
            raise Lacking(f"the matrices lack what tells rows apart by {', '.join(fields)}")
        blank = {name: getattr(Recipe(), name) for name in fields} | {"resolution": 0}
        base = replace(self.recipe, **blank)
        found: defaultdict[str, list[Measurement]] = defaultdict(list)
        for m in self.measurements:
            if not is_of_formats(m.configuration) or replace(m.recipe, **blank) != base:
                continue
            found[", ".join(str(getattr(m.recipe, name)) for name in fields)].append(m)
        if len(found) < 2:
            raise Lacking(f"the table lacks rows that differ in {', '.join(fields)}")
        return dict(found)

    def errors(self, measurements: Sequence[Measurement]) -> dict[tuple[str, Precision], Measurement]:
        """The measurement of each task and configuration, that of the lowest seed."""
        found: dict[tuple[str, Precision], Measurement] = {}
        for m in sorted(measurements, key=lambda m: (-m.seed, -m.repeat)):
            found[m.fingerprint, m.configuration] = m
        return found

    def rates(self, rows: int = 3) -> ErrorMatrix:
        """Rows of the tasks measured at several learning rates, so many or more; their common columns."""
        varied = self.varied("learning_rate")
        rates: defaultdict[str, set[str]] = defaultdict(set)
        for rate, measurements in varied.items():
            for m in measurements:
                rates[m.fingerprint].add(rate)
        tuned = [m for ms in varied.values() for m in ms if len(rates[m.fingerprint]) == len(varied)]
        if not tuned:
            raise Lacking("the table lacks tasks measured at every learning rate")
        return known_part(error_matrix(tuned, seed=main_seed(tuned)), every_row=True).require(rows)

    def networks(self) -> dict[str, ErrorMatrix]:
        """The known rows of each network, the commonest first."""
        varied = self.varied("network")
        order = sorted(varied, key=lambda name: (-len(varied[name]), name))
        return {name: self._known(varied[name]) for name in order}

    def reference(self) -> dict[str, float]:
        """The error of each task in plain fp32, by fingerprint, where the table holds it."""
        return {
            m.fingerprint: m.test_error
            for m in self.measurements
            if m.configuration.is_fp32
            and meets(m.recipe, {"network": self.recipe.network, "epochs": str(self.recipe.epochs)})
        }

    def say(self, text: str) -> None:
        """Show what is being done."""
        if self.progress:
            self.progress(text)
