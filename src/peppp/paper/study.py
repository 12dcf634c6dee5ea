"""The data that figures are computed from: a table's measurements, selected for each kind of question."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from peppp.evaluate.judges import Judge, noise_free
from peppp.evaluate.leave_one_out import Leave
from peppp.precisions.known import Precision, is_of_formats
from peppp.records import Measurement, Recipe
from peppp.table.matrix import ErrorMatrix, Lacking, placed
from peppp.table.measured import error_matrix
from peppp.table.slices import known_part, largest_slice, main_seed, meets


@dataclass(frozen=True)
class Study:
    """A table, which part of it to use, and how often to repeat what is random.

    ``matrices`` replaces ``measurements`` if only matrices are available. ``where`` fixes fields of the
    recipe and so selects the way of training. ``masks`` is the number of samples of the error matrix (100 in
    the paper), ``seeds`` the number of repeats of an evaluation. ``cap`` and ``choice_cap`` are memory caps
    in bytes (816 MB and 275 MB in the paper); they default to medians of the table's memory, because its
    scale differs. ``leave`` is what an evaluation holds out, ``"family"`` or ``"row"``. ``progress`` receives
    status texts.
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
        """The error matrix of the commonest way of training, on the seed with the most measurements.

        Raises Lacking if too little of it is known.
        """
        return (self.matrices or self._known(self._slice)).require()

    def _known(self, measurements: Sequence[Measurement], seed: int | None = None) -> ErrorMatrix:
        """The known part on one seed; averaging over seeds would reduce the noise of some rows only."""
        kept = [m for m in measurements if is_of_formats(m.configuration)]
        seed = main_seed(kept) if seed is None and kept else seed
        return known_part(error_matrix(kept, seed=seed))

    @cached_property
    def median(self) -> float:
        """The memory cap in bytes of Settings II, IV and VI: ``cap``, by default the median memory."""
        return float(np.median(self.known.bytes)) if self.cap is None else self.cap

    @property
    def synthetic(self) -> bool:
        """Whether any measurement of the table is synthetic."""
        return any("synthetic" in m.provenance for m in self.measurements)

    @cached_property
    def _slice(self) -> list[Measurement]:
        return largest_slice(self.measurements, self.where)

    @property
    def recipe(self) -> Recipe:
        """A recipe of the commonest way of training; only its resolution depends on the task."""
        return self._slice[0].recipe

    @cached_property
    def judge(self) -> Judge:
        """The judge by noise-free errors of the tasks of :attr:`known`, which holds the observed errors."""
        known = self.known
        if self.matrices is not None:
            return noise_free(known)
        every = error_matrix([m for m in self._slice if is_of_formats(m.configuration)])
        runs = np.ones(every.values.shape) if every.counts is None else every.counts
        values, counts = (placed(x, every, known.keys, known.columns) for x in (every.values, runs))
        values = np.where(known.observed, values, np.nan)
        return noise_free(replace(known, values=values, counts=np.nan_to_num(counts)), seen=known)

    def held_out(self, table: ErrorMatrix) -> Leave:
        """What an evaluation holds out: families if the study does and the table has two, else rows."""
        return "family" if self.leave == "family" and len(set(table.families)) > 1 else "row"

    def other_seeds(self) -> list[ErrorMatrix]:
        """The known part of the same way of training on every other seed, one matrix per seed."""
        tables = []
        for seed in sorted({m.seed for m in self._slice} - {main_seed(self._slice)}):
            try:
                tables.append(self._known(self._slice, seed))
            except Lacking:
                continue
        return tables

    def varied(self, *fields: str) -> dict[str, list[Measurement]]:
        """Measurements whose recipe differs from the commonest at most in these fields, by the fields' text.

        The commonest recipe itself is included. Raises Lacking if no other differs in these fields, or if
        there are only matrices.
        """
        if self.matrices is not None:
            raise Lacking(f"the matrices lack recipes, so rows cannot be compared by {', '.join(fields)}")
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
        """The measurement of lowest seed and repeat for each (fingerprint, configuration)."""
        found: dict[tuple[str, Precision], Measurement] = {}
        for m in sorted(measurements, key=lambda m: (-m.seed, -m.repeat)):
            found[m.fingerprint, m.configuration] = m
        return found

    def rates(self, rows: int = 3) -> ErrorMatrix:
        """The tasks measured at every learning rate, a row for each task and rate, with their common columns.

        Raises Lacking if there are no such tasks, or fewer than ``rows`` rows.
        """
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
        """The error matrix of each network, the commonest network first."""
        varied = self.varied("network")
        order = sorted(varied, key=lambda name: (-len(varied[name]), name))
        return {name: self._known(varied[name]) for name in order}

    def reference(self) -> dict[str, float]:
        """The fp32 error of each task that was measured in fp32, by the task's fingerprint."""
        return {
            m.fingerprint: m.test_error
            for m in self.measurements
            if m.configuration.is_fp32
            and meets(m.recipe, {"network": self.recipe.network, "epochs": str(self.recipe.epochs)})
        }

    def say(self, text: str) -> None:
        """Report what is being computed."""
        if self.progress:
            self.progress(text)
