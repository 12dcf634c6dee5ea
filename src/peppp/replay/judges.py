"""By which errors a pick is judged: those it was picked for are lucky, too.

Of many noisy errors the least is less than any of the configurations errs on average, and a method that
measures much finds it. On another seed that luck is gone. Where a table has one seed only, the task's other
configurations of the same Format A stand in: Format B hardly matters and each is a run of its own.
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from peppp.errors import TableError
from peppp.records import Measurement, Recipe
from peppp.replay.known import KnownTable, Lacking
from peppp.replay.slices import main_seed

JUDGES = ("same", "seed", "siblings")


def judge(
    known: KnownTable, name: str, measurements: Iterable[Measurement] = ()
) -> NDArray[np.float64] | None:
    """The errors [n, d] that picks on ``known`` are judged by, NaN where there is none; None are its own.

    ``same`` are its own, ``seed`` the means over all other seeds of the ``measurements`` it was made of,
    ``siblings`` those of the other configurations of equal Format A. Raises Lacking where there are none.
    """
    if name not in JUDGES:
        raise TableError(f"picks are judged by {', '.join(JUDGES)}, not by {name!r}")
    if name == "same":
        return None
    found = _siblings(known) if name == "siblings" else _other_seeds(known, measurements)
    if not np.isfinite(found).any():
        raise Lacking(f"the table lacks {'another seed' if name == 'seed' else 'siblings'} to judge picks by")
    return found


def _siblings(known: KnownTable) -> NDArray[np.float64]:
    of = np.unique([str(c.format_a) for c in known.configurations], return_inverse=True)[1]
    alike = (of[:, None] == of).astype(np.float64)  # [d, d]
    counts = known.known @ alike - known.known
    sums = (known.errors * known.known) @ alike - known.errors * known.known
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _other_seeds(known: KnownTable, measurements: Iterable[Measurement]) -> NDArray[np.float64]:
    kept = [m for m in measurements if not m.configuration.is_fp32]
    main = main_seed(kept) if kept else 0
    errors: defaultdict[tuple[str, Recipe | None, str], list[float]] = defaultdict(list)
    for m in kept:
        if m.seed != main:
            errors[m.fingerprint, m.recipe, str(m.configuration)].append(m.test_error)
    return np.array(
        [
            [
                np.mean(errors[task, recipe, column]) if (task, recipe, column) in errors else np.nan
                for column in known.columns
            ]
            for task, recipe in zip(known.tasks, known.recipes, strict=True)
        ]
    )
